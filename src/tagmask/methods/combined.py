"""What a run of several stages leaves: CAMs of its classifier, scores of its segmenter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tagmask.methods.base import Method


class Combined(Method):
    """Two trained methods as one, for prediction.

    Args:
        classifier: gives the CAMs.
        segmenter: gives the scores, and the scale that images come in.
    """

    def __init__(self, classifier: Method, segmenter: Method) -> None:
        super().__init__(segmenter.network, segmenter.num_classes, segmenter.background)
        self.classifier, self.segmenter = classifier, segmenter

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """The classifier's CAMs (B, K, H, W) in [0, 1]; the two backbones may normalise images differently."""
        pixels = self.network.backbone.pixels(images) / 255
        return self.classifier.cams(self.classifier.network.backbone.normalise(pixels), scales)

    def cams_of(self, head: str, images: Tensor, scales: Sequence[float]) -> Tensor:
        """The CAMs of another head of the classifier."""
        pixels = self.network.backbone.pixels(images) / 255
        return self.classifier.cams_of(head, self.classifier.network.backbone.normalise(pixels), scales)

    def scores(self, images: Tensor) -> Tensor:
        """The segmenter's logits (B, C, h, w)."""
        return self.segmenter.scores(images)
