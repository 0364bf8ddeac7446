"""Segmentation of several scales of an image at once, as DeepLab-v2 is trained and tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.distributed import global_mean
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.resize import resize

SCALES = (0.5, 0.75)


def multi_scale_logits(
    forward: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float] = SCALES
) -> list[Tensor]:
    """Compute the logits of the images and of each scaled copy, and the largest of all, which is what a test takes.

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
        logits.append(forward(resize(images, [int(side * scale) for side in images.shape[-2:]])))
    size = logits[0].shape[-2:]
    largest = torch.stack([logits[0], *(resize(other, size) for other in logits[1:])]).amax(dim=0)
    return [*logits, largest]


def multi_scale_loss(logits: Sequence[Tensor], labels: Tensor, background: bool = True) -> Tensor:
    """Sum the cross-entropies of `logits` (B, C, h_i, w_i) to labels (B, H, W) shrunk to their sizes; 255 is left out.

    Each term is the mean over its own labelled pixels, 0 where there are none. Without `background`, channel c is label
    c + 1.
    """
    targets = torch.where(labels == IGNORE, -1, labels - int(not background))
    return torch.stack([_cross_entropy(own.float(), shrink_labels(targets, own.shape[-2:])) for own in logits]).sum()


def shrink_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Shrink label maps (B, H, W) to (B, *size): each cell takes the label of the pixel at its centre."""
    # In whole numbers: where a centre falls between two pixels, rounding in float would choose between them by chance.
    rows, columns = (
        (2 * torch.arange(cells, device=labels.device) + 1) * pixels // (2 * cells)
        for cells, pixels in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy over the pixels of all processes whose target is a channel, not -1."""
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return global_mean(total, (targets >= 0).sum())
