"""AffinityNet (PSA, CVPR 2018): features whose distances say whether near pixels belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.methods.base import Method
from tagmask.models.backbone import Backbone
from tagmask.ops.affinity import RADIUS, pair_affinity, pair_labels
from tagmask.ops.distributed import global_mean
from tagmask.ops.multi_scale import shrink_labels

FIRST_STAGE = 3  # the published heads count stages from ResNet-38's third
EPSILON = 1e-5
OUTPUTS = (64, 128, 256)


class AffinityHead(nn.Module):
    """Joins features of several stages to the feature whose distances are affinities.

    Args:
        widths: channels of the feature maps; by default ResNet-38's taps.
        outputs: channels each is reduced to.

    Source: PSA (CVPR 2018), section 4; spec A6.3.
    """

    def __init__(self, widths: Sequence[int] = (512, 1024, 4096), outputs: Sequence[int] = OUTPUTS) -> None:
        super().__init__()
        for stage, (width, output) in enumerate(zip(widths, outputs, strict=True), start=FIRST_STAGE):
            convolution = nn.Conv2d(width, output, 1, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            self.add_module(f"f8_{stage}", convolution)
        total = sum(outputs)
        self.f9 = nn.Conv2d(total, total, 1, bias=False)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature (B, sum of outputs, h, w) of maps (B, width, h_i, w_i); h, w are those of the first."""
        reductions = [module for name, module in self.named_children() if name != "f9"]
        size = features[0].shape[-2:]
        parts = [_resize(F.elu(reduce(feature)), size) for reduce, feature in zip(reductions, features, strict=True)]
        return F.elu(self.f9(torch.cat(parts, dim=1)))


class AffinityLosses(NamedTuple):
    """Scalars: the loss to minimise and its three parts, each a mean over the pairs of its kind."""

    loss: Tensor
    background: Tensor
    foreground: Tensor
    negative: Tensor


def affinity_loss(features: Tensor, labels: Tensor, radius: int = RADIUS) -> AffinityLosses:
    """Draw the affinity of pairs with one label to 1, and of pairs with two labels to 0.

    Args:
        features: (B, D, h, w).
        labels: (B, h, w) with 0 background, 255 unknown.

    Returns:
        means over all pairs of the batch (of all processes); 0 for a kind without a pair.

    Source: PSA (CVPR 2018), equations 4-7; spec A6.4.
    """
    affinity = pair_affinity(features.float(), radius)
    pairs = pair_labels(labels, radius)
    together, apart = -torch.log(affinity + EPSILON), -torch.log(1 + EPSILON - affinity)
    background, foreground, negative = (
        global_mean((losses * part).sum(), part.sum())
        for losses, part in zip((together, together, apart), pairs, strict=True)
    )
    return AffinityLosses(background / 4 + foreground / 4 + negative / 2, background, foreground, negative)


def _resize(features: Tensor, size: Sequence[int]) -> Tensor:
    if features.shape[-2:] == tuple(size):
        return features
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


class AffinityNetwork(nn.Module):
    """Backbone and head.

    Args:
        backbone: gives the feature maps of several stages.
        heads: on these maps.
    """

    def __init__(self, backbone: Backbone, heads: AffinityHead) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.heads(self.backbone.taps(images))


class Affinity(Method):
    """AffinityNet on any backbone, trained on confident labels as masks.

    The release pools CRF scores to the grid and then decides. Here the masks are decided pixel by pixel, and the grid
    takes the pixel at each cell's centre.
    """

    needs_masks: ClassVar[bool] = True
    has_decoder: ClassVar[bool] = False
    network: AffinityNetwork

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        widths = backbone.tap_widths
        heads = AffinityHead(widths, OUTPUTS[-len(widths) :])
        super().__init__(AffinityNetwork(backbone, heads), num_classes, background=True)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.network(images)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the loss of the pairs of near pixels in the masks."""
        assert batch.masks is not None
        features = self.features(batch.images)
        return affinity_loss(features, shrink_labels(batch.masks, features.shape[-2:]))._asdict()
