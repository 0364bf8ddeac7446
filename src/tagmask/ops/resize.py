"""The one way in which maps change their size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) bilinearly to `size` (H, W), pixel areas on pixel areas (`align_corners=False`)."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
