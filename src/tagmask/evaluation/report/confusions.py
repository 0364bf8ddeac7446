"""Which class eats which: the confusion matrix read for co-occurrence."""

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
        eaten: class index of what is true, or None for the background.
        pixels: how many.
        of_eater: share of all pixels predicted as the eater, in [0, 1].
        of_eaten: share of all true pixels of the eaten, in [0, 1].
        company: share of the images tagged with the eater that are tagged with the eaten too; None for the
            background or where no image is tagged with the eater.
    """

    eater: int
    eaten: int | None
    pixels: int
    of_eater: float
    of_eaten: float
    company: float | None


def largest_confusions(matrix: ConfusionMatrix, records: Sequence[Record], count: int) -> list[Confusion]:
    """The `count` largest, by share of the pixels predicted as the eater; classes only, since background eats no one.

    Pairs under a hundredth of the eater's pixels are left out.
    """
    first = int(matrix.background)
    predicted, true = matrix.counts.sum(axis=0), matrix.counts.sum(axis=1) + matrix.ignored
    shares = matrix.counts / np.maximum(predicted, 1)
    np.fill_diagonal(shares, 0)
    shares[:, :first] = 0
    together = _company(records, matrix.num_classes)
    found = []
    for place in np.argsort(-shares, axis=None, kind="stable")[:count]:
        row, column = divmod(int(place), len(matrix.ids))
        if shares[row, column] < 0.01:
            break
        eater, eaten = column - first, row - first if row >= first else None
        tagged = together[eater, eater]
        found.append(
            Confusion(
                eater,
                eaten,
                int(matrix.counts[row, column]),
                float(shares[row, column]),
                float(matrix.counts[row, column] / true[row]),
                None if eaten is None or not tagged else float(together[eater, eaten] / tagged),
            )
        )
    return found


def _company(records: Sequence[Record], num_classes: int) -> np.ndarray:
    """(K, K) number of images that bear both tags."""
    tags = np.zeros((len(records), num_classes), np.int64)
    for row, record in enumerate(records):
        tags[row, list(record.tags)] = 1
    return tags.T @ tags


@dataclass(frozen=True)
class Excerpt:
    """A confusion matrix small enough to look at.

    Attributes:
        rows: the R ids shown, ascending.
        shares: (R, R) row truth, column prediction: the share of all pixels predicted as the column, in [0, 1].
        hidden: number of ids left out.
    """

    rows: tuple[int, ...]
    shares: np.ndarray
    hidden: int


def excerpt(matrix: ConfusionMatrix, most: int) -> Excerpt:
    """The matrix over at most `most` ids: those with the most wrong pixels."""
    wrong = matrix.counts.copy()
    np.fill_diagonal(wrong, 0)
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[:most])
    shares = matrix.counts / np.maximum(matrix.counts.sum(axis=0), 1)
    ids = tuple(int(label) for label in matrix.ids[kept])
    return Excerpt(ids, shares[np.ix_(kept, kept)], len(matrix.ids) - len(kept))
