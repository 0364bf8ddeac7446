"""Pixel-adaptive refinement (PAR): scores are averaged over neighbours of like colour, and so come to follow edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
SHARPNESS = 0.3  # the smaller, the more a likeness of colour counts
POSITION_WEIGHT = 0.01  # of nearness, beside a weight of 1 for the likeness of colour
# Pixels whose neighbours are weighed at once on a CPU: what is computed on the way then stays in its cache.
CHUNK = 1024


@torch.no_grad()
def pixel_adaptive_refinement(
    images: Tensor, masks: Tensor, *, dilations: Sequence[int] = DILATIONS, iterations: int = ITERATIONS
) -> Tensor:
    """Average scores repeatedly over 8 neighbours at each of several distances, weighted by likeness of colour.

    It holds two tables of 4 bytes for each pixel and neighbour, 384 bytes a pixel, whatever the number of classes.

    Args:
        images: (B, 3, H, W) in 0..255.
        masks: (B, C, h, w) scores; resized to the images' size, corner on corner. Give only the classes that matter.
        dilations: distances of the neighbours, in pixels.
        iterations: how often the average is taken.

    Returns:
        (B, C, H, W) float32 refined scores. A pixel's weights sum to 1.01, so a constant grows by 1% an iteration.

    Source: AFA (CVPR 2022), section 3.3, as ToCo (CVPR 2023) and SeCo (CVPR 2024) use it.
    """
    batch, _, height, width = images.shape
    masks = masks.float()
    if masks.shape[-2:] != images.shape[-2:]:
        masks = F.interpolate(masks, size=(height, width), mode="bilinear", align_corners=True)
    # Who a pixel's neighbours are, and how much each counts: the same in every iteration.
    steps = _steps(tuple(dilations), images.device)
    neighbours = _neighbours(batch, height, width, steps)
    weights = _weights(images.float(), neighbours, steps)
    # The averages, over rows of scores, one for each pixel.
    scores = masks.permute(0, 2, 3, 1).reshape(-1, masks.shape[1]).contiguous()
    for _ in range(iterations):
        scores = F.embedding_bag(neighbours, scores, mode="sum", per_sample_weights=weights)
    return scores.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=4)
def _steps(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """List the (n, 2) int32 steps, rows and columns, from a pixel to its neighbours."""
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    steps = [(dilation * dy, dilation * dx) for dilation in dilations for dy, dx in around]
    return torch.tensor(steps, dtype=torch.int32, device=device)


def _neighbours(batch: int, height: int, width: int, steps: Tensor) -> Tensor:
    """Give the indices (B * H * W, n) of each pixel's neighbours; beyond the rim, the nearest pixel on the rim."""
    rows, columns, entries = (
        torch.arange(count, dtype=torch.int32, device=steps.device) for count in (height, width, batch)
    )
    rows = (rows[:, None] + steps[:, 0]).clamp_(0, height - 1) * width
    columns = (columns[:, None] + steps[:, 1]).clamp_(0, width - 1)
    return (entries.view(-1, 1, 1, 1) * (height * width) + rows[:, None] + columns).flatten(0, 2)


def _weights(images: Tensor, neighbours: Tensor, steps: Tensor) -> Tensor:
    """Weigh each neighbour in a pixel's average, (B * H * W, n): by likeness of colour, and a little by nearness."""
    colours = images.transpose(0, 1).flatten(1).contiguous()
    squared = steps.float().square().sum(dim=1)
    # Nearness is the same everywhere.
    near = (-squared / (squared.sqrt().var() * SHARPNESS**2)).softmax(dim=0) * POSITION_WEIGHT
    # Likeness of colour, relative to the spread of the colours around the pixel.
    weights = torch.empty(neighbours.shape, device=images.device)
    chunk = len(neighbours) if images.is_cuda else CHUNK
    for begin in range(0, len(neighbours), chunk):
        part = slice(begin, begin + chunk)
        around = colours.index_select(1, neighbours[part].flatten()).view(len(colours), -1, len(steps))
        differences = around.sub_(colours[:, part, None])
        total = differences.sum(dim=2)
        squares = differences.square_()
        variance = (squares.sum(dim=2) - total.square() / len(steps)).clamp_min_(0) / (len(steps) - 1)
        scale = (variance.sqrt_() + 1e-8).mul_(SHARPNESS).square_().mul_(-len(colours)).reciprocal_()
        torch.add(squares.mul_(scale[..., None]).sum(dim=0).softmax(dim=1), near, out=weights[part])
    return weights
