"""Plain CAM (CVPR 2016) as a single-stage method: classifier, class activation maps, decoder on their pseudo masks.

It is SeCo without what makes it SeCo, so the two differ in nothing but the paper's idea.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.methods.base import Method, classification_loss, enlarge, refined_pseudo_masks, segmentation_loss
from tagmask.models.backbone import Backbone, Tokens
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.labels import present_tags, take_channels
from tagmask.recipes.load import CamConfig


class Cam(Method):
    """Tags to CAMs, CAMs to pseudo masks, pseudo masks to a decoder, in one run."""

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: CamConfig) -> None:
        super().__init__(backbone, num_classes, background, config.pooling)
        self.config = config

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Classification, and from `decoder_from` on segmentation of the pseudo mask."""
        config = self.config
        outputs = self.network(batch.images)
        losses = {"cls": classification_loss(outputs.logits, batch.tags, batch.known)}
        weights = {"cls": 1.0}
        if step >= config.decoder_from:
            channels, ids = present_tags(batch.tags, batch.most_tags)
            (cams,) = self._cams_of_present(batch, outputs.tokens, channels)
            masks = refined_pseudo_masks(self.network.backbone, batch, cams, ids, config.pseudo_mask, self.background)
            logits = enlarge(self.network.decoder(outputs.tokens.patches), batch.images.shape[-2:])
            losses["seg"], weights["seg"] = segmentation_loss(logits, masks, self.background), config.decoder_weight
        losses["loss"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    @torch.no_grad()
    def _cams_of_present(self, batch: Batch, tokens: Tokens, channels: Tensor) -> tuple[Tensor, ...]:
        def forward(images: Tensor) -> tuple[Tensor, ...]:
            maps = self.network.classifier(self.network.backbone(images).patches)
            return (take_channels(maps, channels.repeat(len(images) // len(channels), 1)),)

        plain = (take_channels(self.network.classifier(tokens.patches.detach()), channels),)
        return multiscale_cams(forward, batch.images, self.config.scales, plain)
