from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.cam import multiscale_cams, normalise_cams
from tagmask.ops.labels import inside_boxes, present_tags, pseudo_masks, region_map, take_channels, to_labels


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 6), low=st.floats(0.1, 0.4), band=st.floats(0, 0.4))
def test_dropping_absent_classes_changes_no_label(seed: int, classes: int, low: float, band: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    cams = torch.rand(3, classes, 6, 7, generator=generator)
    tags = (torch.rand(3, classes, generator=generator) < 0.5).float()
    channels, ids = present_tags(tags, max(1, int(tags.sum(1).max())))
    boxes = torch.tensor([[0, 6, 0, 7], [1, 5, 2, 7], [0, 1, 0, 1]])
    arguments = {"low": low, "high": low + band, "boxes": boxes}
    compact = take_channels(cams, channels)
    for function in (to_labels, region_map):
        whole = function(cams, tags, **arguments)
        assert torch.equal(whole, function(compact, (ids > 0).float(), ids=ids, **arguments))


def test_present_tags_in_ascending_order_and_zero_where_there_are_fewer() -> None:
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    _, ids = present_tags(tags, 2)
    assert ids.tolist() == [[2, 4], [3, 0], [0, 0]]


def test_thresholds_at_their_edges() -> None:
    cams = torch.tensor([0.25, 0.26, 0.7, 0.71]).view(1, 1, 1, 4)
    tags, box = torch.ones(1, 1), torch.tensor([[0, 1, 0, 4]])
    assert to_labels(cams, tags, low=0.25, high=0.7).flatten().tolist() == [0, 255, 255, 1]
    assert region_map(cams, tags, low=0.25, high=0.7, boxes=box).flatten().tolist() == [0, -1, -1, 1]
    assert to_labels(cams, tags, low=0.25, high=0.7, background=False).flatten().tolist() == [255, 255, 255, 1]
    assert to_labels(cams, tags * 0, low=0.25, high=0.7).flatten().tolist() == [0, 0, 0, 0]


def test_boxes_are_top_bottom_left_right() -> None:
    inside = inside_boxes(torch.tensor([[1, 3, 0, 2]]), 4, 3)[0]
    assert inside.int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("background", [True, False])
def test_pseudo_masks_decide_where_cams_are_clear(background: bool) -> None:
    cams = torch.zeros(1, 2, 8, 12)
    cams[0, 0, :, :4] = 1.0
    cams[0, 1, :, 8:] = 1.0
    labels = pseudo_masks(
        cams,
        torch.ones(1, 2),
        high=0.7,
        low=0.25,
        boxes=torch.tensor([[0, 8, 0, 11]]),
        refine=lambda scores: scores,
        background=background,
    )
    row = labels[0, 4].tolist()
    assert row[:3] == [1, 1, 1]
    assert row[9:] == [2, 2, 255]  # the last column lies outside the box
    assert row[5:7] == ([0, 0] if background else [255, 255])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_cams_of_a_flipped_image_are_flipped(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(2, 3, 8, 8, generator=generator)
    images = torch.randn(2, 3, 32, 48, generator=generator)

    def forward(views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.nn.functional.conv2d(views, kernel, stride=8),)

    (cams,) = multiscale_cams(forward, images, (1.0, 0.5))
    (flipped,) = multiscale_cams(forward, images.flip(-1), (1.0, 0.5))
    torch.testing.assert_close(flipped.flip(-1), cams, rtol=1e-4, atol=1e-5)
    assert cams.min() >= 0
    assert cams.max() < 1


def test_constant_map_becomes_zero_and_scale_does_not_matter() -> None:
    maps = torch.rand(1, 2, 5, 5)
    maps[0, 1] = 3.0
    cams = normalise_cams(maps)
    assert torch.equal(cams[0, 1], torch.zeros(5, 5))
    torch.testing.assert_close(normalise_cams(1000 * maps)[0, 0], cams[0, 0], rtol=1e-3, atol=1e-4)
