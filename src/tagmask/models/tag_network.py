"""Backbone, tag classifier and decoder: the network of every single-stage method."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from tagmask.models.backbone import Backbone, Tokens
from tagmask.models.decoders import LargeFieldDecoder, SkipDecoder


class Outputs(NamedTuple):
    """The tokens of B images and how sure the classifiers are of their tags.

    Attributes:
        tokens: of the backbone.
        logits, aux_logits: (B, K) of the classifiers on the last and the earlier tokens.
    """

    tokens: Tokens
    logits: Tensor
    aux_logits: Tensor


class TagNetwork(nn.Module):
    """A backbone with two tag classifiers without bias, and a decoder.

    A classifier is a 1x1 convolution: on pooled tokens it gives logits, on all tokens class activation maps.

    Args:
        backbone: gives the tokens.
        num_classes: K.
        outputs: channels of the decoder, K + 1 with background, K without.
        pooling: of tokens over space before the classifier, `max` or `mean`.
        skips: whether the decoder also looks at the backbone's finer features, where it has such.

    Source: ToCo (CVPR 2023), section 3.2; SeCo (CVPR 2024), section 3.1.
    """

    def __init__(self, backbone: Backbone, num_classes: int, outputs: int, pooling: str, skips: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling, self.skips = pooling, skips and bool(backbone.finer_widths)
        self.classifier = nn.Conv2d(backbone.width, num_classes, 1, bias=False)
        self.aux_classifier = nn.Conv2d(backbone.aux_width, num_classes, 1, bias=False)
        self.decoder = (
            SkipDecoder(backbone.width, outputs, backbone.finer_widths)
            if self.skips
            else LargeFieldDecoder(backbone.width, outputs)
        )
        for head in (self.classifier, self.aux_classifier):
            nn.init.trunc_normal_(head.weight, std=0.02)

    def forward(self, images: Tensor) -> Outputs:
        """Compute tokens and logits of (B, 3, H, W) normalised images."""
        tokens = self.backbone(images)
        logits = self.classifier(self._pool(tokens.patches)).flatten(1)
        return Outputs(tokens, logits, self.aux_classifier(self._pool(tokens.aux)).flatten(1))

    def decode(self, tokens: Tokens) -> Tensor:
        """Compute the decoder's logits (B, outputs, h, w) of tokens; on the finest grid that it looks at."""
        return self.decoder(tokens.patches, *(tokens.finer if self.skips else ()))

    def maps(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Compute unnormalised class activation maps (B, K, h, w) of the last and the auxiliary classifier."""
        return self.classifier(tokens.patches), self.aux_classifier(tokens.aux)

    def _pool(self, features: Tensor) -> Tensor:
        if self.pooling == "max":
            return features.amax(dim=(2, 3), keepdim=True)
        return features.mean(dim=(2, 3), keepdim=True)
