"""RCA (CVPR 2022) as a method: one step, what it remembers and what it gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, ParameterGroup, TrainingSet, classification_loss
from tagmask.methods.rca_attention import AttentionStore
from tagmask.methods.rca_memory import RegionMemory, region_embeddings, region_masks
from tagmask.methods.rca_network import RcaHeads, RcaNetwork, draw_mixing, region_contrast
from tagmask.methods.registry import register
from tagmask.models.backbone import Backbone
from tagmask.ops.cam import summed_cams
from tagmask.ops.labels import present_tags
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import Fraction, MethodSection, Positive, Scales

Quirk = Literal["noise_memory", "chained_masks", "attention_products", "denominator_floor", "uint8_maps"]

FORMER_QUIRKS = {
    ("memory_init", "randn"): "noise_memory",
    ("chained_mask", "official"): "chained_masks",
    ("attention", "official"): "attention_products",
    ("clamp", "official"): "denominator_floor",
    ("precision", "uint8"): "uint8_maps",
}
"""Keys and values of version 0.1 that are quirks now; other values of these keys were the defaults."""


class RcaConfig(MethodSection):
    """RCA (CVPR 2022). The defaults are the paper's constants and meaning, without the release's quirks."""

    former_values: ClassVar = {
        "start": {"official": "fixed"},
        "memory_feature": {"x": "backbone", "mid": "projected"},
    }

    name: Literal["rca"] = "rca"
    pooling: Literal["max", "mean"] = Field(
        default="mean", description="How maps are pooled to logits; the release takes the mean."
    )
    width: int | None = Field(
        default=None, gt=0, description="Channels that a 1x1 convolution brings the backbone's to; none leaves them."
    )
    hidden: int | None = Field(
        default=None, gt=0, description="Channels of the branches that make the maps; none takes the features' number."
    )
    start: Literal["fixed", "he"] = Field(
        default="fixed",
        description="How the heads begin: with a standard deviation of 0.01, which suits 512 channels, or by width.",
    )
    memory: Positive = Field(default=500, description="How many regions of a class are remembered.")
    prototypes: Positive = Field(default=10, description="How many k-means centres a class's regions have.")
    memory_feature: Literal["backbone", "projected"] = Field(
        default="backbone",
        description="Which feature is remembered: the backbone's, as released, or the projected one that anchors have.",
    )
    memory_momentum: Fraction = Field(
        default=0.99, description="The fraction of itself that an entry keeps when it is written again."
    )
    memory_above: Fraction = Field(
        default=0.7, description="The probability above which the region of a tag is remembered."
    )
    attention: Literal["softmax", "mean"] = Field(
        default="softmax",
        description="How a pixel weighs the prototypes: by softmax, as in the paper; mean: by plain products, averaged "
        "over all.",
    )
    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="How the contrast is taken over the images of a batch."
    )
    temperature: float = Field(default=0.07, gt=0, description="The temperature of the contrast.")
    mixing: Positive = Field(default=8, description="The a of the Beta(a, a) that regions are mixed with.")
    coarse_weight: float = Field(default=0.4, ge=0, description="The weight of the coarse maps' classification.")
    contrast_weight: float = Field(default=0.01, ge=0, description="The weight of the contrast.")
    contrast_from: int = Field(
        default=2, ge=0, description="The epoch, counted from 0, from which the contrast counts."
    )
    gather_from: int = Field(
        default=1, ge=0, description="The epoch, counted from 0, from which attention maps are gathered."
    )
    gather_above: Fraction = Field(default=0.1, description="The probability from which a map is gathered.")
    cam_source: Literal["gathered", "final"] = Field(
        default="gathered", description="Whether masks are made of the gathered maps or of the trained network's CAMs."
    )
    scales: Scales = Field(
        default=(1.0, 0.5, 1.5, 2.0), description="The scales of the trained network's CAMs (`cam_source: final`)."
    )
    quirks: tuple[Quirk, ...] = Field(
        default=(),
        description="The quirks of the released code that this run shall have, too; see docs/methods/rca.",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_former_quirks(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        gone = {key for key, _ in FORMER_QUIRKS} - cls.model_fields.keys()
        found = {pair: quirk for pair, quirk in FORMER_QUIRKS.items() if values.get(pair[0]) == pair[1]}
        gone |= {key for key, _ in found}
        taken = {key: value for key, value in values.items() if key not in gone}
        if found:
            taken["quirks"] = [*taken.get("quirks", ()), *found.values()]
        return taken


@register(RcaConfig)
class Rca(Method):
    """Coarse and fine maps, the memory they are contrasted with, and the attention gathered from the fine ones.

    Attributes:
        gathered: attention maps of the training images, once `start_training` was called.
    """

    has_decoder: ClassVar[bool] = False
    staged: ClassVar[bool] = True
    network: RcaNetwork

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: RcaConfig) -> None:
        width = config.width or backbone.width
        attention = "products" if "attention_products" in config.quirks else config.attention
        heads = RcaHeads(width, num_classes, config.hidden, attention, config.start)
        memory = RegionMemory(
            num_classes,
            width,
            length=config.memory,
            prototypes=config.prototypes,
            momentum=config.memory_momentum,
            start="noise" if "noise_memory" in config.quirks else "first_write",
        )
        super().__init__(RcaNetwork(backbone, heads, memory, config.width), num_classes, background)
        self.config = config
        self.training_set: TrainingSet | None = None
        self.gathered: AttentionStore | None = None

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raise a TagmaskError where maps cannot be gathered as the recipe's views and scales want it."""
        section = recipe.method
        assert isinstance(section, RcaConfig)
        if section.cam_source != "gathered":
            return
        if not (recipe.views.squash and recipe.views.flip == 0):
            raise TagmaskError(
                "method.cam_source gathered: maps are gathered over whole, unflipped images; set views.squash=true and "
                "views.flip=0, or method.cam_source=final"
            )
        if recipe.inference.cam_scales is not None:
            raise TagmaskError(
                "inference.cam_scales: gathered maps have the scale they were trained at; remove it, or set "
                "method.cam_source=final"
            )

    def start_training(self, training_set: TrainingSet) -> None:
        """Make room for the attention maps of the training images.

        Raises:
            TagmaskError: crop, batch or number of steps do not go with the memory and the gathering.
        """
        config, stride = self.config, self.network.backbone.stride
        if training_set.side % stride:
            raise TagmaskError(f"views.crop {training_set.side} is no multiple of the backbone's {stride} pixels")
        if training_set.batch > config.memory:
            raise TagmaskError(f"training.batch {training_set.batch} is larger than method.memory {config.memory}")
        last = (training_set.steps * training_set.batch - 1) // len(training_set.tags)
        if config.cam_source == "gathered" and last < config.gather_from:
            raise TagmaskError(
                f"method.gather_from {config.gather_from}: {training_set.steps} steps of {training_set.batch} end in "
                f"epoch {last} of {len(training_set.tags)} images, so no map would be gathered; set more "
                "training.steps, method.gather_from=0 or method.cam_source=final"
            )
        self.training_set = training_set
        size = training_set.side // stride
        self.gathered = AttentionStore(
            training_set.tags.to_dense(), (size, size), "uint8" if "uint8_maps" in config.quirks else "float16"
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """Part the parameters as released: those named `extra…` learn as heads, backbone and aggregation do not.

        Source: RCA (CVPR 2022), released code.
        """
        free = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for name, parameter in free if ("extra" in name) == head], "head": head}
            for head in (False, True)
        ]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the losses of fine and coarse maps and the contrast; remember regions and gather maps on the way.

        Source: RCA (CVPR 2022), section 3.2; the order of its released training loop.
        """
        assert self.training_set is not None
        assert self.gathered is not None
        config, memory, images = self.config, self.network.memory, len(self.training_set.tags)
        # A new epoch begins with new prototypes.
        epoch = step * self.training_set.batch // images
        if step and (step - 1) * self.training_set.batch // images != epoch:
            memory.refresh_prototypes(seed=epoch)
        # Both kinds of maps learn from the tags.
        features = self.network.features(batch.images)
        maps = self.network.maps(features)
        fine, coarse = self._pool(maps.fine), self._pool(maps.coarse)
        losses = {
            "cls": classification_loss(fine, batch.tags, batch.known),
            "coarse": classification_loss(coarse, batch.tags, batch.known),
        }
        weights = {"cls": 1.0, "coarse": config.coarse_weight, "contrast": config.contrast_weight}
        # Regions that the coarse maps show are drawn to their class's entries in the memory.
        masks = region_masks(maps.coarse.detach())
        if epoch >= config.contrast_from:
            losses["contrast"] = self._contrast(batch, maps.projected, masks)
        # Maps of probable tags are gathered. In the last whole epoch every tag gets one: a started epoch after it would
        # see only some of the images.
        probabilities = fine.detach().float().sigmoid()
        if epoch >= config.gather_from:
            whole = max(1, self.training_set.steps * self.training_set.batch // images)
            last = ((step + 1) * self.training_set.batch - 1) // images >= whole - 1
            self.gathered.update(
                batch.indices, maps.fine.detach(), probabilities, last=last, min_probability=config.gather_above
            )
        # Regions of sure tags are remembered, after the contrast has looked at the memory.
        memory.update(
            (features if config.memory_feature == "backbone" else maps.projected).detach(),
            masks,
            batch.tags,
            probabilities,
            min_probability=config.memory_above,
            chained="chained_masks" in config.quirks,
        )
        losses["loss"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    def _contrast(self, batch: Batch, projected: Tensor, masks: Tensor) -> Tensor:
        """Contrast of the regions of the tags, each mixed with another of the batch."""
        classes, _ = present_tags(batch.tags, batch.most_tags)
        regions = masks.flatten(2).any(dim=2) & (batch.tags > 0)
        entries, counts = self.network.memory.entries()
        return region_contrast(
            region_embeddings(projected, masks),
            classes,
            regions.gather(1, classes).float(),
            draw_mixing(classes, regions, concentration=self.config.mixing),
            entries,
            counts,
            temperature=self.config.temperature,
            floor="denominator_floor" in self.config.quirks,
            reduction=self.config.reduction,
        )

    def _pool(self, maps: Tensor) -> Tensor:
        return maps.amax(dim=(2, 3)) if self.config.pooling == "max" else maps.mean(dim=(2, 3))

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the tags of normalised images, of the fine maps."""
        return self._pool(self.network.maps(self.network.features(images)).fine)

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1) of the fine maps."""

        def forward(views: Tensor) -> Tensor:
            return self.network.maps(self.network.features(views)).fine.relu()

        return summed_cams(forward, images, scales)

    @property
    def gathers_cams(self) -> bool:
        """Whether masks are made of the maps that were gathered while training."""
        return self.config.cam_source == "gathered"

    def gathered_cams(self, index: int) -> tuple[Tensor, Tensor]:
        """Give the classes (n,) of the training image at `index` and its gathered maps (n, h, w) in [0, 1]."""
        assert self.gathered is not None
        return self.gathered.of_image(index)
