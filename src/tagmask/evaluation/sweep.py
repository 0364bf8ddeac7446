"""Score CAMs at every background score in one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import Scores, score
from tagmask.ops.label_ids import IGNORE

THRESHOLDS = np.arange(60, dtype=np.float32) / 100
"""0.00, 0.01, ..., 0.59, as in SEAM (CVPR 2020)."""


@dataclass(frozen=True)
class Sweep:
    """Scores at each of T thresholds.

    Attributes:
        thresholds: (T,) ascending background scores.
        miou: (T,) in [0, 1].
        best: the scores at the best threshold (the lowest of equals).
        best_threshold: the background score `best` was found at.
    """

    thresholds: np.ndarray
    miou: np.ndarray
    best: Scores
    best_threshold: float


class ThresholdSweep:
    """Counts CAMs against the ground truth so that every background score can be judged afterwards.

    At threshold t a pixel is background if no CAM exceeds t, else the class of the highest CAM. So its label depends
    only on that class and on how many thresholds lie below its value, and one histogram over both holds all answers.

    Args:
        num_classes: K.
        thresholds: (T,) ascending background scores in [0, 1).
    """

    def __init__(self, num_classes: int, thresholds: np.ndarray = THRESHOLDS) -> None:
        self.num_classes = num_classes
        self.thresholds = np.asarray(thresholds, dtype=np.float32)
        if not len(self.thresholds) or (np.diff(self.thresholds) <= 0).any():
            raise ValueError("thresholds must ascend")
        # ground-truth id x class of the highest CAM x number of thresholds below its value
        self.histogram = np.zeros((num_classes + 1, num_classes, len(self.thresholds) + 1), dtype=np.int64)

    def add(self, cams: np.ndarray | Tensor, ground_truth: np.ndarray) -> None:
        """Count one image.

        Args:
            cams: (K, h, w) activation in [0, 1], 0 for classes the image is known not to bear.
            ground_truth: (h, w) ids, 0 background, 255 left out.

        Raises:
            TagmaskError: the sizes differ, or the ground truth holds an id that is no class.
        """
        maps = torch.as_tensor(cams, dtype=torch.float32)
        if maps.shape != (self.num_classes, *ground_truth.shape):
            raise TagmaskError(
                f"CAMs of shape {tuple(maps.shape)}, ground truth of {ground_truth.shape}: expected "
                f"({self.num_classes}, h, w) at the size of the ground truth; resize the CAMs first"
            )
        known = ground_truth != IGNORE
        labels = ground_truth[known].astype(np.int64)
        if labels.size and labels.max() > self.num_classes:
            raise TagmaskError(f"the ground truth holds id {labels.max()}, but there are {self.num_classes} classes")
        values, highest = (found.numpy(force=True)[known] for found in maps.max(dim=0))
        below = np.searchsorted(self.thresholds, values, side="left")
        _, classes, bins = shape = self.histogram.shape
        places = (labels * classes + highest) * bins + below
        self.histogram += np.bincount(places, minlength=self.histogram.size).reshape(shape)

    def matrix(self, index: int) -> ConfusionMatrix:
        """Return the confusion matrix at threshold number `index`."""
        matrix = ConfusionMatrix(self.num_classes, background=True)
        matrix.counts[:, 0] = self.histogram[:, :, : index + 1].sum(axis=(1, 2))
        matrix.counts[:, 1:] = self.histogram[:, :, index + 1 :].sum(axis=2)
        return matrix

    def result(self, protocol: str = "seco", *, averaged: Sequence[int] | None = None) -> Sweep:
        """Return the scores at every threshold, averaged over the given ids, by default over all.

        Raises:
            TagmaskError: as `score`.
        """
        scores = [score(self.matrix(index), protocol, averaged=averaged) for index in range(len(self.thresholds))]
        miou = np.array([each.miou for each in scores])
        best = int(miou.argmax())
        return Sweep(self.thresholds, miou, scores[best], round(float(self.thresholds[best]), 6))
