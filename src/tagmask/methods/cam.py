"""Plain CAM (CVPR 2016) as a single-stage method: classifier, class activation maps, decoder on their pseudo masks.

It is SeCo without what makes it SeCo, so the two differ in nothing but the paper's idea.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.methods.base import TagMethod, classification_loss, enlarge, refined_pseudo_masks, segmentation_loss
from tagmask.methods.registry import register
from tagmask.models.backbone import Backbone, Tokens
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.labels import present_tags, take_channels
from tagmask.recipes.sections import MethodSection, PseudoMaskConfig, Scales


class CamConfig(MethodSection):
    """Plain CAM: a classifier, its class activation maps, and a decoder trained on their pseudo masks."""

    name: Literal["cam"] = "cam"
    pooling: Literal["max", "mean"] = Field(
        default="mean", description="How the token map is pooled before the classifier."
    )
    scales: Scales = Field(
        default=(1.0, 0.5, 0.75, 1.5), description="The scales of the CAMs that the decoder is trained on."
    )
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    decoder_from: int = Field(default=2000, ge=0, description="The step from which the decoder learns.")
    decoder_weight: float = Field(default=0.12, ge=0, description="The weight of the decoder's loss.")


@register(CamConfig)
class Cam(TagMethod):
    """Tags to CAMs, CAMs to pseudo masks, pseudo masks to a decoder, in one training."""

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: CamConfig) -> None:
        super().__init__(backbone, num_classes, background, config.pooling)
        self.config = config

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the classification loss, and from `decoder_from` on the segmentation of the pseudo mask."""
        config = self.config
        outputs = self.network(batch.images)
        losses = {"cls": classification_loss(outputs.logits, batch.tags, batch.known)}
        weights = {"cls": 1.0}
        if step >= config.decoder_from:
            channels, label_ids = present_tags(batch.tags, batch.most_tags)
            (cams,) = self._cams_of_present(batch, outputs.tokens, channels)
            masks = refined_pseudo_masks(
                self.network.backbone, batch, cams, label_ids, config.pseudo_mask, self.background
            )
            logits = enlarge(self.network.decode(outputs.tokens), batch.images.shape[-2:])
            losses["seg"], weights["seg"] = segmentation_loss(logits, masks, self.background), config.decoder_weight
        losses["loss"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    @torch.no_grad()
    def _cams_of_present(self, batch: Batch, tokens: Tokens, channels: Tensor) -> tuple[Tensor, ...]:
        """CAMs of the classes that each image bears; the forward of the training step serves as scale 1."""

        def forward(images: Tensor) -> tuple[Tensor, ...]:
            maps = self.network.classifier(self.network.backbone(images).patches)
            return (take_channels(maps, channels.repeat(len(images) // len(channels), 1)),)

        plain = (take_channels(self.network.classifier(tokens.patches.detach()), channels),)
        return multiscale_cams(forward, batch.images, self.config.scales, plain)
