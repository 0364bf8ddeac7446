"""The network and the contrast of RCA (CVPR 2022): regions and pixels beside a memory of the whole data set."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.methods.rca_memory import RegionMemory
from tagmask.models.backbone import Backbone
from tagmask.ops.distributed import gather_rows, own_rows, world

Attention = Literal["products", "softmax", "mean"]
Reduction = Literal["sum", "mean"]
Start = Literal["fixed", "he"]

FLOOR = 1e-4


class Mixing(NamedTuple):
    """For T regions of each of B images, another region and how much of the mixture is their own; each (B, T).

    Attributes:
        image: int64 index of the other region's image in the batch of all processes.
        label: int64 its class.
        share: the own region's share, in [0, 1].
    """

    image: Tensor
    label: Tensor
    share: Tensor


def draw_mixing(
    classes: Tensor, regions: Tensor, *, concentration: int = 8, generator: torch.Generator | None = None
) -> Mixing:
    """Draw a partner for each region: any image of the batch, any class it has a region of; and Beta(a, a) shares.

    Several processes draw for the images of all of them, from the same state, and each takes its own part.

    Args:
        classes: (B, T) class of the regions to mix.
        regions: (B, C) bool, which regions there are; a region whose partner image has none stays as it is.
        concentration: a.

    Source: RCA (CVPR 2022), section 3.2; spec C3.4.
    """
    device = classes.device
    classes, regions = gather_rows(classes), gather_rows(regions.to(torch.uint8)) > 0
    image = torch.randint(len(classes), classes.shape, generator=generator, device=device)
    lots = 1 - torch.rand(*classes.shape, regions.shape[1], generator=generator, device=device)  # above 0
    label = (lots * regions[image]).argmax(dim=2)
    # The median of 2a - 1 uniform numbers is Beta(a, a).
    share = torch.rand(*classes.shape, 2 * concentration - 1, generator=generator, device=device).median(dim=2).values
    alone = ~regions.any(dim=1)[image]
    own = torch.arange(len(classes), device=device)[:, None].expand_as(classes)
    found = torch.where(alone, own, image), torch.where(alone, classes, label), torch.where(alone, 1.0, share)
    return Mixing(*map(own_rows, found))


def region_contrast(
    embeddings: Tensor,
    classes: Tensor,
    weights: Tensor,
    mixing: Mixing,
    memory: Tensor,
    counts: Tensor,
    *,
    temperature: float = 0.07,
    floor: bool = False,
    reduction: Reduction = "sum",
) -> Tensor:
    """Draw mixed regions to the entries of their two classes, away from all others.

    Args:
        embeddings: (B, C, D) of every class's region in every image.
        classes: (B, T) the classes whose regions are anchors.
        weights: (B, T) 1 for an anchor, 0 for a place that is none.
        mixing: the partners of (B, T) anchors.
        memory: (C, M, D) entries of unit length.
        counts: (C, M) bool, which entries count; a class without any is neither anchor nor partner.
        floor: keep the denominator above `FLOOR` times the largest term, as the release does; it punishes anchors that
            are easy (quirk `denominator_floor`).
        reduction: over images; `sum` as released.

    Returns:
        scalar; the mean over an image's anchors, summed over (or meaned over) images. 0 where there is no anchor. The
        mean of the processes' scalars is that of the whole batch.

    Source: RCA (CVPR 2022), equation 4; spec C3.4.
    """
    rows = torch.arange(len(classes), device=classes.device)[:, None]
    own, other = embeddings[rows, classes], gather_rows(embeddings, gradient=True)[mixing.image, mixing.label]
    share = mixing.share[..., None]
    anchors = F.normalize(share * own + (1 - share) * other, dim=2)
    with torch.autocast(anchors.device.type, enabled=False):
        logits = torch.einsum("btd,cmd->btcm", anchors.float(), memory.float()) / temperature
    logits = logits.masked_fill(~counts, -torch.inf)
    losses = torch.lerp(
        _towards(mixing.label, logits, counts, floor), _towards(classes, logits, counts, floor), mixing.share
    )
    known = counts.any(dim=1)
    valid = weights * (known[classes] & known[mixing.label])
    images = (torch.where(valid > 0, losses, 0.0) * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
    return images.sum() * world()[1] if reduction == "sum" else images.mean()


def _towards(targets: Tensor, logits: Tensor, counts: Tensor, floor: bool) -> Tensor:
    """Mean loss (B, T) of anchors with logits (B, T, C, M) towards the entries of classes (B, T)."""
    at = targets[:, :, None]
    by_class = logits.logsumexp(dim=3)
    negatives = by_class.scatter(2, at, -torch.inf).logsumexp(dim=2, keepdim=True)
    positives = logits.gather(2, at[..., None].expand(-1, -1, -1, logits.shape[3]))[:, :, 0]
    count = counts[targets]
    positives = torch.where(count, positives, 0.0)
    totals = torch.logaddexp(negatives, positives)
    if floor:
        totals = totals.maximum(logits.amax(dim=(2, 3)).detach()[..., None] + math.log(FLOOR))
    return ((totals - positives) * count).sum(dim=2) / count.sum(dim=2).clamp(min=1)


class PrototypeAttention(nn.Module):
    """Every pixel looks at the prototypes of all classes, and what it sees joins its feature.

    Args:
        width: D.
        attention: how prototypes are weighed. `softmax` of the scaled products is the paper's; `mean` divides the
            products by the number of prototypes; `products`, as released, multiplies them by classes / prototypes
            where a division by both was meant, and takes no softmax (quirk `attention_products`).

    Source: RCA (CVPR 2022), section 3.3; spec C3.3.
    """

    def __init__(self, width: int, attention: Attention = "softmax") -> None:
        super().__init__()
        self.attention = attention
        self.Q = nn.Conv2d(width, width, 1)
        self.K = nn.Linear(width, width)
        self.V = nn.Linear(width, width)
        self.aggre = nn.Conv2d(width, width, 1)
        self.concat_project = nn.Conv2d(2 * width, width, 1)

    def forward(self, features: Tensor, prototypes: Tensor, ready: Tensor) -> Tensor:
        """Features (B, D, h, w) enriched from prototypes (C, P, D); classes not ready (C,) are not looked at."""
        classes, each, width = prototypes.shape
        keys = self.K(prototypes.flatten(0, 1))
        products = self.Q(features).flatten(2).transpose(1, 2) @ keys.t()
        seen = ready.repeat_interleave(each)
        if self.attention == "softmax":
            weights = (products / math.sqrt(width)).masked_fill(~seen, -torch.inf).softmax(dim=2).nan_to_num(0.0)
        else:
            scale = classes / each if self.attention == "products" else 1 / (classes * each)
            weights = (products * scale).masked_fill(~seen, 0.0)
        context = (weights @ self.V(prototypes.flatten(0, 1))).transpose(1, 2).reshape_as(features)
        return self.concat_project(torch.cat([features, self.aggre(context)], dim=1))


class RcaMaps(NamedTuple):
    """What the heads make of a feature map (B, D, h, w).

    Attributes:
        fine: (B, C, h, w) maps of the enriched features; their mean is the logit, their positive part the CAM.
        coarse: (B, C, h, w) maps of the features as they are; they make the region masks.
        projected: (B, D, h, w) features the regions are pooled from.
    """

    fine: Tensor
    coarse: Tensor
    projected: Tensor


class RcaHeads(nn.Module):
    """All of RCA's network but its backbone; the parts named `extra…` learn ten times as fast.

    The release has a branch of four convolutions a class for the fine maps; here they are one of grouped convolutions,
    which computes the same.

    Args:
        width: D of the backbone.
        classes: C.
        hidden: channels of the maps' branches; D as released.
        attention: see `PrototypeAttention`.
        start: how convolutions begin. `fixed`, as released, draws every weight with a standard deviation of 0.01, which
            suits the 512 channels of VGG-16; what passes four layers of narrower branches is so faint that they hardly
            learn. `he` draws by the number of inputs.

    Source: RCA (CVPR 2022), released code; spec C2.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        hidden: int | None = None,
        attention: Attention = "softmax",
        start: Start = "fixed",
    ) -> None:
        super().__init__()
        hidden = hidden or width
        self.extra_convs = _branches(width, hidden, 1, num_classes)
        self.extra_branches = _branches(width, hidden, num_classes, num_classes)
        self.extra_F = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.aggregation = PrototypeAttention(width, attention)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and start == "fixed":
                nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]: all of them have one

    def forward(self, features: Tensor, prototypes: Tensor, ready: Tensor) -> RcaMaps:
        """Maps of features (B, D, h, w), given prototypes (C, P, D) of which those of classes `ready` (C,) count."""
        enriched = self.aggregation(features, prototypes, ready)
        return RcaMaps(self.extra_branches(enriched), self.extra_convs(features), self.extra_F(features))


