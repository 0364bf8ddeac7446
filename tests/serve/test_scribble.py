from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.errors import TagmaskError
from tagmask.serve.scribble import FIXED, STROKE, refine_scribble

SIZE = (60, 80)
DISC = (np.hypot(*np.mgrid[-30:30, -40:40]) < 16).astype(np.uint8)  # of 803 pixels, in the middle


def _photo(shape: np.ndarray) -> Image.Image:
    """A red shape on green ground, with a little noise."""
    noise = np.random.default_rng(0).normal(0, 6, (*shape.shape, 3))
    return Image.fromarray(
        (np.where(shape[..., None] > 0, (200, 40, 40), (40, 160, 60)) + noise).clip(0, 255).astype(np.uint8)
    )


def _iou(found: np.ndarray, wanted: np.ndarray) -> float:
    return (found & wanted).sum() / (found | wanted).sum()


def _marks(*rows: tuple[int, slice, int]) -> np.ndarray:
    marks = np.zeros(SIZE, np.uint8)
    for row, columns, mark in rows:
        marks[row, columns] = mark
    return marks


def test_is_fills_what_looks_alike() -> None:
    found = refine_scribble(
        _photo(DISC), np.zeros(SIZE, np.uint8), _marks((30, slice(34, 46), STROKE)), 2, wanted=True, candidates=(0,)
    )
    assert set(np.unique(found)) == {0, 2}
    assert _iou(found == 2, DISC == 1) > 0.9


def test_is_not_takes_away_what_looks_alike() -> None:
    labels = np.full(SIZE, 2, np.uint8)
    found = refine_scribble(_photo(DISC), labels, _marks((5, slice(4, 76), STROKE)), 2, wanted=False, candidates=(0,))
    taken = found == 0
    assert taken[5, 4:76].all()
    assert (taken & (DISC == 1)).sum() < 0.05 * DISC.sum()
    assert taken[:12].mean() > 0.9
    assert (labels == 2).all()


def test_only_what_hangs_together_with_the_scribble_changes() -> None:
    two = np.zeros(SIZE, np.uint8)
    two[20:40, 10:30] = two[20:40, 50:70] = 1
    found = refine_scribble(
        _photo(two), np.zeros(SIZE, np.uint8), _marks((30, slice(15, 25), STROKE)), 1, wanted=True, candidates=(0,)
    )
    assert _iou((found == 1)[:, :40], (two == 1)[:, :40]) > 0.9
    assert not found[:, 40:].any()


def test_other_classes_stay_and_what_was_said_before_stays() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[:, 70:] = 3
    marks = _marks((30, slice(30, 38), STROKE), (30, slice(44, 50), FIXED))
    found = refine_scribble(_photo(DISC), labels, marks, 2, wanted=True, candidates=(0,))
    assert (found[30, 44:50] == 0).all()
    assert (found[30, 30:38] == 2).all()
    assert (found[:, 72:] == 3).all()


def test_models_scores_decide_where_colours_do_not() -> None:
    grey = Image.new("RGB", SIZE[::-1], (128, 128, 128))
    probabilities = np.zeros((3, 6, 8), np.float32)
    probabilities[1, :, :4] = probabilities[2, :, 4:] = 1
    labels = np.zeros(SIZE, np.uint8)
    labels[10:50, 20:60] = 1
    marks = _marks((30, slice(48, 56), STROKE))
    found = refine_scribble(grey, labels, marks, 1, wanted=False, candidates=(0, 2), probabilities=probabilities)
    assert (found[30, 48:56] == 2).all()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_scribble_on_a_large_image_is_never_lost(wanted: bool) -> None:
    large = np.zeros((900, 1200), np.uint8)
    labels = np.full_like(large, 0 if wanted else 1)
    marks = np.zeros_like(large)
    marks[450, 301:900] = STROKE
    found = refine_scribble(_photo(large), labels, marks, 1, wanted=wanted, candidates=(0,))
    assert (found[450, 301:900] == (1 if wanted else 0)).all()


def test_ignored_pixels_can_be_given_a_class() -> None:
    labels = np.full(SIZE, 255, np.uint8)
    found = refine_scribble(_photo(DISC), labels, _marks((30, slice(34, 46), STROKE)), 1, wanted=True, candidates=(2,))
    assert (found[30, 34:46] == 1).all()
    assert set(np.unique(found)) <= {1, 255}


def test_no_scribble_is_refused() -> None:
    with pytest.raises(TagmaskError, match="there is no scribble"):
        refine_scribble(_photo(DISC), DISC, np.zeros(SIZE, np.uint8), 1, wanted=True, candidates=(0,))


def test_not_where_nothing_else_can_be_is_refused() -> None:
    marks = _marks((30, slice(34, 46), STROKE))
    with pytest.raises(TagmaskError, match="nothing else can be there"):
        refine_scribble(_photo(DISC), np.ones(SIZE, np.uint8), marks, 1, wanted=False, candidates=())
