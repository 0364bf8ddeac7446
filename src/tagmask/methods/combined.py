"""What a run of several stages leaves: CAMs of its classifier, scores of its segmenter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tagmask.methods.base import Method


class Staged(Method):
    """Two trained methods as one, for prediction.

    Args:
        classifier: gives the CAMs.
        segmenter: gives the scores, and the scale of the images.
    """

    def __init__(self, classifier: Method, segmenter: Method) -> None:
        nn.Module.__init__(self)
        self.num_classes, self.background = segmenter.num_classes, segmenter.background
        self.network = segmenter.network
        self.classifier, self.segmenter = classifier, segmenter

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """The classifier's CAMs (B, K, H, W) in [0, 1]."""
        pixels = self.network.backbone.pixels(images) / 255
        return self.classifier.cams(self.classifier.network.backbone.normalise(pixels), scales)

    def scores(self, images: Tensor) -> Tensor:
        """The segmenter's logits (B, C, h, w)."""
        return self.segmenter.scores(images)
