"""The ways in which papers read one mIoU off a confusion matrix.

They agree on a whole data set without ignored predictions, and on little else:

| protocol | a predicted 255 | a class that the ground truth lacks |
| --- | --- | --- |
| `seco`, `sccam` | is refused | is left out of the mean |
| `seam` | is a miss | counts, as 0 even where it is not predicted either |
| `eps` | drops the pixel | counts as 0 where it is predicted, else is left out |
| `irn` | is background | as `eps` |

Sources: the evaluation code of SeCo (CVPR 2024), SC-CAM (CVPR 2020), SEAM (CVPR 2020), EPS (CVPR 2021, also used by
RCA) and IRN (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.ops.label_ids import IGNORE


@dataclass(frozen=True)
class Scores:
    """The scores that one protocol reads off a confusion matrix of R ids: background, if there is one, then classes.

    Attributes:
        protocol: its name.
        miou: mean of `iou` over the classes the protocol counts, in [0, 1].
        iou: (R,) TP / (TP + FP + FN); NaN where a class occurs in neither map (0 under `seam`).
        precision: (R,) TP / (TP + FP); NaN for a class that is never predicted.
        recall: (R,) TP / (TP + FN); NaN for a class that the ground truth lacks.
        confusion_ratio: (R,) FP / TP, SeCo's measure of co-occurrence; infinite for a class that is predicted but
            never rightly, NaN for one that is never predicted.
        mean_confusion_ratio: mean over the foreground classes whose ratio is finite; NaN if there is none. Infinite
            ratios have no place in a mean, so `unbounded` says how many are missing from it; read the two together.
        unbounded: the number of foreground classes with an infinite ratio.
        pixel_accuracy: fraction of right pixels among those the protocol evaluates.
        mean_class_accuracy: mean recall over the ids that the ground truth holds.
        coverage: fraction of the pixels with ground truth for which something is predicted (not 255).
    """

    protocol: str
    miou: float
    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    confusion_ratio: np.ndarray
    mean_confusion_ratio: float
    unbounded: int
    pixel_accuracy: float
    mean_class_accuracy: float
    coverage: float


@dataclass(frozen=True)
class _Tally:
    """The pixels of each id, (R,) float64: rightly predicted, predicted at all, and in the ground truth."""

    right: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @property
    def union(self) -> np.ndarray:
        return self.predicted + self.true - self.right


def score(matrix: ConfusionMatrix, protocol: str = "seco", *, averaged: Sequence[int] | None = None) -> Scores:
    """Read the scores off a confusion matrix.

    Args:
        matrix: over the whole set.
        protocol: `seco`, `sccam`, `seam`, `eps` or `irn`; see the module's table.
        averaged: the ids over which means are taken, as far as the protocol counts them; None takes all. Pixels of
            the others still count where they are taken for an averaged class, or the other way about.

    Raises:
        TagmaskError: no such protocol; no pixel with ground truth; ignored predictions under `seco` or `sccam`.
    """
    if protocol not in PROTOCOLS:
        raise TagmaskError(f"no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    known = float(matrix.counts.sum() + matrix.ignored.sum())
    if known == 0:
        raise TagmaskError("no pixel has ground truth: every label in it is 255, or no image was compared")
    tally, average = PROTOCOLS[protocol](matrix)
    chosen = (matrix.ids != IGNORE) & (True if averaged is None else np.isin(matrix.ids, averaged))
    average = average & chosen
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(average & (tally.union == 0), 0.0, tally.right / tally.union)
        recall = tally.right / tally.true
        precision = tally.right / tally.predicted
        ratio = (tally.predicted - tally.right) / tally.right
        accuracy = float(tally.right.sum() / tally.true.sum())
    foreground = ratio[chosen & (matrix.ids > 0)]
    return Scores(
        protocol=protocol,
        miou=_mean(iou[average]),
        iou=iou,
        precision=precision,
        recall=recall,
        confusion_ratio=ratio,
        mean_confusion_ratio=_mean(foreground[np.isfinite(foreground)]),
        unbounded=int(np.isinf(foreground).sum()),
        pixel_accuracy=accuracy,
        mean_class_accuracy=_mean(recall[chosen & (tally.true > 0)]),
        coverage=float(matrix.counts.sum()) / known,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _plain(matrix: ConfusionMatrix) -> _Tally:
    """Count only the pixels with a prediction."""
    counts = matrix.counts.astype(np.float64)
    return _Tally(right=np.diagonal(counts).copy(), predicted=counts.sum(axis=0), true=counts.sum(axis=1))


def _refuse_ignored(matrix: ConfusionMatrix) -> tuple[_Tally, np.ndarray]:
    missing = int(matrix.ignored.sum())
    if missing:
        raise TagmaskError(
            f"{missing} predicted pixels are 255 (ignored), which the protocols seco and sccam do not allow; choose eps"
            " (drops them), irn (background) or seam (misses)"
        )
    tally = _plain(matrix)
    return tally, tally.true > 0


def _count_as_misses(matrix: ConfusionMatrix) -> tuple[_Tally, np.ndarray]:
    tally = _plain(matrix)
    tally = _Tally(tally.right, tally.predicted, tally.true + matrix.ignored)
    return tally, np.ones(len(matrix.ids), dtype=bool)


def _drop(matrix: ConfusionMatrix) -> tuple[_Tally, np.ndarray]:
    tally = _plain(matrix)
    return tally, tally.union > 0


def _turn_to_background(matrix: ConfusionMatrix) -> tuple[_Tally, np.ndarray]:
    tally = _plain(matrix)
    tally = _Tally(tally.right, tally.predicted, tally.true + matrix.ignored)
    if matrix.background:  # else background is no id, and what it covers is missed
        tally.right[0] += matrix.ignored[0]
        tally.predicted[0] += matrix.ignored.sum()
    return tally, tally.union > 0


PROTOCOLS: dict[str, Callable[[ConfusionMatrix], tuple[_Tally, np.ndarray]]] = {
    "seco": _refuse_ignored,
    "sccam": _refuse_ignored,
    "seam": _count_as_misses,
    "eps": _drop,
    "irn": _turn_to_background,
}
"""For each protocol: what it counts, and which ids (R,) its mean is taken over."""
