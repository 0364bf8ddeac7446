"""A background score for CAMs that have none."""

from __future__ import annotations

import torch
from torch import Tensor


def with_background(cams: Tensor, power: float) -> Tensor:
    """Put the background score `(1 - highest CAM) ** power` before the CAMs of one image.

    Args:
        cams: (n, H, W) in [0, 1] of the classes the image bears; n may be 0.
        power: the papers' alpha; the larger, the weaker the background.

    Returns:
        (n + 1, H, W) scores in [0, 1], plane 0 background; they do not sum to 1.

    Source: PSA (CVPR 2018), section 3.1.
    """
    if not len(cams):
        return cams.new_ones(1, *cams.shape[1:])
    return torch.cat([(1 - cams.amax(dim=0, keepdim=True)) ** power, cams])
