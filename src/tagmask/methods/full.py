"""The fully supervised twin: the same network and decoder, trained on true masks.

It is no method for tagged data but the ceiling that one is measured against.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.methods.base import Method, classification_loss, enlarge, segmentation_loss
from tagmask.models.backbone import Backbone
from tagmask.ops.multi_scale import IGNORE, multi_scale_logits, multi_scale_loss
from tagmask.recipes.load import FullConfig


class Full(Method):
    """Decoder on true masks; the classifier learns beside it, so that its CAMs can be compared too."""

    needs_masks: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: FullConfig) -> None:
        super().__init__(backbone, num_classes, background, pooling="max")
        self.config = config

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Segmentation on the truth, and classification on the tags; over several scales, segmentation alone."""
        assert batch.masks is not None
        if self.config.copies:
            logits = multi_scale_logits(super().scores, batch.images, self.config.copies)
            segmentation = multi_scale_loss(logits, self._targets(batch.masks))
            return {"loss": segmentation, "seg": segmentation}
        outputs = self.network(batch.images)
        logits = enlarge(self.network.decoder(outputs.tokens.patches), batch.images.shape[-2:])
        segmentation = segmentation_loss(logits, batch.masks, self.background)
        classification = classification_loss(outputs.logits, batch.tags, batch.known)
        return {"loss": segmentation + classification, "seg": segmentation, "cls": classification}

    def scores(self, images: Tensor) -> Tensor:
        """Decoder logits (B, C, h, w) of normalised images; with copies, the largest over the scales."""
        if self.config.copies:
            return multi_scale_logits(super().scores, images, self.config.copies)[-1]
        return super().scores(images)

    def _targets(self, masks: Tensor) -> Tensor:
        """Channels of label ids: without background, channel c stands for label c + 1."""
        return masks if self.background else torch.where(masks == IGNORE, IGNORE, masks - 1)
