"""CAMs of a network over scales and mirrors, as PSA, SC-CAM and RCA sum them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.cam.merge import divide_by_maximum, sum_views


def summed_cams(forward: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """Sum rectified maps over scales and mirrors, and divide each by its maximum.

    Args:
        forward: (N, 3, H', W') images to maps (N, K, h, w), not negative.
        images: (B, 3, H, W) normalised.
        scales: of the images' sides; each scale and its mirror is one forward of 2B images.

    Returns:
        CAMs (B, K, H, W) in [0, 1); a map of zeros stays so.

    Source: PSA (CVPR 2018), released code; spec A4.
    """
    views: list[Tensor] = []
    for scale in scales:
        size = [max(1, round(side * scale)) for side in images.shape[-2:]]
        scaled = images if scale == 1 else F.interpolate(images, size, mode="bicubic", antialias=True)
        views += forward(torch.cat([scaled, scaled.flip(-1)])).float().chunk(2)
    total = sum_views(views, images.shape[-2:])
    return divide_by_maximum(total, total.new_ones(total.shape[:2]))
