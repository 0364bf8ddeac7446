"""Read off the confusion matrix which class is laid over which: the trace that co-occurrence leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tagmask.data.dataset import Record
from tagmask.evaluation.confusion import ConfusionMatrix


@dataclass(frozen=True)
class Confusion:
    """One class that is laid over another, or over the background.

    Attributes:
        eater: class index of what was predicted.
        eaten: class index of the ground truth, or None for the background.
        pixels: how many.
        of_eater: fraction of all pixels predicted as the eater, in [0, 1].
        of_eaten: fraction of the ground-truth pixels of the eaten, in [0, 1].
        company: fraction of the images tagged with the eater that are tagged with the eaten too; None for the
            background or where no image is tagged with the eater.
        tagged: how many images are tagged with the eater.
    """

    eater: int
    eaten: int | None
    pixels: int
    of_eater: float
    of_eaten: float
    company: float | None
    tagged: int


def largest_confusions(matrix: ConfusionMatrix, records: Sequence[Record], count: int) -> list[Confusion]:
    """Return the `count` largest, by the fraction of the eater's pixels; only classes eat, background eats no one.

    Pairs under a hundredth of the eater's pixels are left out.
    """
    first = int(matrix.background)
    predicted, true = matrix.counts.sum(axis=0), matrix.counts.sum(axis=1) + matrix.ignored
    fractions = matrix.counts / np.maximum(predicted, 1)
    np.fill_diagonal(fractions, 0)
    fractions[:, :first] = 0
    together = _company(records, matrix.num_classes)
    found = []
    for place in np.argsort(-fractions, axis=None, kind="stable")[:count]:
        row, column = divmod(int(place), len(matrix.ids))
        if fractions[row, column] < 0.01:
            break
        eater, eaten = column - first, row - first if row >= first else None
        tagged = together[eater, eater]
        found.append(
            Confusion(
                eater,
                eaten,
                int(matrix.counts[row, column]),
                float(fractions[row, column]),
                float(matrix.counts[row, column] / true[row]),
                None if eaten is None or not tagged else float(together[eater, eaten] / tagged),
                int(tagged),
            )
        )
    return found


def _company(records: Sequence[Record], num_classes: int) -> np.ndarray:
    """Count the images (K, K) that bear both tags."""
    tags = np.zeros((len(records), num_classes), np.int64)
    for row, record in enumerate(records):
        tags[row, list(record.tags)] = 1
    return tags.T @ tags


@dataclass(frozen=True)
class Excerpt:
    """A confusion matrix small enough to look at.

    Attributes:
        rows: the R ids shown, ascending.
        fractions: (R, R) row ground truth, column prediction: of all pixels predicted as the column, the
            fraction in [0, 1].
        hidden: number of ids left out.
    """

    rows: tuple[int, ...]
    fractions: np.ndarray
    hidden: int


def excerpt(matrix: ConfusionMatrix, most: int) -> Excerpt:
    """Cut the matrix down to at most `most` ids: those with the most wrong pixels."""
    wrong = matrix.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:most])
    fractions = matrix.counts / np.maximum(matrix.counts.sum(axis=0), 1)
    ids = tuple(int(label) for label in matrix.ids[kept])
    return Excerpt(ids, fractions[np.ix_(kept, kept)], len(matrix.ids) - len(kept))
