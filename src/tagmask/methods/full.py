"""Full supervision: the same network and decoder, trained on ground-truth masks.

It is no method for tagged data but the upper bound that one is measured against, and the segmenter that learns from the
masks of the stages before it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.methods.base import TagMethod, classification_loss, enlarge, segmentation_loss
from tagmask.methods.registry import register
from tagmask.models.backbone import Backbone
from tagmask.ops.multi_scale import multi_scale_logits, multi_scale_loss
from tagmask.recipes.sections import Fraction, MethodSection


class FullConfig(MethodSection):
    """The same decoder trained on ground-truth masks: the upper bound that a tag-trained model is measured against."""

    name: Literal["full"] = "full"
    copies: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(),
        description="Scales of smaller copies of the image that the decoder learns from as well, together with the "
        "largest logits over all of them; DeepLab-v2 has 0.5 and 0.75. The classifier then learns nothing.",
    )
    decoder: Literal["large_field", "skip"] = Field(
        default="large_field",
        description="The decoder: large_field is DeepLab-v2's, on the last features alone; skip adds skip connections "
        "from finer ones, at 8 and 4 pixels a step, for outlines and thin parts, where the network has such: a ViT has "
        "none.",
    )
    paste: Fraction = Field(
        default=0.0,
        description="The probability that the pixels of one class, cut out of another image along its mask, are pasted "
        "onto a training view: classes that always come together are then seen apart.",
    )


@register(FullConfig)
class Full(TagMethod):
    """A decoder on ground-truth masks; the classifier learns beside it, so that its CAMs can be compared too."""

    needs_masks: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: FullConfig) -> None:
        super().__init__(backbone, num_classes, background, pooling="max", skips=config.decoder == "skip")
        self.config, self.paste = config, config.paste

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute segmentation of the masks and classification of the tags; with `copies`, segmentation alone."""
        assert batch.masks is not None
        if self.config.copies:
            logits = multi_scale_logits(super().scores, batch.images, self.config.copies)
            segmentation = multi_scale_loss(logits, batch.masks, self.background)
            return {"loss": segmentation, "seg": segmentation}
        outputs = self.network(batch.images)
        logits = enlarge(self.network.decode(outputs.tokens), batch.images.shape[-2:])
        segmentation = segmentation_loss(logits, batch.masks, self.background)
        classification = classification_loss(outputs.logits, batch.tags, batch.known)
        return {"loss": segmentation + classification, "seg": segmentation, "cls": classification}

    def scores(self, images: Tensor) -> Tensor:
        """Decoder logits (B, C, h, w) of normalised images; with copies, the largest over the scales."""
        if self.config.copies:
            return multi_scale_logits(super().scores, images, self.config.copies)[-1]
        return super().scores(images)
