"""Segmentation over several scales of the input at once, as DeepLab-v2 is trained and tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.distributed import global_mean
from tagmask.ops.label_ids import IGNORE

SCALES = (0.5, 0.75)


def multi_scale_logits(
    forward: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float] = SCALES
) -> list[Tensor]:
    """Logits of the images, of each scaled copy, and the largest of all, which is what a test takes.

    Args:
        forward: (B, 3, H', W') images to logits (B, C, h, w).
        images: (B, 3, H, W) normalised.
        scales: of the copies' sides, below 1.

    Returns:
        1 + len(scales) + 1 tensors (B, C, h_i, w_i); the first and the last at the size of the unscaled logits.

    Source: DeepLab-v2 (Chen et al., 2017), section 4.1; spec A7.
    """
    logits = [forward(images)]
    for scale in scales:
        logits.append(forward(_resize(images, [int(side * scale) for side in images.shape[-2:]])))
    size = logits[0].shape[-2:]
    largest = torch.stack([logits[0], *(_resize(other, size) for other in logits[1:])]).amax(dim=0)
    return [*logits, largest]


def multi_scale_loss(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Sum over `logits` (B, C, h_i, w_i) of the cross-entropy to labels (B, H, W) at their size; 255 is left out.

    Each term is the mean over its own labelled pixels, 0 where there are none.
    """
    return torch.stack([_cross_entropy(own.float(), shrink_labels(labels, own.shape[-2:])) for own in logits]).sum()


def shrink_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """The label (B, *size) at the centre of each cell of label maps (B, H, W)."""
    # In whole numbers: where a centre falls between two pixels, interpolation in float takes either.
    rows, columns = (
        (2 * torch.arange(cells, device=labels.device) + 1) * pixels // (2 * cells)
        for cells, pixels in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return global_mean(total, (labels != IGNORE).sum())


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
