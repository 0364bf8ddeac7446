from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix


def slow_counts(ground_truth: np.ndarray, prediction: np.ndarray, ids: range) -> tuple[np.ndarray, np.ndarray]:
    counts = [[((ground_truth == true) & (prediction == said)).sum() for said in ids] for true in ids]
    return np.array(counts), np.array([((ground_truth == true) & (prediction == 255)).sum() for true in ids])


def label_maps(seed: int, classes: int, background: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = np.array([*range(0 if background else 1, classes + 1), 255], dtype=np.uint8)
    return generator.choice(values, (9, 7)), generator.choice(values, (9, 7))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 6), background=st.booleans())
def test_counts_are_those_of_counting_pair_by_pair(seed: int, classes: int, background: bool) -> None:
    ground_truth, prediction = label_maps(seed, classes, background)
    matrix = ConfusionMatrix(classes, background=background)
    matrix.add(ground_truth, prediction)
    counts, ignored = slow_counts(ground_truth, prediction, range(0 if background else 1, classes + 1))
    assert np.array_equal(matrix.counts, counts)
    assert np.array_equal(matrix.ignored, ignored)
    assert matrix.counts.sum() + matrix.ignored.sum() == (ground_truth != 255).sum()


def test_all_254_classes_fit() -> None:
    matrix = ConfusionMatrix(254)
    labels = np.arange(256, dtype=np.uint8)
    matrix.add(labels, labels[::-1].copy())
    assert matrix.counts[1, 254] == matrix.counts[254, 1] == 1
    assert matrix.ignored[0] == 1
    assert matrix.counts.sum() == 254


def test_images_add_up_in_any_order() -> None:
    whole, parts = ConfusionMatrix(3), [ConfusionMatrix(3), ConfusionMatrix(3)]
    for seed in range(6):
        ground_truth, prediction = label_maps(seed, 3, background=True)
        whole.add(ground_truth, prediction)
        parts[seed % 2].add(ground_truth, prediction)
    parts[0].merge(parts[1])
    assert np.array_equal(parts[0].counts, whole.counts)
    assert np.array_equal(parts[0].ignored, whole.ignored)
    with pytest.raises(ValueError, match="different classes"):
        whole.merge(ConfusionMatrix(4))


@pytest.mark.parametrize(
    ("ground_truth", "prediction", "background", "message"),
    [
        ([0, 4], [0, 1], True, r"truth holds id 4, but the class list has 3 classes"),
        ([0, 1], [0, 254], True, r"prediction holds id 254"),
        ([1, 2], [0, 2], False, r"prediction holds id 0, but this data has no background"),
        ([0, 2], [1, 2], False, r"truth holds id 0"),
        ([0, 2], [1], True, r"shape \(2,\).*\(1,\)"),
    ],
)
def test_ids_that_are_no_class_are_named(ground_truth: list, prediction: list, background: bool, message: str) -> None:
    matrix = ConfusionMatrix(3, background=background)
    with pytest.raises(TagmaskError, match=message):
        matrix.add(np.array(ground_truth, dtype=np.uint8), np.array(prediction, dtype=np.uint8))
    assert matrix.counts.sum() == 0


def test_other_types_than_bytes_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        ConfusionMatrix(3).add(np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.uint8))
    with pytest.raises(ValueError, match="classes=65536"):
        ConfusionMatrix(65_536)


def test_counts_are_whole_numbers_and_start_at_nothing() -> None:
    for background, ids in ((True, [0, 1, 2]), (False, [1, 2])):
        matrix = ConfusionMatrix(2, background=background)
        assert matrix.ids.tolist() == ids
        assert matrix.counts.shape == (len(ids), len(ids))
        assert matrix.ignored.shape == (len(ids),)
        assert matrix.counts.dtype == matrix.ignored.dtype == np.int64
        assert not matrix.counts.any()
        assert not matrix.ignored.any()
    assert ConfusionMatrix(3).background
    for number in (0, 65_536):
        with pytest.raises(ValueError, match=rf"classes={number}, expected 1\.\.65535"):
            ConfusionMatrix(number)
    assert ConfusionMatrix(1).counts.shape == (2, 2)


def test_matrices_with_and_without_background_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different classes"):
        ConfusionMatrix(3).merge(ConfusionMatrix(3, background=False))


def test_the_refusal_names_the_ids_that_there_are() -> None:
    one, nine = np.array([1], np.uint8), np.array([9], np.uint8)
    for background, lowest in ((True, 0), (False, 1)):
        with pytest.raises(TagmaskError, match=rf"ids go from {lowest} to 3, and 255 is ignored"):
            ConfusionMatrix(3, background=background).add(nine, one)
    with pytest.raises(TypeError, match="prediction is int64"):
        ConfusionMatrix(3).add(one, np.array([1]))
    empty = np.zeros((0, 4), np.uint8)
    matrix = ConfusionMatrix(3)
    matrix.add(empty, empty)
    assert not matrix.counts.any()
