"""Scores and mIoU protocols against the authors' evaluation code."""

from __future__ import annotations

import numpy as np

from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import score
from tests.golden_checks import Vectors, assert_close, check, tensor


@check("seco_scores")
def seco_scores(vectors: Vectors) -> None:
    matrix = ConfusionMatrix(len(vectors["out_iou"]) - 1, background=True)
    matrix.add(vectors["in_labels"].astype(np.uint8), vectors["in_predictions"].astype(np.uint8))
    scores = score(matrix, "seco")
    assert_close(tensor(np.array(scores.miou)), vectors["out_miou"])
    for name in ("iou", "precision", "recall", "confusion_ratio"):
        assert_close(tensor(getattr(scores, name)), vectors[f"out_{name}"])


@check("miou_protocols")
def miou_protocols(vectors: Vectors) -> None:
    ground_truth, prediction = vectors["in_ground_truth"], vectors["in_prediction"]
    for protocol in ("sccam", "seam", "eps", "irn"):
        matrix = ConfusionMatrix(len(vectors[f"out_{protocol}_iou"]) - 1, background=True)
        # The script that this protocol comes from cannot take 255, so the vectors hold its answer for background.
        filled = np.where(prediction == 255, np.uint8(0), prediction) if protocol == "sccam" else prediction
        matrix.add(ground_truth, filled)
        scores = score(matrix, protocol)
        assert_close(tensor(scores.iou), vectors[f"out_{protocol}_iou"], relative=1e-6)
        assert_close(tensor(np.array(scores.miou)), vectors[f"out_{protocol}_miou"], relative=1e-6)
        if protocol == "eps":
            share = vectors["out_eps_evaluated_share"]
            assert_close(tensor(np.array(scores.coverage)), share, relative=1e-6)
