"""Count a whole set of label maps in one confusion matrix, off which every score is read."""

from __future__ import annotations

import numpy as np

from tagmask.data.dataset import MAX_CLASSES
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE


class ConfusionMatrix:
    """Counts pixels by the id of their ground truth and by their predicted id.

    Rows and columns are ids in ascending order: 0..K with a background, else 1..K. Pixels whose ground
    truth is 255 are left out; those that have one, but whose prediction is 255, are counted apart, for each protocol
    to judge.

    Attributes:
        ids: the R ids that rows and columns stand for.
        counts: (R, R) int64, row ground truth, column prediction.
        ignored: (R,) int64, pixels of each ground-truth id whose prediction is 255.
    """

    def __init__(self, num_classes: int, *, background: bool = True) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes={num_classes}, expected 1..{MAX_CLASSES}")
        self.num_classes = num_classes
        self.background = background
        self.ids = np.arange(0 if background else 1, num_classes + 1)
        self.counts = np.zeros((len(self.ids), len(self.ids)), dtype=np.int64)
        self.ignored = np.zeros(len(self.ids), dtype=np.int64)

    def add(self, ground_truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count the pixels of one or more label maps.

        Args:
            ground_truth: uint8 or uint16, any shape: ids, or 255 where nobody knows.
            prediction: uint8 or uint16 of the same shape: ids, or 255 where nothing is said.

        Raises:
            TagmaskError: the shapes differ, or an id is no class.
        """
        if ground_truth.shape != prediction.shape:
            raise TagmaskError(
                f"the ground truth has shape {ground_truth.shape} and the prediction {prediction.shape};"
                " compare label maps of the same size"
            )
        shifted_ground_truth = _shifted(ground_truth, "ground truth")
        shifted_prediction = _shifted(prediction, "prediction")
        self._check(shifted_ground_truth, "ground truth")
        self._check(shifted_prediction, "prediction")
        stride = self.num_classes + 2
        pairs = shifted_ground_truth.astype(np.int32)
        pairs *= stride
        pairs += shifted_prediction
        table = np.bincount(pairs, minlength=stride * stride).reshape(stride, stride)
        if not self.background and (table[1].any() or table[:, 1].any()):
            where = "ground truth" if table[1].any() else "prediction"
            raise TagmaskError(
                f"the {where} holds id 0, but this data has no background; its ids are 1..{self.num_classes}"
            )
        first = 1 + int(self.ids[0])
        self.counts += table[first:, first:]
        self.ignored += table[first:, 0]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the pixels that another matrix of the same classes has counted."""
        if (self.num_classes, self.background) != (other.num_classes, other.background):
            raise ValueError("matrices of different classes cannot be merged")
        self.counts += other.counts
        self.ignored += other.ignored

    def _check(self, shifted: np.ndarray, what: str) -> None:
        if shifted.size and shifted.max() > self.num_classes + 1:
            strange = shifted[shifted > self.num_classes + 1].min() - 1
            raise TagmaskError(
                f"the {what} holds id {strange}, but the class list has {self.num_classes} classes; ids go from"
                f" {self.ids[0]} to {self.num_classes}, and 255 is ignored"
            )


def _shifted(labels: np.ndarray, what: str) -> np.ndarray:
    """Make 255 0 and every id one more, in one dimension, so that the ids that occur lie close together."""
    if labels.dtype == np.uint8:
        return labels.ravel() + np.uint8(1)
    if labels.dtype != np.uint16:
        raise TypeError(f"the {what} is {labels.dtype}; label maps are uint8 or uint16")
    return np.where(labels == IGNORE, 0, labels.astype(np.int32) + 1).ravel()
