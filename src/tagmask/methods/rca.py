"""RCA (CVPR 2022) as a method: one step, what it remembers and what it gathers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, ParameterGroup, classification_loss
from tagmask.methods.rca_attention import AttentionStore
from tagmask.methods.rca_memory import RegionMemory, region_embeddings, region_masks
from tagmask.methods.rca_network import RcaHeads, draw_mixing, region_contrast
from tagmask.models.backbone import Backbone
from tagmask.ops.cam import summed_cams
from tagmask.ops.labels import present_tags
from tagmask.recipes.stages import RcaConfig


class Schedule(NamedTuple):
    """What RCA must know of its training set.

    Attributes:
        tags: (N, C) 0/1 of the data set.
        batch: images a step.
        steps: updates of the whole training.
        side: of the square images, in pixels.
    """

    tags: Tensor
    batch: int
    steps: int
    side: int


class Rca(Method):
    """Coarse and fine maps, the memory they are contrasted with, and the attention gathered from the fine ones.

    Args:
        schedule: of the training; none where nothing is trained.

    Attributes:
        gathered: attention maps of the training images; none where nothing is trained.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        background: bool,
        config: RcaConfig,
        *,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(backbone, num_classes, background, pooling="mean")
        self.config, self.schedule = config, schedule
        network = self.network
        del network.classifier, network.aux_classifier, network.decoder
        width = config.width or backbone.width
        if config.width is not None:
            network.add_module("extra_neck", _neck(backbone.width, width))
        network.add_module("heads", RcaHeads(width, num_classes, config.hidden, config.attention, config.start))
        memory = RegionMemory(
            num_classes,
            width,
            length=config.memory,
            prototypes=config.prototypes,
            momentum=config.memory_momentum,
            start=config.memory_init,
        )
        network.add_module("memory", memory)
        self.gathered: AttentionStore | None = None
        if schedule is not None:
            if schedule.side % backbone.stride:
                raise TagmaskError(
                    f"views.crop {schedule.side} is no multiple of the backbone's {backbone.stride} pixels"
                )
            if schedule.batch > config.memory:
                raise TagmaskError(f"training.batch {schedule.batch} is larger than method.memory {config.memory}")
            seen = (schedule.steps * schedule.batch - 1) // len(schedule.tags)
            if config.cam_source == "gathered" and seen < config.gather_from:
                raise TagmaskError(
                    f"method.gather_from {config.gather_from}: {schedule.steps} steps of {schedule.batch} end in epoch "
                    f"{seen} of {len(schedule.tags)} images, so no map would be gathered; set more training.steps, "
                    "method.gather_from=0 or method.cam_source=final"
                )
            size = schedule.side // backbone.stride
            self.gathered = AttentionStore(schedule.tags, (size, size), config.precision)

    @property
    def heads(self) -> RcaHeads:
        """Of the network."""
        return cast(RcaHeads, self.network.get_submodule("heads"))

    @property
    def memory(self) -> RegionMemory:
        """Of the network: its prototypes are part of every map."""
        return cast(RegionMemory, self.network.get_submodule("memory"))

    def features(self, images: Tensor) -> Tensor:
        """(B, D, h, w) of images (B, 3, H, W): the backbone's, brought to `method.width` channels where that is set."""
        patches = self.network.backbone(images).patches
        if self.config.width is None:
            return patches
        return self.network.get_submodule("extra_neck")(patches)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parts named `extra…` as heads; backbone and aggregation not.

        Source: spec C2.
        """
        free = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for name, parameter in free if ("extra" in name) == head], "head": head}
            for head in (False, True)
        ]

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Classification by fine and coarse maps, and from an epoch on contrast; remembers and gathers on the way.

        Source: spec C3.3.
        """
        assert self.schedule is not None
        assert self.gathered is not None
        config, memory, images = self.config, self.memory, len(self.schedule.tags)
        epoch = step * self.schedule.batch // images
        if step and (step - 1) * self.schedule.batch // images != epoch:
            memory.refresh_prototypes(seed=epoch)
        patches = self.features(batch.images)
        maps = self.heads(patches, memory.prototypes, memory.ready)
        fine, coarse = (
            own.amax(dim=(2, 3)) if config.pooling == "max" else own.mean(dim=(2, 3))
            for own in (maps.fine, maps.coarse)
        )
        losses = {
            "cls": classification_loss(fine, batch.tags, batch.known),
            "coarse": classification_loss(coarse, batch.tags, batch.known),
        }
        weights = {"cls": 1.0, "coarse": config.coarse_weight, "contrast": config.contrast_weight}
        masks = region_masks(maps.coarse.detach())
        if epoch >= config.contrast_from:
            losses["contrast"] = self._contrast(batch, maps.projected, masks)
        probabilities = fine.detach().float().sigmoid()
        if epoch >= config.gather_from:
            # Of the whole epochs: a few steps more than those would see but a few images.
            whole = max(1, self.schedule.steps * self.schedule.batch // images)
            last = ((step + 1) * self.schedule.batch - 1) // images >= whole - 1
            self.gathered.update(
                batch.indices, maps.fine.detach(), probabilities, last=last, min_probability=config.gather_above
            )
        memory.update(
            (patches if config.memory_feature == "x" else maps.projected).detach(),
            masks,
            batch.tags,
            probabilities,
            min_probability=config.memory_above,
            chained_mask=config.chained_mask,
        )
        losses["loss"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    def _contrast(self, batch: Batch, projected: Tensor, masks: Tensor) -> Tensor:
        classes, _ = present_tags(batch.tags, batch.most_tags)
        regions = masks.flatten(2).any(dim=2) & (batch.tags > 0)
        entries, counts = self.memory.entries()
        return region_contrast(
            region_embeddings(projected, masks),
            classes,
            regions.gather(1, classes).float(),
            draw_mixing(classes, regions, concentration=self.config.mixing),
            entries,
            counts,
            temperature=self.config.temperature,
            clamp=self.config.clamp,
            reduction=self.config.reduction,
        )

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1) of the fine maps."""
        memory = self.memory

        def forward(views: Tensor) -> Tensor:
            return self.heads(self.features(views), memory.prototypes, memory.ready).fine.relu()

        return summed_cams(forward, images, scales)

    def scores(self, images: Tensor) -> Tensor:
        """There are none: the masks come from a segmenter."""
        raise TagmaskError("RCA has no decoder: give the recipe a `segmenter`, or use the CAMs (--source cam)")


def _neck(inputs: int, outputs: int) -> nn.Sequential:
    """From a wide backbone, a MobileNet's 1280 channels say, to what the heads were made for, VGG-16's 512.

    Their weights grow with the square of the channels. Rectified, as VGG-16's features are.
    """
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(cast(Tensor, layer.bias))
    return nn.Sequential(layer, nn.ReLU(inplace=True))
