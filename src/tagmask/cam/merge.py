"""CAMs of several inputs of one image, summed and scaled by their maximum (PSA, SC-CAM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5


def sum_views(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Sum the maps of an image's scaled and mirrored inputs at the image's own size.

    Args:
        maps: non-negative (..., K, h_i, w_i), of the inputs in the order scale, mirror, next scale, its mirror, …;
            the maps of mirrored inputs are mirrored still.
        size: H, W.

    Returns:
        (..., K, H, W).

    Source: PSA (CVPR 2018), released code; spec A4.
    """
    total = torch.zeros((), dtype=maps[0].dtype, device=maps[0].device)
    for index, own in enumerate(maps):
        flat = own.reshape(-1, 1, *own.shape[-2:])
        resized = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
        resized = resized.view(*own.shape[:-2], *size)
        total = total + (resized.flip(-1) if index % 2 else resized)
    return total


def divide_by_maximum(maps: Tensor, tags: Tensor) -> Tensor:
    """Divide every map by its spatial maximum + 1e-5, and clear those of absent classes.

    Args:
        maps: (..., K, H, W), not negative.
        tags: (..., K) 1 where the image bears the class.

    Returns:
        CAMs (..., K, H, W) in [0, 1); a map of zeros stays so.

    Source: PSA (CVPR 2018), section 3.1; spec A4.
    """
    return maps * tags[..., None, None] / (maps.amax(dim=(-2, -1), keepdim=True) + EPSILON)


def merge_subclasses(maps: Tensor, subclasses: int) -> Tensor:
    """The pixelwise maximum over the sub-categories of each class.

    Args:
        maps: (..., K * S, H, W), not negative, column `class * S + sub-category`.
        subclasses: S.

    Returns:
        (..., K, H, W). Dividing these by their maximum is the same as dividing all sub-categories of a class by their
        common maximum before: the division keeps their order.

    Source: SC-CAM (CVPR 2020), released code; spec B4.
    """
    return maps.unflatten(-3, (-1, subclasses)).amax(dim=-3)
