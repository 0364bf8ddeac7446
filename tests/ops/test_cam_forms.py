"""CAMs over scales and flips, against the formulas of their papers written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.cam import divide_by_maximum, multiscale_cams, normalise_cams, sum_views, summed_cams

IMAGES = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
KERNELS = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(2))


class Network:
    """Two maps of 4 classes, which know left from right; notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(images.shape))
        first, second = (F.conv2d(images, kernel, stride=4) for kernel in KERNELS)
        return first * torch.linspace(0.2, 1.8, first.shape[-1]), second.double()


def enlarged(maps: Tensor, size: tuple[int, int] = (16, 24)) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (1.0, 0.5, 1.5), (2.0, 1.0)])
def test_larger_of_image_and_flip_summed_over_scales_and_stretched(scales: tuple[float, ...]) -> None:
    network = Network()
    expected = [torch.zeros(2, 4, 16, 24), torch.zeros(2, 4, 16, 24)]
    for scale in scales:
        images = enlarged(IMAGES, (int(16 * scale), int(24 * scale)))
        for index, (own, turned) in enumerate(zip(network(images), network(images.flip(-1)), strict=True)):
            largest = torch.maximum(enlarged(own.float()), enlarged(turned.float()).flip(-1))
            expected[index] += largest.relu()
    for total, given in zip(expected, multiscale_cams(Network(), IMAGES, scales), strict=True):
        lowest = total.amin(dim=(2, 3), keepdim=True)
        highest = total.amax(dim=(2, 3), keepdim=True)
        assert given.dtype == torch.float32
        torch.testing.assert_close(given, (total - lowest) / (highest - lowest + 1e-5), rtol=1e-5, atol=1e-5)


def test_maps_that_are_there_already_are_not_taken_again() -> None:
    network = Network()
    plain = network(IMAGES)
    network.seen.clear()
    spared = multiscale_cams(network, IMAGES, (1.0, 0.5), plain)
    assert network.seen == [(2, 3, 16, 24), (4, 3, 8, 12)]
    for given, expected in zip(spared, multiscale_cams(network, IMAGES, (1.0, 0.5)), strict=True):
        torch.testing.assert_close(given, expected)
    assert all(torch.equal(own, again) for own, again in zip(plain, network(IMAGES), strict=True))


def test_every_map_is_stretched_by_itself() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[10.0, 50.0]]], [[[0.0, 1e-5]], [[4.0, 4.0]]]])
    expected = torch.tensor([[[[0, 2 / 2.00001]], [[0, 40 / 40.00001]]], [[[0, 0.5]], [[0, 0]]]])
    torch.testing.assert_close(normalise_cams(maps), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_every_second_view_is_turned_back(kind: torch.dtype) -> None:
    maps = [torch.rand(3, 4, 5).to(kind), torch.rand(3, 4, 5).to(kind), torch.rand(3, 2, 2).to(kind)]
    total = sum_views(maps, (8, 10))
    large = [enlarged(own[None], (8, 10))[0] for own in maps]
    torch.testing.assert_close(total, large[0] + large[1].flip(-1) + large[2])
    assert total.dtype == kind


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 1.55), (0.01,)])
def test_psa_s_cams_are_sums_over_scales_and_flips_divided_by_their_maximum(scales: tuple[float, ...]) -> None:
    seen: list[tuple[int, ...]] = []

    def network(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        side = max(images.shape[-2] // 4, 1), max(images.shape[-1] // 4, 1)
        maps = F.adaptive_avg_pool2d(images, side).relu()
        return (maps * torch.linspace(0.2, 1.8, maps.shape[-1])).double()

    expected = torch.zeros(2, 3, 16, 24)
    for scale in scales:
        size = max(1, round(16 * scale)), max(1, round(24 * scale))
        images = F.interpolate(IMAGES, size, mode="bicubic", antialias=True)
        expected += enlarged(network(images).float()) + enlarged(network(images.flip(-1)).float()).flip(-1)
    asked = [(4, *shape[1:]) for shape in seen[::2]]
    seen.clear()
    given = summed_cams(network, IMAGES, scales)
    assert given.dtype == torch.float32
    assert seen == asked
    torch.testing.assert_close(given, divide_by_maximum(expected, torch.ones(2, 3)), rtol=1e-4, atol=1e-5)
