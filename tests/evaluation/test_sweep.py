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
