"""Class activation maps of images over scales and flips, summed and brought to [0, 1].

There are two schemes. SeCo's (`multiscale_cams`) takes the larger of a map and its flip's, sums over scales, and
stretches each map from its minimum to its maximum. PSA's (`summed_cams`), which SC-CAM and RCA share, sums all maps and
divides each by its maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.resize import resize

Maps = tuple[Tensor, ...]
EPSILON = 1e-5


def multiscale_cams(
    forward: Callable[[Tensor], Maps], images: Tensor, scales: Sequence[float], plain: Maps | None = None
) -> Maps:
    """Sum a network's maps over scales, of each scale the larger of image and flip, and normalise the sums.

    Args:
        forward: (N, 3, H', W') images to one or more unnormalised maps (N, K, h, w), such as of two classifiers.
        images: (B, 3, H, W) normalised images.
        scales: of the images' sides; each scale and its flip is one forward of 2B images.
        plain: `forward(images)`, where the caller has it already; this spares one forward of B images.

    Returns:
        For each map of `forward`, CAMs (B, K, H, W) in [0, 1].

    Source: SeCo (CVPR 2024), section 3.1; the scheme is ToCo's.
    """
    size, count = images.shape[-2:], len(images)
    totals: list[Tensor] = []
    for scale in scales:
        if scale == 1 and plain is not None:
            flipped = forward(images.flip(-1))
            both = tuple(torch.cat([own, other]) for own, other in zip(plain, flipped, strict=True))
        else:
            scaled = images if scale == 1 else resize(images, [int(side * scale) for side in size])
            both = forward(torch.cat([scaled, scaled.flip(-1)]))
        for index, maps in enumerate(both):
            # In float32 under autocast too: in bf16, classes would tie where one of them is stronger.
            resized = resize(maps.float(), size)
            largest = torch.maximum(resized[:count], resized[count:].flip(-1)).relu_()
            if len(totals) <= index:
                totals.append(largest)
            else:
                totals[index] += largest
    return tuple(normalise_cams(total) for total in totals)


def normalise_cams(cams: Tensor) -> Tensor:
    """Subtract from each map its spatial minimum, and divide it by what is then its maximum + 1e-5.

    Args:
        cams: (B, K, H, W) non-negative.

    Returns:
        (B, K, H, W) in [0, 1); a constant map becomes 0.
    """
    shifted = cams - cams.amin(dim=(-2, -1), keepdim=True)
    return shifted / (shifted.amax(dim=(-2, -1), keepdim=True) + EPSILON)


def summed_cams(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Sequence[float],
    *,
    merge: Callable[[Tensor], Tensor] = lambda maps: maps,
) -> Tensor:
    """Sum rectified maps over scales and flips, and divide each by its maximum.

    Args:
        forward: (N, 3, H', W') images to maps (N, K, h, w), not negative.
        images: (B, 3, H, W) normalised.
        scales: of the images' sides; each scale and its flip is one forward of 2B images.
        merge: from the sums to those of the K classes, where `forward` gives other maps.

    Returns:
        CAMs (B, K, H, W) in [0, 1); a map of zeros stays so.

    Source: PSA (CVPR 2018), released code; spec A4.
    """
    views: list[Tensor] = []
    for scale in scales:
        size = [max(1, round(side * scale)) for side in images.shape[-2:]]
        # Bicubic with antialiasing, as the release's Pillow does.
        scaled = images if scale == 1 else F.interpolate(images, size, mode="bicubic", antialias=True)
        views += forward(torch.cat([scaled, scaled.flip(-1)])).float().chunk(2)
    total = merge(sum_views(views, images.shape[-2:]))
    return divide_by_maximum(total, total.new_ones(total.shape[:2]))


def sum_views(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Sum the maps of an image's scaled and flipped inputs at the image's own size.

    Args:
        maps: non-negative (..., K, h_i, w_i), of the inputs in the order scale, its flip, next scale, its flip, …; the
            maps of flipped inputs are still flipped.
        size: H, W.

    Returns:
        (..., K, H, W).

    Source: PSA (CVPR 2018), released code; spec A4.
    """
    total = torch.zeros((), dtype=maps[0].dtype, device=maps[0].device)
    for index, own in enumerate(maps):
        flat = own.reshape(-1, 1, *own.shape[-2:])
        resized = resize(flat, size).view(*own.shape[:-2], *size)
        total = total + (resized.flip(-1) if index % 2 else resized)
    return total


def divide_by_maximum(maps: Tensor, tags: Tensor) -> Tensor:
    """Divide each map by its spatial maximum + 1e-5, and set those of absent classes to 0.

    Args:
        maps: (..., K, H, W), not negative.
        tags: (..., K) 1 where the image bears the class.

    Returns:
        CAMs (..., K, H, W) in [0, 1); a map of zeros stays so.

    Source: PSA (CVPR 2018), section 3.1; spec A4.
    """
    return maps * tags[..., None, None] / (maps.amax(dim=(-2, -1), keepdim=True) + EPSILON)


def merge_subclasses(maps: Tensor, subclasses: int) -> Tensor:
    """Take the pixelwise maximum over the sub-categories of each class.

    Args:
        maps: (..., K * S, H, W), not negative, column `class * S + sub-category`.
        subclasses: S.

    Returns:
        (..., K, H, W). Dividing these by their maximum is the same as dividing all sub-categories of a class by their
        common maximum before: the division keeps their order.

    Source: SC-CAM (CVPR 2020), released code; spec B4.
    """
    return maps.unflatten(-3, (-1, subclasses)).amax(dim=-3)
