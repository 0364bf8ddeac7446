"""What tags alone cannot teach: classes that are nearly everywhere, and classes that only come together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy import sparse

from tagmask.data.dataset import Dataset
from tagmask.data.readers.problems import Problem
from tagmask.ops.label_ids import IGNORED_CLASS

EVERYWHERE = 0.9
"""The fraction of the images above which a tag says next to nothing about an image."""
TOGETHER = 0.85
"""The fraction of the images with either of two classes that bear both, from which on tags hardly tell them apart."""
COMPANION = 0.5
"""The fraction of a class's images that bear another one, from which on the other is its companion."""
OWN = 5 / 3  # times as many images as the class that it comes along with has a companion, to be known without it
FEW = 10  # images that bear a class, below which nothing is said of its company, and little can be learnt of it
NAMED = 8  # scarce classes that are named, the scarcest; the others are counted
ROWS = 512  # classes whose company is counted at a time


def everywhere(dataset: Dataset) -> tuple[int, ...]:
    """Find the classes that more than nine images in ten bear, as indices into classes and context classes.

    Images of which nobody knows whether they bear a class are left out of its count. A set of one class, or of too few
    images to say, has none.
    """
    whole = dataset.with_context()
    return _everywhere(whole, _images_of(_borne(whole)))


def _everywhere(whole: Dataset, images: np.ndarray) -> tuple[int, ...]:
    """Find them, given (K,) in how many images each class is."""
    return _nearly_all(whole, images) if len(whole.classes) > 1 else ()


def _nearly_all(whole: Dataset, images: np.ndarray) -> tuple[int, ...]:
    """Find them in a set of one class, too."""
    doubted = np.fromiter(chain.from_iterable(record.unknown for record in whole.records), np.int64)
    known = len(whole) - np.bincount(doubted, minlength=len(whole.classes))
    return tuple(int(k) for k in np.flatnonzero((images >= FEW) & (images > EVERYWHERE * known)))


def untaught_classes(dataset: Dataset) -> list[Problem]:
    """Say which classes tags cannot teach, a sentence each: how often they occur, why that matters, what would help."""
    whole = dataset.with_context()
    images, tags = len(whole), _borne(whole)
    borne = _images_of(tags)
    common = _nearly_all(whole, borne)
    mend = "or leave it out (data.classes)"
    if len(whole.classes) == 1:
        mend = "such as images with no tag, which count with data.untagged=negative"
    found: list[Problem] = []
    for k in common:
        without = images - int(borne[k])
        found.append(
            Problem(
                "class",
                f"class {whole.classes[k]!r}",
                f"in {_percent(borne[k] / images)} of the images ({_all_but(without)}), so tags cannot teach what it "
                "looks like: its masks will be poor; add images without it, " + mend,
            )
        )
    for (first, second), (both, either) in _inseparable(tags, common).items():
        found.append(
            Problem(
                "class",
                f"classes {whole.classes[first]!r} and {whole.classes[second]!r}",
                f"together in {both} of the {either} images that bear either, so tags cannot tell which is which; "
                "add images of one without the other, or make them one class",
            )
        )
    return found


def scarce_classes(dataset: Dataset) -> list[Problem]:
    """Say which classes too few images bear, in one sentence or none; a class in none may be in others, such as val."""
    whole = dataset.with_context()
    borne = _images_of(_borne(whole))
    order = np.argsort(borne, kind="stable").tolist()
    own = [k for k in order if borne[k] or k < len(dataset.classes)]  # the others are refused elsewhere
    scarce = [k for k in own if borne[k] < FEW and whole.classes[k] != IGNORED_CLASS]
    if not scarce:
        return []
    names = [f"{whole.classes[k]!r} (in {borne[k] or 'none'})" for k in scarce[:NAMED]]
    if len(scarce) > NAMED:
        names.append(f"{len(scarce) - NAMED} more")
    them = "it" if len(scarce) == 1 else "them"
    said = f"in fewer than {FEW} images to learn from, so the model may never find {them}"
    mend = f"add images of {them}, or leave {them} out (data.classes)"
    return [Problem("class", f"{'class' if them == 'it' else 'classes'} {', '.join(names)}", f"{said}; {mend}")]


def inseparable(dataset: Dataset) -> dict[tuple[int, int], tuple[int, int]]:
    """Find the pairs of classes that nearly always come together, those of `everywhere` aside.

    Returns:
        for two indices into classes and context classes, in how many images both stand, and in how many either.
    """
    whole = dataset.with_context()
    tags = _borne(whole)
    return _inseparable(tags, _everywhere(whole, _images_of(tags)))


def _inseparable(tags: sparse.csr_array, common: Sequence[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Find them in the order of their indices, given the (N, K) tags of the images and the classes of `everywhere`."""
    borne, columns, left_out = _images_of(tags), tags.tocsc(), {*common}
    found: dict[tuple[int, int], tuple[int, int]] = {}
    # Of tens of thousands of classes a matrix of all pairs finds no room, and most never meet: some rows at a time.
    for start in range(0, len(borne), ROWS):
        together = sparse.coo_array(columns[:, start : start + ROWS].T @ tags)
        firsts, seconds, both = together.row + start, together.col, together.data
        either = borne[firsts] + borne[seconds] - both
        near = (firsts < seconds) & (both >= FEW) & (both >= TOGETHER * either)
        pairs = np.stack([each[near] for each in (firsts, seconds, both, either)], axis=1).tolist()
        for first, second, *images in sorted(pairs):
            if not {first, second} & left_out:
                found[first, second] = images[0], images[1]
    return found


def companions(dataset: Dataset) -> dict[int, tuple[int, ...]]:
    """Find the classes that come along with others and are known without them, too, as the road is with cars.

    Returns:
        for the index of a companion those of the classes that it comes along with, ascending, context classes among
        both: it is in half of their images or more, and in so many others that tags tell what it is without them.
    """
    tags = _borne(dataset.with_context())
    borne, columns = _images_of(tags), tags.tocsc()
    found: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(borne), ROWS):
        together = sparse.coo_array(columns[:, start : start + ROWS].T @ tags)
        owns, others, both = together.row + start, together.col, together.data
        comes = (owns != others) & (borne[others] >= FEW) & (both >= COMPANION * borne[others])
        comes &= borne[owns] >= OWN * borne[others]
        for own, other in sorted(zip(owns[comes].tolist(), others[comes].tolist(), strict=True)):
            found[own] = (*found.get(own, ()), other)
    return found


def _borne(dataset: Dataset) -> sparse.csr_array:
    """Return the (N, K) int64 matrix of the images and the classes they bear: 1 where they do."""
    rows, tags = dataset.tag_pairs()
    borne = sparse.csr_array((np.ones(len(tags), np.int64), (rows, tags)), shape=(len(dataset), len(dataset.classes)))
    borne.data[:] = 1  # of a tag that a record names twice, too
    return borne


def _images_of(tags: sparse.csr_array) -> np.ndarray:
    """Count the images that bear each class, (K,) int64, in their (N, K) tags."""
    return np.asarray(tags.sum(axis=0))


def _percent(fraction: float) -> str:
    """Write a fraction in whole percent, 100 only where it is all."""
    return f"{100 if fraction == 1 else min(99, round(100 * fraction))} %"


def _all_but(without: int) -> str:
    return "all of them" if without == 0 else f"all but {without}"
