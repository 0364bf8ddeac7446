"""What every method is to the loop, to prediction and to the reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.models.backbone import Backbone, Tokens
from tagmask.models.tag_network import TagNetwork
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.distributed import global_mean
from tagmask.ops.labels import IGNORE, pseudo_masks
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.load import PseudoMaskConfig


class ParameterGroup(TypedDict):
    """Parameters that share a learning rate.

    Attributes:
        params: the parameters.
        head: whether their learning rate is multiplied by `optimizer.head_scale`.
    """

    params: list[nn.Parameter]
    head: bool


class Method(nn.Module):
    """A network with its losses. The training loop knows nothing but what stands here.

    Attributes:
        needs_views: whether batches must carry the weak and the strong view.
        needs_masks: whether batches must carry true masks.
        classes: K.
        background: whether label 0 exists; where not, score channel c is label c + 1.
    """

    needs_views: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = False

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, pooling: str) -> None:
        super().__init__()
        self.num_classes, self.background = num_classes, background
        self.network = TagNetwork(backbone, num_classes, num_classes + int(background), pooling)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The losses; wrappers for several devices go through here."""
        return self.losses(batch, step)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Scalars to log; `loss` is the one to minimise. Step counts updates from 0."""
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """The backbone, and everything else as heads; frozen parameters in neither."""
        inside = {id(parameter) for parameter in self.network.backbone.parameters()}
        free = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in free if id(parameter) in inside], "head": False},
            {"params": [parameter for parameter in free if id(parameter) not in inside], "head": True},
        ]

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1] of normalised images, over scales and mirrors."""
        (cams,) = multiscale_cams(lambda views: (self.network.classifier(self._tokens(views).patches),), images, scales)
        return cams

    def scores(self, images: Tensor) -> Tensor:
        """Decoder logits (B, C, h, w) of normalised images; C = K + 1 with background, else K."""
        return self.network.decoder(self._tokens(images).patches)

    def _tokens(self, images: Tensor) -> Tokens:
        return self.network.backbone(images)


def classification_loss(logits: Tensor, tags: Tensor, known: Tensor) -> Tensor:
    """Multilabel soft margin over the known entries of (B, K) tags."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), tags, reduction="none")
    return global_mean((losses * known).sum(), known.sum())


def segmentation_loss(logits: Tensor, labels: Tensor, background: bool) -> Tensor:
    """Cross-entropy, background and foreground weighing the same whatever their areas.

    Args:
        logits: (B, C, H, W) at label size.
        labels: (B, H, W) label maps; 255 is left out.
        background: whether channel 0 is background; where not, channel c is label c + 1 and all pixels weigh the same.

    Returns:
        scalar: half the mean over background pixels plus half the mean over foreground pixels.

    Source: ToCo (CVPR 2023); SeCo (CVPR 2024), section 3.4.
    """
    if not background:
        targets = torch.where(labels == IGNORE, IGNORE, labels - 1)
        losses = F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
        return global_mean(losses.sum(), (targets != IGNORE).sum())
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    behind, front = labels == 0, (labels > 0) & (labels != IGNORE)
    halves = [global_mean((losses * part).sum(), part.sum()) for part in (behind, front)]
    return 0.5 * torch.stack(halves).sum()


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (B, C, h, w) to (B, C, *size)."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def refined_pseudo_masks(
    backbone: Backbone, batch: Batch, cams: Tensor, ids: Tensor, config: PseudoMaskConfig, background: bool
) -> Tensor:
    """`ops.labels.pseudo_masks` of a batch, refined by PAR on the images at half size where the recipe says so."""

    def refine(scores: Tensor) -> Tensor:
        if config.refine == "none":
            return scores
        small = F.interpolate(
            backbone.pixels(batch.images), size=scores.shape[-2:], mode="bilinear", align_corners=False
        )
        return pixel_adaptive_refinement(small, scores)

    return pseudo_masks(
        cams,
        (ids > 0).to(cams),
        high=config.high,
        low=config.low,
        boxes=batch.boxes,
        refine=refine,
        ids=ids,
        background=background,
    )
