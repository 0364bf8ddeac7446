"""The fully supervised twin: the same network and decoder, trained on true masks.

It is no method for tagged data but the ceiling that one is measured against.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.methods.base import Method, classification_loss, enlarge, segmentation_loss
from tagmask.models.backbone import Backbone
from tagmask.recipe import FullConfig


class Full(Method):
    """Decoder on true masks; the classifier learns beside it, so that its CAMs can be compared too."""

    needs_masks: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, classes: int, background: bool, config: FullConfig) -> None:
        super().__init__(backbone, classes, background, pooling="max")
        self.config = config

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Segmentation on the truth, classification on the tags."""
        assert batch.masks is not None
        outputs = self.network(batch.images)
        logits = enlarge(self.network.decoder(outputs.tokens.patches), batch.images.shape[-2:])
        segmentation = segmentation_loss(logits, batch.masks, self.background)
        classification = classification_loss(outputs.logits, batch.tags, batch.known)
        return {"loss": segmentation + classification, "seg": segmentation, "cls": classification}