class RcaNetwork(nn.Module):
    """Backbone, heads and the memory whose prototypes are part of every map.

    Args:
        backbone: gives the feature map.
        heads: on `width` channels.
        memory: of the same number of channels.
        width: channels that a 1x1 convolution brings the backbone's to; None leaves them.
    """

    def __init__(self, backbone: Backbone, heads: RcaHeads, memory: RegionMemory, width: int | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.extra_neck = nn.Identity() if width is None else _neck(backbone.width, width)
        self.heads, self.memory = heads, memory

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.extra_neck(self.backbone(images).patches)

    def maps(self, features: Tensor) -> RcaMaps:
        """What the heads make of features (B, D, h, w), given the memory's prototypes."""
        return self.heads(features, self.memory.prototypes, self.memory.ready)


def _neck(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution from a wide backbone, a MobileNet's 1280 channels say, to the 512 that the heads were made for.

    The heads' weights grow with the square of the channels. The result is rectified, as VGG-16's features are.
    """
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(cast(Tensor, layer.bias))
    return nn.Sequential(layer, nn.ReLU(inplace=True))


def _branches(width: int, hidden: int, groups: int, outputs: int) -> nn.Sequential:
    """`groups` branches of three 3x3 convolutions with ReLU and a 1x1 convolution, all on the same input."""
    total = groups * hidden
    return nn.Sequential(
        nn.Conv2d(width, total, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(total, total, 3, padding=1, groups=groups),
        nn.ReLU(inplace=True),
        nn.Conv2d(total, total, 3, padding=1, groups=groups),
        nn.ReLU(inplace=True),
        nn.Conv2d(total, outputs, 1, groups=groups),
    )
