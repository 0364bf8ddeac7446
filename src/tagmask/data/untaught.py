"""What tags alone cannot teach: classes that are nearly everywhere, and classes that only come together."""

from __future__ import annotations

from itertools import combinations

import numpy as np

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
    if len(whole.classes) < 2:
        return ()
    tags = whole.tag_matrix()
    known = len(tags) - np.array([sum(k in record.unknown for record in whole.records) for k in range(tags.shape[1])])
    borne = tags.sum(axis=0, dtype=np.int64)
    return tuple(int(k) for k in np.flatnonzero((borne >= FEW) & (borne > EVERYWHERE * known)))


def untaught_classes(dataset: Dataset) -> list[Problem]:
    """Say which classes tags cannot teach, a sentence each: how often they occur, why that matters, what would help."""
    whole = dataset.with_context()
    tags, images = whole.tag_matrix().astype(np.int64), len(whole)
    common = everywhere(dataset)
    found: list[Problem] = []
    for k in common:
        without = images - int(tags[:, k].sum())
        found.append(
            Problem(
                "class",
                f"class {whole.classes[k]!r}",
                f"in {_percent(tags[:, k].mean())} of the images ({_all_but(without)}), so tags cannot teach what it "
                "looks like: its masks will be poor; add "
                "images without it, or leave it out (data.classes)",
            )
        )
    for (first, second), (both, either) in inseparable(dataset).items():
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
    tags = dataset.with_context().tag_matrix().astype(np.int64)
    together, common = tags.T @ tags, everywhere(dataset)
    found = {}
    for first, second in combinations([k for k in range(len(together)) if k not in common], 2):
        both = int(together[first, second])
        either = int(together[first, first] + together[second, second]) - both
        if both >= FEW and both >= TOGETHER * either:
            found[first, second] = both, either
    return found


def _percent(fraction: float) -> str:
    """Write a fraction in whole percent, 100 only where it is all."""
    return f"{100 if fraction == 1 else min(99, round(100 * fraction))} %"


def _all_but(without: int) -> str:
    return "all of them" if without == 0 else f"all but {without}"
