from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import score
from tagmask.evaluation.sweep import THRESHOLDS, ThresholdSweep


def example(seed: int, classes: int, height: int = 6, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """CAMs with many values exactly on a threshold, and a ground truth they often agree with."""
    generator = np.random.default_rng(seed)
    cams = (generator.integers(0, 70, (classes, height, width)) / np.float32(100)).astype(np.float32)
    ground_truth = np.where(
        generator.random((height, width)) < 0.6, cams.argmax(0) + 1, generator.integers(0, classes + 1)
    )
    ground_truth[generator.random((height, width)) < 0.1] = 255
    return cams, ground_truth.astype(np.uint8)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 4))
def test_each_threshold_counts_as_argmax_with_a_constant_background_does(seed: int, classes: int) -> None:
    images = [example(seed + offset, classes) for offset in range(2)]
    sweep = ThresholdSweep(classes)
    for cams, ground_truth in images:
        sweep.add(cams, ground_truth)
    for index, threshold in enumerate(THRESHOLDS):
        direct = ConfusionMatrix(classes)
        for cams, ground_truth in images:
            stacked = np.concatenate([np.full((1, *ground_truth.shape), threshold), cams])
            direct.add(ground_truth, stacked.argmax(axis=0).astype(np.uint8))
        assert np.array_equal(sweep.matrix(index).counts, direct.counts)


def test_the_best_threshold_is_found_and_named() -> None:
    """Objects lie at 0.5 and above, what lies around them at 0.3 and below: any threshold between is perfect."""
    ground_truth = np.zeros((8, 8), dtype=np.uint8)
    ground_truth[2:5, 2:5] = 1
    cams = torch.full((2, 8, 8), 0.3)
    cams[0, 2:5, 2:5] = 0.5
    cams[1] = 0.0
    counted = ThresholdSweep(num_classes=2)
    counted.add(cams, ground_truth)
    sweep = counted.result()
    assert sweep.best_threshold == 0.3
    assert sweep.best.miou == sweep.miou[30] == sweep.miou[49] == 1.0
    assert sweep.miou[29] < 1.0
    assert sweep.miou[50] < 1.0
    assert sweep.miou.shape == (60,)
    assert sweep.thresholds[-1] == pytest.approx(0.59)


def test_the_protocol_is_handed_on() -> None:
    sweep = ThresholdSweep(3)
    cams, ground_truth = example(3, 3)
    ground_truth[ground_truth == 2] = 0
    sweep.add(cams, ground_truth)
    assert sweep.result("seam").best.protocol == "seam"
    assert sweep.result("seam").miou[10] == score(sweep.matrix(10), "seam").miou != sweep.result("seco").miou[10]


def test_sizes_and_ids_are_checked() -> None:
    cams, ground_truth = example(0, 3)
    with pytest.raises(TagmaskError, match=r"\(3, 6, 5\).*\(6, 4\).*resize"):
        ThresholdSweep(3).add(cams, ground_truth[:, :4])
    with pytest.raises(TagmaskError, match="id 9"):
        ThresholdSweep(3).add(cams, np.full_like(ground_truth, 9))
    with pytest.raises(ValueError, match="ascend"):
        ThresholdSweep(3, np.array([0.2, 0.1]))


def test_a_sweep_of_one_s_own_thresholds() -> None:
    sweep = ThresholdSweep(2, np.array([0.25, 0.5]))
    cams = np.array([[[0.2, 0.25, 0.3, 0.6, 0.9]], [[0.1, 0.2, 0.3, 0.7, 0.2]]])  # doubles
    ground_truth = np.array([[0, 1, 1, 2, 255]], dtype=np.uint8)
    sweep.add(cams, ground_truth)
    assert sweep.histogram.dtype == np.int64
    assert sweep.histogram.sum() == 4
    assert sweep.matrix(0).counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert sweep.matrix(1).counts.tolist() == [[1, 0, 0], [2, 0, 0], [0, 0, 1]]
    assert not sweep.matrix(0).ignored.any()
    result = sweep.result()
    assert result.miou == pytest.approx([(1 / 2 + 1 / 2 + 1) / 3, (1 / 3 + 0 + 1) / 3])
    assert result.best_threshold == 0.25
    assert result.thresholds.tolist() == [0.25, 0.5]
    assert result.best.protocol == "seco"


def test_thresholds_are_sixty_hundredths_in_single_precision() -> None:
    """A CAM in single precision of exactly a threshold does not exceed it."""
    assert THRESHOLDS.dtype == ThresholdSweep(1).thresholds.dtype == np.float32
    assert THRESHOLDS.tolist() == [np.float32(hundredth) / np.float32(100) for hundredth in range(60)]
    sweep = ThresholdSweep(1, [0.1, 0.2, 0.3])  # pyright: ignore[reportArgumentType]
    sweep.add(np.float32([[[0.1, 0.2, 0.3]]]), np.ones((1, 3), np.uint8))
    assert [int(sweep.matrix(index).counts[1, 1]) for index in range(3)] == [2, 1, 0]
    for wrong in ([], [0.2, 0.2]):
        with pytest.raises(ValueError, match="ascend"):
            ThresholdSweep(1, np.array(wrong))
    assert ThresholdSweep(1, np.array([0.2])).result is not None


def test_images_of_nothing_known_count_nothing() -> None:
    sweep = ThresholdSweep(2)
    sweep.add(torch.rand(2, 3, 4), np.full((3, 4), 255, np.uint8))
    assert not sweep.histogram.any()
    half = torch.rand(2, 3, 4).bfloat16().requires_grad_()  # as it comes from a network
    sweep.add(half, np.zeros((3, 4), np.uint8))
    assert sweep.histogram.sum() == 12
    with pytest.raises(TagmaskError, match="id 3, but there are 2 classes"):
        sweep.add(half, np.full((3, 4), 3, np.uint8))
