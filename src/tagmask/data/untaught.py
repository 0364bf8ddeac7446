"""What tags alone cannot teach: classes that are nearly everywhere, and classes that only come together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy import sparse

from tagmask.data.dataset import Dataset
from tagmask.data.readers.problems import Problem

EVERYWHERE = 0.9
"""The fraction of the images above which a tag says next to nothing about an image."""
TOGETHER = 0.85
"""The fraction of the images with either of two classes that bear both, from which on tags hardly tell them apart."""
FEW = 10  # images that bear a class, below which nothing is said of its company


def everywhere(dataset: Dataset) -> tuple[int, ...]:
    """Find the classes that more than nine images in ten bear, as indices into classes and context classes.

    Images of which nobody knows whether they bear a class are left out of its count. A set of one class, or of too few
    images to say, has none.
    """
    whole = dataset.with_context()
    return _everywhere(whole, _together(whole))


def _everywhere(whole: Dataset, together: np.ndarray) -> tuple[int, ...]:
    if len(whole.classes) < 2:
        return ()
    doubted = np.fromiter(chain.from_iterable(record.unknown for record in whole.records), np.int64)
    known = len(whole) - np.bincount(doubted, minlength=len(whole.classes))
    borne = np.diag(together)
    return tuple(int(k) for k in np.flatnonzero((borne >= FEW) & (borne > EVERYWHERE * known)))


def untaught_classes(dataset: Dataset) -> list[Problem]:
    """Say which classes tags cannot teach, a sentence each: how often they occur, why that matters, what would help."""
    whole = dataset.with_context()
    images, together = len(whole), _together(whole)
    borne, common = np.diag(together), _everywhere(whole, together)
    found: list[Problem] = []
    for k in common:
        without = images - int(borne[k])
        found.append(
            Problem(
                "class",
                f"class {whole.classes[k]!r}",
                f"in {_percent(borne[k] / images)} of the images ({_all_but(without)}), so tags cannot teach what it "
                "looks like: its masks will be poor; add "
                "images without it, or leave it out (data.classes)",
            )
        )
    for (first, second), (both, either) in _inseparable(together, common).items():
        found.append(
            Problem(
                "class",
                f"classes {whole.classes[first]!r} and {whole.classes[second]!r}",
                f"together in {both} of the {either} images that bear either, so tags cannot tell which is which; "
                "add images of one without the other, or make them one class",
            )
        )
    return found


def inseparable(dataset: Dataset) -> dict[tuple[int, int], tuple[int, int]]:
    """Find the pairs of classes that nearly always come together, those of `everywhere` aside.

    Returns:
        for two indices into classes and context classes, in how many images both stand, and in how many either.
    """
    whole = dataset.with_context()
    together = _together(whole)
    return _inseparable(together, _everywhere(whole, together))


def _inseparable(together: np.ndarray, common: Sequence[int]) -> dict[tuple[int, int], tuple[int, int]]:
    borne = np.diag(together)
    either = borne[:, None] + borne - together
    near = np.triu((together >= FEW) & (together >= TOGETHER * either), 1)
    pairs = [(first, second) for first, second in np.argwhere(near).tolist() if not {first, second} & {*common}]
    return {pair: (int(together[pair]), int(either[pair])) for pair in pairs}


def _together(dataset: Dataset) -> np.ndarray:
    """Return the (K, K) int64 number of images that bear both of two classes; on the diagonal, that bear one."""
    rows, tags = dataset.tag_pairs()
    borne = sparse.csr_array((np.ones(len(tags), np.int64), (rows, tags)), shape=(len(dataset), len(dataset.classes)))
    borne.data[:] = 1  # of a tag that a record names twice, too
    return (borne.T @ borne).toarray()


def _percent(fraction: float) -> str:
    """Write a fraction in whole percent, 100 only where it is all."""
    return f"{100 if fraction == 1 else min(99, round(100 * fraction))} %"


def _all_but(without: int) -> str:
    return "all of them" if without == 0 else f"all but {without}"
