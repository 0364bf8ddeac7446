"""RCA's memory (CVPR 2022): regions of all images of a class, and the prototypes they cluster to."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.ops.distributed import from_first, gather_rows
from tagmask.ops.kmeans import kmeans

Start = Literal["noise", "first_write"]
ROUNDING = 1e-6


def region_masks(coarse: Tensor) -> Tensor:
    """Where each class's fraction of the classes' softmax is above its own mean over the image.

    Args:
        coarse: (B, C, h, w) raw maps.

    Returns:
        (B, C, h, w) bool; empty for a class whose fraction is the same everywhere.

    Source: RCA (CVPR 2022), section 3.2; spec C3.4.
    """
    fractions = coarse.float().softmax(dim=1)
    # The rounded mean of equal values may lie below them, and softmax itself rounds equal columns differently where
    # they fill no whole vector of the processor: such a map is empty by definition.
    varied = fractions.amax(dim=(2, 3), keepdim=True) > (1 + ROUNDING) * fractions.amin(dim=(2, 3), keepdim=True)
    return (fractions > fractions.mean(dim=(2, 3), keepdim=True)) & varied


def region_embeddings(features: Tensor, masks: Tensor) -> Tensor:
    """Mean feature (B, C, D) of features (B, D, h, w) over masks (B, C, h, w); zeros for an empty mask."""
    weights = masks.flatten(2).float()
    with torch.autocast(features.device.type, enabled=False):
        sums = weights @ features.float().flatten(2).transpose(1, 2)
    return sums / weights.sum(dim=2, keepdim=True).clamp(min=1)


class RegionMemory(nn.Module):
    """A ring of region embeddings a class, and their k-means centres. All of it is in the checkpoint.

    Args:
        classes, width: C, D.
        length: M, entries a class.
        prototypes: P, centres a class.
        momentum: of an entry when it is written again.
        start: what an entry is before it is written. `noise` of norm sqrt(D), as released, of which 0.99^visits remains
            (quirk `noise_memory`); or `first_write`: an entry becomes what is first written to it, and is left out of
            everything until then.

    Source: RCA (CVPR 2022), section 3.2; spec C3.5, C6.
    """

    queue: Tensor
    filled: Tensor
    pointer: Tensor
    prototypes: Tensor
    ready: Tensor

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        length: int = 500,
        prototypes: int = 10,
        momentum: float = 0.99,
        start: Start = "first_write",
    ) -> None:
        super().__init__()
        self.momentum = momentum
        noise, fill = start == "noise", torch.randn if start == "noise" else torch.zeros
        self.register_buffer("queue", fill(num_classes, length, width))
        self.register_buffer("filled", torch.full((num_classes, length), noise))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("prototypes", fill(num_classes, prototypes, width))
        self.register_buffer("ready", torch.full((num_classes,), noise))

    @torch.no_grad()
    def update(
        self,
        features: Tensor,
        masks: Tensor,
        tags: Tensor,
        probabilities: Tensor,
        *,
        min_probability: float = 0.7,
        chained: bool = False,
    ) -> None:
        """Write the regions of sure tags, images in order, each to its class's next entry.

        Args:
            features: (B, D, h, w); B (of all processes) is at most M.
            masks: (B, C, h, w) of `region_masks`.
            tags: (B, C) 0/1.
            probabilities: (B, C) of the tags, as the network sees them.
            min_probability: a tag is sure above it.
            chained: of several sure classes of an image, pool each over the intersection of its mask with those before
                it, but divide by its own area, as the release does (quirk `chained_masks`).
        """
        area = masks.flatten(2).sum(dim=2)
        sure = (tags > 0) & (probabilities > min_probability)
        if chained:
            chain = (masks | ~sure[..., None, None]).to(torch.uint8).cumprod(dim=1) > 0
            pooled = region_embeddings(features, chain)
            pooled = pooled * (chain.flatten(2).sum(dim=2) / area.clamp(min=1))[..., None]
        else:
            pooled = region_embeddings(features, masks)
        self._write(gather_rows(pooled), gather_rows((sure & (area > 0)).to(torch.uint8)) > 0)

    def _write(self, embeddings: Tensor, accepted: Tensor) -> None:
        """Write embeddings (B, C, D) where accepted (B, C)."""
        length = self.queue.shape[1]
        if len(embeddings) > length:
            raise ValueError(f"a batch of {len(embeddings)} images in a memory of {length} entries; make it longer")
        slots = (self.pointer + accepted.cumsum(dim=0) - 1) % length
        places = torch.arange(len(self.queue), device=slots.device).expand_as(slots), slots
        old = self.queue[places]
        rate = torch.where(self.filled[places], 1 - self.momentum, 1.0)[..., None]
        # Adding the change, zero where nothing is accepted, needs no list of what is: no wait for the device.
        change = torch.where(accepted[..., None], rate * (embeddings - old), 0.0)
        self.queue.index_put_(places, change, accumulate=True)
        writes = torch.zeros_like(self.filled, dtype=torch.int64)
        self.filled |= writes.index_put_(places, accepted.long(), accumulate=True) > 0
        self.pointer.add_(accepted.sum(dim=0)).remainder_(length)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Entries (C, M, D) of unit length, and whether each counts (C, M): its class must hold P at least."""
        enough = self.filled.sum(dim=1, keepdim=True) >= self.prototypes.shape[1]
        return F.normalize(self.queue, dim=2), self.filled & enough

    def refresh_prototypes(self, seed: int) -> None:
        """Cluster every class with enough entries; once an epoch."""
        # In one process for all: k-means on several cores rounds otherwise from one run to the next.
        for index, centres in from_first(lambda: self._centres(seed)).items():
            self.prototypes[index] = torch.from_numpy(centres).to(self.prototypes)
            self.ready[index] = True

    def _centres(self, seed: int) -> dict[int, np.ndarray]:
        """Centres (P, D) of the classes that have enough entries."""
        filled, count = self.filled.cpu().numpy(), self.prototypes.shape[1]
        entries = {index: each[filled[index]] for index, each in enumerate(self.queue.cpu().numpy())}
        return {index: kmeans(own, count, seed=seed)[1] for index, own in entries.items() if len(own) >= count}
