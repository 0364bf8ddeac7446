"""Class activation maps over scales and mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = tuple[Tensor, ...]


def multiscale_cams(
    forward: Callable[[Tensor], Maps], images: Tensor, scales: Sequence[float], plain: Maps | None = None
) -> Maps:
    """Sum a network's maps over scales, keep the larger of image and mirror, and normalise.

    Args:
        forward: (N, 3, H', W') images to one or more unnormalised maps (N, K, h, w), such as of two classifiers.
        images: (B, 3, H, W) normalised images.
        scales: of the images' sides; each scale and its mirror is one forward of 2B images.
        plain: `forward(images)`, where the caller has it already; spares one forward of B images.

    Returns:
        for each map of `forward`, CAMs (B, K, H, W) in [0, 1].

    Source: SeCo (CVPR 2024), section 3.1; the scheme is ToCo's.
    """
    size, count = images.shape[-2:], len(images)
    totals: list[Tensor] = []
    for scale in scales:
        if scale == 1 and plain is not None:
            mirrored = forward(images.flip(-1))
            both = tuple(torch.cat([own, other]) for own, other in zip(plain, mirrored, strict=True))
        else:
            scaled = images if scale == 1 else _resize(images, [int(side * scale) for side in size])
            both = forward(torch.cat([scaled, scaled.flip(-1)]))
        for index, maps in enumerate(both):
            resized = _resize(
                maps.float(), list(size)
            )  # under autocast too: ties between classes are no mistake to make
            largest = torch.maximum(resized[:count], resized[count:].flip(-1)).relu_()
            if len(totals) <= index:
                totals.append(largest)
            else:
                totals[index] += largest
    return tuple(normalise_cams(total) for total in totals)


def normalise_cams(cams: Tensor) -> Tensor:
    """Per map, subtract the spatial minimum and divide by what is then the maximum + 1e-5.

    Args:
        cams: (B, K, H, W) non-negative.

    Returns:
        (B, K, H, W) in [0, 1); a constant map becomes 0.
    """
    shifted = cams - cams.amin(dim=(-2, -1), keepdim=True)
    return shifted / (shifted.amax(dim=(-2, -1), keepdim=True) + 1e-5)


def _resize(maps: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


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
