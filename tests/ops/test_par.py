from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.ops import par
from tagmask.ops.par import pixel_adaptive_refinement

DILATIONS = (1, 2, 4)


def random_batch(seed: int, batch: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, height, width, generator=generator) * 255
    return images, torch.rand(batch, classes, height, width, generator=generator).softmax(dim=1)


def gather(maps: Tensor) -> Tensor:
    """(B, C, n, H, W) neighbours, by padding and unfolding."""
    found = []
    for dilation in DILATIONS:
        padded = F.pad(maps, (dilation,) * 4, mode="replicate")
        patches = F.unfold(padded, 3, dilation=dilation).view(*maps.shape[:2], 9, *maps.shape[2:])
        found.append(torch.cat([patches[:, :, :4], patches[:, :, 5:]], dim=2))
    return torch.cat(found, dim=2)


def refine_plainly(images: Tensor, masks: Tensor, iterations: int) -> Tensor:
    around = gather(images)
    spread = around.std(dim=2, keepdim=True) + 1e-8
    colour = -((around - images[:, :, None]).abs() / spread / 0.3).square().mean(dim=1)
    root = 2.0**0.5
    distances = torch.tensor([d * step for d in DILATIONS for step in (root, 1, root, 1, 1, root, 1, root)])
    position = -(distances / distances.std() / 0.3).square()
    weights = colour.softmax(dim=1) + 0.01 * position.softmax(dim=0)[:, None, None]
    for _ in range(iterations):
        masks = (gather(masks) * weights[:, None]).sum(dim=2)
    return masks


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(1, 9), height=st.integers(1, 14), iterations=st.integers(0, 3))
def test_equals_the_plain_form(seed: int, classes: int, height: int, iterations: int) -> None:
    images, masks = random_batch(seed, 2, classes, height, 11)
    refined = pixel_adaptive_refinement(images, masks, dilations=DILATIONS, iterations=iterations)
    torch.testing.assert_close(refined, refine_plainly(images, masks, iterations), rtol=1e-4, atol=1e-6)


def test_constants_grow_by_a_hundredth_each_time() -> None:
    images, _ = random_batch(0, 1, 1, 16, 18)
    refined = pixel_adaptive_refinement(images, torch.full((1, 2, 16, 18), 0.5))
    torch.testing.assert_close(refined, torch.full((1, 2, 16, 18), 0.5 * 1.01**10), rtol=1e-4, atol=0)


def test_sums_over_classes_stay_alike() -> None:
    images, masks = random_batch(1, 2, 4, 12, 13)
    total = pixel_adaptive_refinement(images, masks).sum(dim=1)
    torch.testing.assert_close(total, torch.full_like(total, 1.01**10), rtol=1e-4, atol=0)


def test_images_of_a_batch_do_not_mix() -> None:
    images, masks = random_batch(2, 3, 2, 9, 10)
    together = pixel_adaptive_refinement(images, masks)
    apart = torch.cat([pixel_adaptive_refinement(images[i : i + 1], masks[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = random_batch(3, 2, 2, 9, 10)
    whole = pixel_adaptive_refinement(images, masks)
    monkeypatch.setattr(par, "CHUNK", 7)
    torch.testing.assert_close(pixel_adaptive_refinement(images, masks), whole)


def test_scores_stay_within_the_colour_they_began_in() -> None:
    images = torch.zeros(1, 3, 24, 24)
    images[..., 12:] = 200.0
    ground_truth = (images[:, :1] > 0).float()
    blurred = F.interpolate(F.avg_pool2d(ground_truth, 6), size=(24, 24), mode="bilinear")
    refined = pixel_adaptive_refinement(images, torch.cat([1 - blurred, blurred], dim=1))
    assert torch.equal(refined.argmax(dim=1, keepdim=True).float(), ground_truth)
    assert float((refined[:, 1:] / 1.01**10 - ground_truth).abs().mean()) < float((blurred - ground_truth).abs().mean())


def test_smaller_masks_are_enlarged_corner_on_corner() -> None:
    images, _ = random_batch(4, 1, 1, 12, 14)
    masks = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(4))
    enlarged = F.interpolate(masks, size=(12, 14), mode="bilinear", align_corners=True)
    assert torch.equal(pixel_adaptive_refinement(images, masks), pixel_adaptive_refinement(images, enlarged))
    assert torch.equal(pixel_adaptive_refinement(images, masks, iterations=0), enlarged)


def test_flat_images_are_averaged_evenly() -> None:
    masks = torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(5))
    refined = pixel_adaptive_refinement(torch.full((1, 3, 10, 10), 77.0), masks, dilations=(1,), iterations=1)
    inner = masks[0, 0]
    mean = (F.avg_pool2d(masks, 3, stride=1)[0, 0] * 9 - inner[1:-1, 1:-1]) / 8
    torch.testing.assert_close(refined[0, 0, 1:-1, 1:-1], mean, rtol=0.02, atol=0.02)


def test_distances_and_repeats_are_those_of_the_papers() -> None:
    images, masks = random_batch(6, 1, 2, 60, 58)
    explicit = pixel_adaptive_refinement(images, masks, dilations=(1, 2, 4, 8, 12, 24), iterations=10)
    assert torch.equal(pixel_adaptive_refinement(images, masks), explicit)


def test_equals_the_plain_form_where_height_and_channels_agree() -> None:
    """Three rows are as many as there are colours; masks of two rows have to grow all the same."""
    images, _ = random_batch(7, 1, 1, 3, 5)
    _, masks = random_batch(7, 1, 2, 3, 3)
    enlarged = F.interpolate(masks, size=(3, 5), mode="bilinear", align_corners=True)
    assert torch.equal(pixel_adaptive_refinement(images, masks, iterations=0), enlarged)


def test_half_precision_is_refined_in_whole() -> None:
    images, masks = random_batch(8, 1, 2, 9, 10)
    refined = pixel_adaptive_refinement(images.to(torch.uint8), masks.bfloat16())
    assert refined.dtype == torch.float32
    expected = pixel_adaptive_refinement(images.to(torch.uint8).float(), masks.bfloat16().float())
    assert torch.equal(refined, expected)
    assert refined.is_contiguous()


def test_a_pixel_and_a_neighbour_take_eight_bytes() -> None:
    """Two tables of four, as the memory that is promised says."""
    steps = par._steps((1, 2), torch.device("cpu"))
    neighbours = par._neighbours(2, 5, 6, steps)
    weights = par._weights(torch.rand(2, 3, 5, 6), neighbours, steps)
    assert neighbours.shape == weights.shape == (60, 16)
    assert neighbours.dtype == torch.int32
    assert weights.dtype == torch.float32
