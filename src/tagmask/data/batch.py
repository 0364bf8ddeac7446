"""The batch of tensors that a training step or a prediction receives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """The tensors of B images; a tuple, because mixed precision and several devices rebuild what a step receives.

    Attributes:
        images: (B, 3, H, W) normalised with the backbone's mean and std.
        tags: (B, K) float, 1 where the image bears the class.
        known: (B, K) float, 0 where nobody knows the tag; such entries are left out of the classification loss.
        boxes: (B, 4) int64 top, bottom, left, right of real (unpadded) pixels in `images`.
        indices: (B,) int64 position of each image in its data set.
        most_tags: largest number of tags of one image, at least 1; known on the host, so that a step can drop the
            channels of absent classes without asking the device.
        masks: (B, H, W) int64 label maps in the geometry of `images`; only where a method learns from masks.
        weak: (B, 3, H, W) a second, weakly augmented view of the whole image, normalised; only for contrast.
        strong: (B, 3, H, W) `images` with strong colour augmentation, possibly flipped, normalised; only for contrast.
        strong_flipped: (B,) bool, whether `strong` is flipped against `images`.
        bad: what is wrong with images that another one stands in for.
    """

    images: Tensor
    tags: Tensor
    known: Tensor
    boxes: Tensor
    indices: Tensor
    most_tags: int
    masks: Tensor | None = None
    weak: Tensor | None = None
    strong: Tensor | None = None
    strong_flipped: Tensor | None = None
    bad: tuple[str, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same batch with every tensor on `device`."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

    def normalise(self, mean: Tensor, std: Tensor) -> Batch:
        """Return the batch, its uint8 views in 0..255 scaled to 0..1 and normalised with mean and std (1, 3, 1, 1)."""
        views = {
            name: (view.float() / 255 - mean) / std
            for name in ("images", "weak", "strong")
            if (view := getattr(self, name)) is not None
        }
        return self._replace(**views)
