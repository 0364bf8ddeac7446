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
