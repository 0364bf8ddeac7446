"""PAR, the pixel-adaptive refinement: masks smoothed along colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
SHARPNESS = 0.3
POSITION_WEIGHT = 0.01


def pixel_adaptive_refinement(
    images: Tensor, masks: Tensor, dilations: Sequence[int] = DILATIONS, iterations: int = 10
) -> Tensor:
    """Replace each pixel's scores by a mean over its neighbours, those of like colour weighing most; again and again.

    Args:
        images: (B, 3, H, W) RGB in 0..255.
        masks: (B, C, h, w) scores; resized to the image (bilinear, corners aligned) where the sizes differ.
        dilations: distances in pixels at which the eight neighbours are taken.
        iterations: how often.

    Returns:
        (B, C, H, W) refined scores. A pixel's weights sum to 1 + POSITION_WEIGHT, so scores grow by as much each time.

    Source: AFA (CVPR 2022), section 3.3; SeCo (CVPR 2024) uses it unchanged.
    """
    size = images.shape[-2:]
    if masks.shape[-2:] != size:
        masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=True)
    weights = _weights(images, dilations).unbind(dim=1)
    margin = max(dilations)
    for _ in range(iterations):
        padded = F.pad(masks, (margin,) * 4, mode="replicate")
        masks = torch.zeros_like(masks)
        for weight, shifted in zip(weights, _neighbours(padded, size, dilations), strict=True):
            masks.addcmul_(weight[:, None], shifted)
    return masks


def _weights(images: Tensor, dilations: Sequence[int]) -> Tensor:
    """(B, 8 * dilations, H, W): softmax of colour differences plus a little softmax of distances."""
    padded = F.pad(images, (max(dilations),) * 4, mode="replicate")
    neighbours = torch.stack(list(_neighbours(padded, images.shape[-2:], dilations)), dim=2)
    spread = neighbours.std(dim=2, keepdim=True) + 1e-8
    colour = -((neighbours - images[:, :, None]) / spread / SHARPNESS).square().mean(dim=1)
    steps = [(abs(dy) + abs(dx)) ** 0.5 * distance for distance in dilations for dy, dx in _EIGHT]
    distances = torch.tensor(steps, device=images.device)
    position = -(distances / (distances.std() + 1e-8) / SHARPNESS).square()
    return colour.softmax(dim=1) + POSITION_WEIGHT * position.softmax(dim=0)[:, None, None]


_EIGHT = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def _neighbours(padded: Tensor, size: Sequence[int], dilations: Sequence[int]):  # noqa: ANN202
    """Views of the padded maps, shifted to each neighbour in turn."""
    margin = max(dilations)
    for distance in dilations:
        for dy, dx in _EIGHT:
            top, left = margin + dy * distance, margin + dx * distance
            yield padded[..., top : top + size[0], left : left + size[1]]
