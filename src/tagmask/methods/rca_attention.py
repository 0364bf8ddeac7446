"""Attention maps gathered while training: the largest an image's class ever had (OAA, ICCV 2019; RCA, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tagmask.ops.distributed import gather_rows

Precision = Literal["uint8", "float16"]
EPSILON = 1e-8


class AttentionStore(nn.Module):
    """One map for each (image, class) pair of a data set, on the training device and in its checkpoint.

    Args:
        tags: (N, C) 0/1 of the data set; a map's key is its image's position there, so order of training is free.
        size: h, w of the maps.
        precision: `uint8` as released, of a 256th; else `float16`.

    Source: spec C3.6.
    """

    rows: Tensor
    maps: Tensor
    written: Tensor

    def __init__(self, tags: Tensor, size: Sequence[int], precision: Precision = "float16") -> None:
        super().__init__()
        present = tags > 0
        pairs = int(present.sum())
        # Absent classes share one row behind all others, so that a batch is written without asking which are present.
        rows = torch.where(present, present.flatten().cumsum(0).view_as(present) - 1, pairs)
        self.register_buffer("rows", rows, persistent=False)
        kind = torch.uint8 if precision == "uint8" else torch.float16
        self.register_buffer("maps", torch.zeros(pairs + 1, *size, dtype=kind))
        self.register_buffer("written", torch.zeros(pairs + 1, dtype=torch.bool))

    @torch.no_grad()
    def update(
        self, indices: Tensor, maps: Tensor, probabilities: Tensor, *, last: bool, min_probability: float = 0.1
    ) -> None:
        """Keep the pixelwise maximum of what is stored and the maps' positive part over its maximum.

        Args:
            indices: (B,) positions of the images in the data set; one that stands twice, at the seam of two epochs or
                for an image that does not open, keeps the larger of its maps.
            maps: (B, C, h, w) raw.
            probabilities: (B, C) of the tags; maps of improbable ones are left out,
            last: except in the last epoch, where a pair that has no map yet gets whatever there is.
        """
        indices, maps, probabilities = gather_rows(indices), gather_rows(maps.float()), gather_rows(probabilities)
        positive = maps.relu()
        fractions = positive / (positive.amax(dim=(2, 3), keepdim=True) + EPSILON)
        fractions = (255 * fractions).round() if self.maps.dtype == torch.uint8 else fractions
        rows = self.rows[indices]
        stored, absent = self.maps[rows], rows == len(self.maps) - 1
        sure = ~absent & (probabilities >= min_probability)
        if last:
            sure |= ~absent & ~self.written[rows]
        fractions = _merged(indices, torch.where(sure[..., None, None], fractions, 0.0))
        self.maps[rows] = stored.maximum(fractions.to(stored))
        self.written[rows] |= _merged(indices, sure.float()) > 0

    def of_image(self, index: int) -> tuple[Tensor, Tensor]:
        """Classes (n,) int64 the image bears and their maps (n, h, w) in [0, 1]; zeros where none was ever written."""
        classes = (self.rows[index] < len(self.maps) - 1).nonzero().flatten()
        maps = self.maps[self.rows[index, classes]].float()
        return classes, maps / 255 if self.maps.dtype == torch.uint8 else maps


def _merged(indices: Tensor, values: Tensor) -> Tensor:
    """Values (B, …) ≥ 0, those of the same index replaced by their maximum."""
    first = (indices[:, None] == indices).float().argmax(dim=1)
    places = first.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return torch.zeros_like(values).scatter_reduce_(0, places, values, "amax")[first]
