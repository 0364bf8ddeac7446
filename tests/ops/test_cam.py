"""Summing CAMs over inputs and scaling them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.cam import divide_by_maximum, merge_subclasses, sum_views
from tagmask.ops.labels import to_labels


def test_division_by_the_maximum() -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[5.0, 1.0], [1.0, 1.0]]])
    cams = divide_by_maximum(maps, torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(cams[0], maps[0] / 4.00001)
    assert cams.max() < 1
    assert not cams[1:].any()


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), factor=st.floats(0.5, 100))
def test_a_common_factor_hardly_matters(seed: int, factor: float) -> None:
    maps = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed)) + 0.1
    tags = torch.ones(2, 3)
    torch.testing.assert_close(divide_by_maximum(maps * factor, tags), divide_by_maximum(maps, tags), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), batched=st.booleans())
def test_swapping_image_and_flip_flips_the_sum(seed: int, batched: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3) if batched else (3,)
    pairs = [torch.rand(2, *shape, side, side + 1, generator=generator) for side in (4, 2, 6)]
    views = [view for pair in pairs for view in pair]
    swapped = [view for pair in pairs for view in pair.flip(0)]
    total = sum_views(views, (9, 11))
    assert total.shape == (*shape, 9, 11)
    torch.testing.assert_close(sum_views(swapped, (9, 11)), total.flip(-1))


def test_at_the_background_score_a_pixel_is_background() -> None:
    cams = torch.tensor([0.14, 0.15, 0.16]).view(1, 1, 1, 3)
    assert to_labels(cams, torch.ones(1, 1), low=0.15, high=0.15).flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize("subclasses", [1, 3])
def test_sub_categories_share_the_maximum_of_their_class(subclasses: int) -> None:
    maps = torch.rand(4 * subclasses, 6, 5)
    tags = torch.tensor([1.0, 0.0, 1.0, 1.0])
    merged = divide_by_maximum(merge_subclasses(maps, subclasses), tags)
    blocks = maps.view(4, subclasses, 6, 5)
    expected = (blocks / (blocks.amax(dim=(1, 2, 3), keepdim=True) + 1e-5)).amax(dim=1) * tags[:, None, None]
    torch.testing.assert_close(merged, expected)
    assert not merged[1].any()
    assert (merged.amax(dim=(1, 2)) > 0.999).tolist() == [True, False, True, True]
