from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.cam import multiscale_cams, normalise_cams
from tagmask.ops.labels import (
    beside_context,
    inside_boxes,
    present_tags,
    pseudo_masks,
    region_map,
    take_channels,
    to_labels,
    told_apart,
    with_background,
    yielded,
)


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


def test_context_that_is_higher_clears_a_cam() -> None:
    cams = torch.tensor([[[0.2, 0.6, 0.5]], [[0.9, 0.1, 0.4]]])
    context = torch.tensor([[[0.1, 0.6, 0.0]], [[0.3, 0.2, 0.45]]])
    cleared = beside_context(cams, context)
    torch.testing.assert_close(cleared, torch.tensor([[[0.0, 0.6, 0.5]], [[0.9, 0.0, 0.0]]]))
    assert beside_context(cams, context[:0]) is cams


def test_the_higher_of_two_cams_goes_to_the_class_that_a_pixel_belongs_to() -> None:
    cams = torch.tensor([[[0.8, 0.8, 0.2, 0.2, 0.5]], [[0.4, 0.4, 0.6, 0.6, 0.1]]])
    given = told_apart(cams, torch.tensor([[0.0, 0.25, 0.5, 0.8, 1.0]]))
    torch.testing.assert_close(given[0, 0], torch.tensor([0.8, 0.8, 0.6, 0.15, 0.0005]))
    torch.testing.assert_close(given[1, 0], torch.tensor([0.0008, 0.8 / 3, 0.6, 0.6, 0.5]))


def test_a_companion_yields_to_the_strongest_of_the_classes_it_comes_along_with() -> None:
    """The road (plane 0) to car and bicycle; the sky (3) to nobody, and these to nobody."""
    cams = torch.tensor([[0.8, 0.8, 0.8], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.9, 0.9, 0.9]])[:, None]
    yields = torch.zeros(4, 4, dtype=torch.bool)
    yields[0, 1] = yields[0, 2] = True
    found = yielded(cams, yields)
    torch.testing.assert_close(found[0], torch.tensor([[0.8, 0.4, 0.0]]))
    assert torch.equal(found[1:], cams[1:])


def test_background_score_of_each_pixel() -> None:
    cams = torch.tensor([[[0.0, 0.5], [1.0, 0.2]], [[0.1, 0.3], [0.0, 0.4]]])
    scores = with_background(cams, 3)
    torch.testing.assert_close(scores[0], torch.tensor([[0.9**3, 0.5**3], [0.0, 0.6**3]]))
    assert torch.equal(scores[1:], cams)


def test_without_background_shares_come_of_a_softmax_ten_times_as_sharp() -> None:
    cams = torch.tensor([0.6, 0.4]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    share = 1 / (1 + math.exp(-10 * 0.2))
    for high, label in ((share - 0.005, 1), (share + 0.005, 255)):
        labels = pseudo_masks(
            cams,
            torch.ones(1, 2),
            high=high,
            low=0.1,
            boxes=torch.tensor([[0, 4, 0, 4]]),
            refine=lambda scores: scores,
            background=False,
        )
        assert labels.unique().tolist() == [label]


@pytest.mark.parametrize("background", [True, False])
def test_images_without_a_tag_have_no_foreground(background: bool) -> None:
    given: list[torch.Tensor] = []

    def refine(scores: torch.Tensor) -> torch.Tensor:
        given.append(scores)
        return scores

    labels = pseudo_masks(
        torch.rand(2, 2, 8, 8),
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        high=0.01,
        low=0.001,
        boxes=torch.tensor([[0, 8, 0, 8]] * 2),
        refine=refine,
        ids=torch.tensor([[0, 0], [5, 0]]),
        background=background,
    )
    assert labels[0].unique().tolist() == [0 if background else 255]
    assert 5 in labels[1].unique().tolist()
    assert given[0].shape == (2, 6 if background else 2, 4, 4)
    assert given[0].isfinite().all()
    assert not background or float(given[0][0, 0].min()) == 1.0
    assert background or not given[0][0].any()


def test_what_is_refined_are_shares_beside_two_backgrounds() -> None:
    """Softmax over a constant background and the present tags, at half the size, high background first."""
    cams = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    half = torch.nn.functional.interpolate(cams, size=(4, 6), mode="bilinear", align_corners=False)
    given: list[torch.Tensor] = []

    def refine(scores: torch.Tensor) -> torch.Tensor:
        given.append(scores)
        return scores

    labels = pseudo_masks(
        cams, torch.tensor([[1.0, 0.0, 1.0]]), high=0.7, low=0.25, boxes=torch.tensor([[0, 8, 0, 12]]), refine=refine
    )
    planes = [
        torch.cat([torch.full((1, 1, 4, 6), score), half[:, [0, 2]]], dim=1).softmax(dim=1) for score in (0.7, 0.25)
    ]
    torch.testing.assert_close(given[0][:, [0, 1, 3]], planes[0])
    torch.testing.assert_close(given[0][:, [4, 5, 7]], planes[1])
    assert not given[0][:, [2, 6]].any()
    large = [torch.nn.functional.interpolate(each, size=(8, 12), mode="bilinear") for each in planes]
    sure, lenient = (torch.tensor([0, 1, 3])[each.argmax(dim=1)] for each in large)
    assert torch.equal(labels, torch.where(sure > 0, sure, torch.where(lenient == 0, 0, 255)))


def test_outside_the_box_nothing_is_labelled() -> None:
    cams = torch.tensor([0.9, 0.1]).repeat(3, 3).view(1, 1, 3, 6)
    arguments = {"tags": torch.ones(1, 1), "low": 0.3, "high": 0.7}
    box = torch.tensor([[1, 3, 2, 5]])
    inside = [[255] * 6, [255, 255, 1, 0, 1, 255], [255, 255, 1, 0, 1, 255]]
    assert to_labels(cams, boxes=box, **arguments)[0].tolist() == inside
    assert region_map(cams, boxes=box, **arguments)[0].tolist() == inside
    assert to_labels(cams, **arguments)[0].tolist() == [[1, 0] * 3] * 3


def test_refined_scores_are_enlarged_between_the_centres_of_pixels() -> None:
    refined = torch.rand(1, 2, 4, 6, generator=torch.Generator().manual_seed(4))
    labels = pseudo_masks(
        torch.rand(1, 2, 8, 12),
        torch.ones(1, 2),
        high=0.6,
        low=0.1,
        boxes=torch.tensor([[0, 8, 0, 12]]),
        refine=lambda scores: refined,
        background=False,
    )
    large = torch.nn.functional.interpolate(refined, size=(8, 12), mode="bilinear", align_corners=False)
    share, best = large.max(dim=1)
    assert torch.equal(labels, torch.where(share > 0.6, best + 1, 255))
    assert 255 in labels
    assert (labels < 255).any()
