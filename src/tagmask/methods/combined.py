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
        return self.classifier.cams(self._for_classifier(images), scales)

    def cams_of(self, head: str, images: Tensor, scales: Sequence[float]) -> Tensor:
        """The CAMs of another head of the classifier."""
        return self.classifier.cams_of(head, self._for_classifier(images), scales)

    def tag_logits(self, images: Tensor) -> Tensor:
        """The classifier's logits of the tags: a segmenter's own classifier may never have learnt.

        Those of context classes, which the segmenter does not know, follow those of the K classes.
        """
        return self.classifier.tag_logits(self._for_classifier(images))

    def scores(self, images: Tensor) -> Tensor:
        """The segmenter's logits (B, C, h, w)."""
        return self.segmenter.scores(images)

    def _for_classifier(self, images: Tensor) -> Tensor:
        """Normalise images as the classifier wants them, which come as the segmenter does."""
        pixels = self.network.backbone.pixels(images) / 255
        return self.classifier.network.backbone.normalise(pixels)
