from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import PROTOCOLS, score


def matrix_of(counts: list[list[int]], ignored: list[int] | None = None, background: bool = True) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(counts) - background, background=background)
    matrix.counts += np.array(counts)
    matrix.ignored += np.array(ignored or [0] * len(counts))
    return matrix


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_miou_is_that_of_torchmetrics(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ground_truth = generator.choice(np.array([0, 1, 2, 3, 4, 255], dtype=np.uint8), 400)
    prediction = np.where(
        generator.random(400) < 0.6, np.where(ground_truth == 255, 0, ground_truth), generator.integers(0, 5, 400)
    )
    matrix = ConfusionMatrix(4)
    matrix.add(ground_truth, prediction.astype(np.uint8))
    scores = score(matrix)
    given_, wanted = torch.from_numpy(prediction).long(), torch.from_numpy(ground_truth).long()
    each = MulticlassJaccardIndex(num_classes=5, ignore_index=255, average="none")(given_, wanted)
    mean = MulticlassJaccardIndex(num_classes=5, ignore_index=255, average="macro")(given_, wanted)
    accuracy = MulticlassAccuracy(num_classes=5, ignore_index=255, average="macro")(given_, wanted)
    np.testing.assert_allclose(scores.iou, each.numpy(), rtol=1e-5)
    assert scores.miou == pytest.approx(float(mean), rel=1e-5)
    assert scores.mean_class_accuracy == pytest.approx(float(accuracy), rel=1e-5)


def test_the_numbers_of_a_small_example() -> None:
    scores = score(matrix_of([[6, 2, 0], [1, 3, 0], [0, 4, 4]]))
    assert scores.iou == pytest.approx([6 / 9, 3 / 10, 4 / 8])
    assert scores.precision == pytest.approx([6 / 7, 3 / 9, 1.0])
    assert scores.recall == pytest.approx([6 / 8, 3 / 4, 4 / 8])
    assert scores.confusion_ratio == pytest.approx([1 / 6, 2.0, 0.0])
    assert scores.mean_confusion_ratio == pytest.approx(1.0)  # background is not among the foreground classes
    assert scores.pixel_accuracy == pytest.approx(13 / 20)
    assert scores.mean_class_accuracy == pytest.approx(2 / 3)
    assert scores.miou == pytest.approx((6 / 9 + 3 / 10 + 1 / 2) / 3)
    assert scores.coverage == 1.0


def test_protocols_agree_when_every_class_occurs_and_nothing_is_ignored() -> None:
    matrix = matrix_of([[6, 2, 0], [1, 3, 0], [0, 4, 4]])
    assert {round(score(matrix, name).miou, 9) for name in PROTOCOLS} == {round(score(matrix).miou, 9)}


def test_protocols_differ_on_an_ignored_prediction() -> None:
    matrix = matrix_of([[5, 1], [2, 4]], ignored=[3, 6])
    assert score(matrix, "eps").iou == pytest.approx([5 / 8, 4 / 7])
    assert score(matrix, "seam").iou == pytest.approx([5 / 11, 4 / 13])
    assert score(matrix, "irn").iou == pytest.approx([8 / 17, 4 / 13])
    assert score(matrix, "eps").coverage == score(matrix, "irn").coverage == pytest.approx(12 / 21)
    assert score(matrix, "seam").pixel_accuracy == pytest.approx(9 / 21)
    assert score(matrix, "eps").pixel_accuracy == pytest.approx(9 / 12)
    for name in ("seco", "sccam"):
        with pytest.raises(TagmaskError, match=r"9 predicted pixels are 255.*eps"):
            score(matrix, name)


def test_protocols_differ_on_classes_without_true_pixels() -> None:
    matrix = matrix_of([[8, 0, 2, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert score(matrix, "seco").miou == pytest.approx((0.8 + 1) / 2)
    assert score(matrix, "eps").miou == score(matrix, "irn").miou == pytest.approx((0.8 + 1 + 0) / 3)
    assert score(matrix, "seam").miou == pytest.approx((0.8 + 1 + 0 + 0) / 4)


def test_infinite_ratios_are_counted_and_left_out_of_the_mean() -> None:
    scores = score(matrix_of([[5, 1, 2, 0], [0, 4, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0]]))
    assert scores.confusion_ratio[1] == pytest.approx(0.25)
    assert np.isinf(scores.confusion_ratio[2])
    assert np.isnan(scores.confusion_ratio[3])
    assert scores.mean_confusion_ratio == pytest.approx(0.25)
    assert scores.unbounded == 1
    assert np.isnan(scores.precision[3])
    assert np.isnan(scores.recall[2])


def test_without_background_every_id_is_foreground() -> None:
    matrix = matrix_of([[4, 1], [2, 3]], ignored=[1, 0], background=False)
    assert score(matrix, "irn").iou == pytest.approx([4 / 8, 3 / 6])
    assert score(matrix, "eps").mean_confusion_ratio == pytest.approx((2 / 4 + 1 / 3) / 2)


def test_scoring_leaves_the_matrix_alone() -> None:
    matrix = matrix_of([[5, 1], [2, 4]], ignored=[3, 6])
    for name in ("seam", "eps", "irn"):
        score(matrix, name)
    assert matrix.counts.tolist() == [[5, 1], [2, 4]]
    assert matrix.ignored.tolist() == [3, 6]


def test_nothing_to_score_and_unknown_protocols_are_errors() -> None:
    with pytest.raises(TagmaskError, match="no pixel has ground truth"):
        score(ConfusionMatrix(3))
    with pytest.raises(TagmaskError, match=r"'voc'.*seco, sccam, seam, eps, irn"):
        score(matrix_of([[1, 0], [0, 1]]), "voc")


def test_scores_are_named_and_seco_s_by_default() -> None:
    matrix = matrix_of([[1, 0], [0, 1]])
    assert score(matrix).protocol == "seco"
    assert [score(matrix, name).protocol for name in PROTOCOLS] == ["seco", "sccam", "seam", "eps", "irn"]


def test_a_single_true_pixel_counts_in_the_mean_recall() -> None:
    scores = score(matrix_of([[3, 1, 0], [1, 0, 0], [0, 0, 0]]))
    assert scores.mean_class_accuracy == pytest.approx((0.75 + 0) / 2)
    assert np.isnan(scores.recall[2])


def test_nothing_is_divided_aloud() -> None:
    """Classes that nobody predicts or bears give NaN or infinity, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(matrix_of([[0, 2, 0], [0, 0, 0], [0, 0, 0]]))
        assert np.isnan(score(matrix_of([[2, 0], [0, 0]])).mean_confusion_ratio)
    assert scores.unbounded == 1
    assert np.isnan(scores.precision[0])
    assert np.isinf(scores.confusion_ratio[1])


def test_one_pixel_is_enough_to_score() -> None:
    assert score(matrix_of([[1, 0], [0, 0]])).miou == 1
    assert score(matrix_of([[0, 0], [0, 0]], ignored=[0, 1]), "seam").coverage == 0
    assert score(matrix_of([[0, 0], [0, 0]], ignored=[0, 1]), "seam").miou == 0


def test_means_are_taken_over_the_averaged_classes_and_the_others_still_count_as_wrong() -> None:
    matrix = matrix_of([[6, 2, 0], [1, 3, 0], [0, 4, 4]])
    scores = score(matrix, averaged=(0, 1))
    assert scores.miou == pytest.approx((6 / 9 + 3 / 10) / 2)  # the 4 pixels of class 2 taken for class 1 count
    assert scores.mean_class_accuracy == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert scores.mean_confusion_ratio == pytest.approx(2.0)
    assert scores.iou == pytest.approx([6 / 9, 3 / 10, 4 / 8])  # every class's own is still told
    assert scores.pixel_accuracy == pytest.approx(13 / 20)
    assert score(matrix, averaged=(0, 1, 2)).miou == score(matrix).miou
