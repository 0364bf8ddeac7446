"""SeCo, "Separate and Conquer" (CVPR 2024): cut co-occurring objects apart, then contrast them by tag.

Separate: small patches around uncertain CAM pixels, each tagged with the one class that stands in it. Conquer: patch
embeddings are contrasted with a queue of a slowly moving teacher's (LIL) and with one prototype a class (LIG).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods.base import TagMethod, classification_loss, enlarge, refined_pseudo_masks, segmentation_loss
from tagmask.methods.registry import register
from tagmask.methods.seco_losses import MIXED, global_contrast, local_contrast, move_prototypes, patch_token_contrast
from tagmask.methods.seco_patches import GLOBAL_VIEWS, cut_patches, draw_corners, only_class, tag_views
from tagmask.models.backbone import Backbone, Tokens
from tagmask.models.decoders import ProjectionHead
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.distributed import gather_rows, world
from tagmask.ops.energy import dense_energy
from tagmask.ops.labels import present_tags, region_map, take_channels, to_labels
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import Fraction, MethodSection, Positive, PseudoMaskConfig, Scales

Quirk = Literal["patch_area", "strong_flip", "view_tag", "ptc_box", "single_class", "reseed", "zero_gradients"]

ENERGY_WEIGHT = 1e-7
"""The factor inside the dense energy; `reg_weight` stands before it."""


class SecoConfig(MethodSection):
    """SeCo (CVPR 2024). The defaults are the paper's constants for VOC."""

    former_keys: ClassVar = {"accidents": "quirks"}
    constants: ClassVar = {"energy_weight": ENERGY_WEIGHT}

    name: Literal["seco"] = "seco"
    pooling: Literal["max", "mean"] = Field(
        default="max", description="How the token map is pooled before the classifier."
    )
    scales: Scales = Field(default=(1.0, 0.5, 0.75, 1.5), description="The scales of the CAMs inside a step.")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    pseudo_mask_last_from: int = Field(
        default=0,
        ge=0,
        description="The step from which pseudo masks are made of the last CAM; before, of the auxiliary one.",
    )
    region_last_from: int = Field(
        default=10_000,
        ge=0,
        description="The step from which regions are made of the last CAM; before, of the auxiliary one.",
    )
    patches: Positive = Field(default=10, description="How many patches are cut from an image.")
    patch_size: Positive = Field(default=64, description="The side of a patch, in pixels.")
    patch_area: Fraction = Field(
        default=0.2, description="A patch is background if at most this fraction of it is occupied."
    )
    projection_hidden: Positive = Field(default=2048, description="The hidden channels of the projection head.")
    queue: Positive = Field(default=4608, description="The number of embeddings in the queue.")
    teacher_momentum: Fraction = Field(
        default=0.999, description="The fraction of itself that the teacher keeps in every step."
    )
    prototypes_from: int = Field(default=600, ge=0, description="The step from which prototypes move.")
    prototype_momentum: Fraction = Field(
        default=0.9, description="The fraction of itself that a prototype keeps at every image of its class."
    )
    lil_form: Literal["reference", "supcon"] = Field(
        default="reference", description="The local contrast as released, or as the paper means it (supcon)."
    )
    lil_temperature: float = Field(default=0.08, gt=0, description="The temperature of the local contrast.")
    lig_temperature: float = Field(default=0.1, gt=0, description="The temperature of the global contrast.")
    ptc_weight: float = Field(default=0.3, ge=0, description="The weight of the patch-token contrast.")
    lil_weight: float = Field(default=0.5, ge=0, description="The weight of the local contrast.")
    lig_weight: float = Field(default=0.5, ge=0, description="The weight of the global contrast.")
    seg_weight: float = Field(default=0.12, ge=0, description="The weight of the decoder's loss.")
    reg_weight: float = Field(
        default=0.05, ge=0, description="The weight of the dense energy; at 0 it is not computed."
    )
    contrast_groups: Positive = Field(
        default=1,
        description="Into how many groups of images a batch falls that count the pairs and classes of their contrasts "
        "each for itself, as each process of the release does; COCO's has 2.",
    )
    ptc_from: int = Field(default=0, ge=0, description="The step from which the patch-token contrast counts.")
    contrast_from: int = Field(default=1001, ge=0, description="The step from which both contrasts count.")
    decoder_from: int = Field(default=2001, ge=0, description="The step from which the decoder learns.")
    quirks: tuple[Quirk, ...] = Field(
        default=("patch_area", "single_class"),
        description="The quirks of the released code that this run shall have, too; see docs/methods/seco.",
    )


class Present(NamedTuple):
    """CAMs of the classes that each image bears.

    Attributes:
        channels: (B, T) class indices in 0..K-1.
        label_ids: (B, T) label ids in 1..K, 0 where an image bears fewer than T.
        last, aux: (B, T, H, W) CAMs in [0, 1] of the last and of the auxiliary classifier.
    """

    channels: Tensor
    label_ids: Tensor
    last: Tensor
    aux: Tensor


@register(SecoConfig)
class Seco(TagMethod):
    """SeCo, single-stage. Its state is the local teacher, the queue with tags and write position, the prototypes."""

    needs_views: ClassVar[bool] = True
    prototypes: Tensor
    queue: Tensor
    queue_tags: Tensor
    queue_position: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, background: bool, config: SecoConfig) -> None:
        super().__init__(backbone, num_classes, background, config.pooling)
        self.config = config
        width = backbone.width  # of embeddings too: the global contrast compares them with class tokens
        self.projection = ProjectionHead(width, config.projection_hidden, width)
        self.teacher = nn.ModuleDict(
            {"backbone": copy.deepcopy(self.network.backbone), "projection": copy.deepcopy(self.projection)}
        )
        self.teacher.requires_grad_(False)
        self.register_buffer("prototypes", torch.randn(num_classes, width))
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, width), dim=1))
        self.register_buffer("queue_tags", torch.zeros(config.queue, dtype=torch.int64))
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.int64))
        self.draw_seed = int(torch.randint(2**31, ()))

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raise a TagmaskError where the crop has no room for the patches."""
        section, crop = recipe.method, recipe.views.crop
        assert isinstance(section, SecoConfig)
        if section.patch_size > crop:
            raise TagmaskError(
                f"method.patch_size {section.patch_size} is larger than views.crop {crop}; make it smaller"
            )
        groups, training = section.contrast_groups, recipe.training
        if training.batch % groups or (groups > 1 and groups % training.devices):
            raise TagmaskError(
                f"method.contrast_groups {groups}: a batch of {training.batch} on {training.devices} devices does not "
                "fall into as many equal groups; 1 has one for all"
            )
        places = (crop - section.patch_size + 1) ** 2
        if section.patches > places:
            raise TagmaskError(
                f"method.patches {section.patches}: patches of {section.patch_size} pixels have {places} places in a "
                f"crop of {crop}; make method.patch_size smaller"
            )

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute one step of the paper's schedule; terms whose phase has not begun are not computed.

        Source: SeCo (CVPR 2024), section 3.4; the order of its released training loop.
        """
        config = self.config
        # The teacher follows the student of the step before.
        self._move_teacher()
        # Both classifiers learn from the tags in every step.
        outputs = self.network(batch.images)
        tokens = outputs.tokens
        terms = {
            "cls": (1.0, classification_loss(outputs.logits, batch.tags, batch.known)),
            "cls_aux": (1.0, classification_loss(outputs.aux_logits, batch.tags, batch.known)),
        }
        # Images of a single class move that class's prototype.
        if step >= config.prototypes_from:
            only = _only_tag(batch, MIXED)
            self.prototypes.copy_(
                move_prototypes(self.prototypes, tokens.class_token.float(), only, config.prototype_momentum)
            )
        # All that follows needs the CAMs of the tags, and none of it the first steps.
        fills_from = self._contrast_fills_from(len(batch.images))
        if step >= min(config.ptc_from, fills_from, config.decoder_from):
            present = self._present(batch, tokens)
            # Tokens of one class come together within the image.
            if step >= config.ptc_from:
                terms["ptc"] = config.ptc_weight, self._token_contrast(batch, tokens, present)
            # Patches are cut apart and contrasted by tag. The queue fills before the contrast counts.
            if step >= fills_from:
                lil, lig = self._separate_and_conquer(batch, tokens, present, step)
                if step >= config.contrast_from:
                    terms |= {"lil": (config.lil_weight, lil), "lig": (config.lig_weight, lig)}
            # The decoder learns from refined pseudo masks.
            if step >= config.decoder_from:
                terms |= self._segmentation(batch, tokens, present, step)
        if "zero_gradients" in config.quirks:
            terms["idle"] = 0.0, self._idle()
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return {"loss": loss, **{name: value for name, (_, value) in terms.items() if name != "idle"}}

    def cams_of(self, head: str, images: Tensor, scales: Sequence[float]) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1] of the auxiliary classifier."""
        if head != "auxiliary":
            return super().cams_of(head, images, scales)

        def forward(views: Tensor) -> tuple[Tensor]:
            return (self.network.maps(self.network.backbone(views))[1],)

        (cams,) = multiscale_cams(forward, images, scales)
        return cams

    def _contrast_fills_from(self, images: int) -> int:
        """The step from which keys are queued: early enough that no other entry is left when the contrast begins."""
        rows = images * world()[1] * (self.config.patches + GLOBAL_VIEWS)
        return self.config.contrast_from - -(-self.config.queue // rows) - 1

    def _idle(self) -> Tensor:
        """A term of weight 0 over what has not begun to learn, so that Adam counts its steps from the start.

        The release multiplies terms of later phases by 0 where they are left out here. Their parameters then have
        gradients of 0 and not None, so that Adam corrects its running means for steps in which nothing was learnt.
        """
        late = [*self.network.decoder.parameters(), *self.projection.parameters()]
        return torch.stack([parameter.sum() for parameter in late]).sum()

    @torch.no_grad()
    def _present(self, batch: Batch, tokens: Tokens) -> Present:
        """Multi-scale CAMs of the present classes, from both classifiers; the student's own forward is reused."""
        channels, label_ids = present_tags(batch.tags, batch.most_tags)

        def forward(images: Tensor) -> tuple[Tensor, ...]:
            own = channels.repeat(len(images) // len(channels), 1)
            return tuple(take_channels(maps, own) for maps in self.network.maps(self.network.backbone(images)))

        plain = tuple(take_channels(maps, channels) for maps in self.network.maps(tokens))
        last, aux = multiscale_cams(forward, batch.images, self.config.scales, plain)
        return Present(channels, label_ids, last.float(), aux.float())

    def _token_contrast(self, batch: Batch, tokens: Tokens, present: Present) -> Tensor:
        """Contrast of the patch tokens by the auxiliary CAM's labels at token resolution."""
        grid = tokens.patches.shape[-2:]
        boxes = batch.boxes
        if "ptc_box" not in self.config.quirks:
            height, width = batch.images.shape[-2:]
            boxes = torch.cat([boxes[:, :2] * (grid[0] / height), boxes[:, 2:] * (grid[1] / width)], dim=1)
            boxes = boxes.round().long()
        labels = to_labels(enlarge(present.aux, grid), boxes=boxes, **self._labelling(present))
        return patch_token_contrast(tokens.patches.float(), labels)

    def _segmentation(
        self, batch: Batch, tokens: Tokens, present: Present, step: int
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of the decoder's cross-entropy and of its dense energy."""
        config = self.config
        cams = present.last if step >= config.pseudo_mask_last_from else present.aux
        masks = refined_pseudo_masks(
            self.network.backbone, batch, cams, present.label_ids, config.pseudo_mask, self.background
        )
        logits = enlarge(self.network.decode(tokens), batch.images.shape[-2:])
        terms = {"seg": (config.seg_weight, segmentation_loss(logits, masks, self.background))}
        if config.reg_weight > 0:
            pixels = self.network.backbone.pixels(batch.images)
            energy = dense_energy(pixels, logits.float(), masks, batch.boxes, weight=ENERGY_WEIGHT)
            terms["reg"] = config.reg_weight, energy
        return terms

    def _separate_and_conquer(self, batch: Batch, tokens: Tokens, present: Present, step: int) -> tuple[Tensor, Tensor]:
        """Local and global contrast of this step's patches and global views.

        Source: SeCo (CVPR 2024), sections 3.2 and 3.3.
        """
        config = self.config
        assert batch.weak is not None
        # Separate: cut patches around uncertain pixels, and tag each with the one class in it.
        cams = present.last if step >= config.region_last_from else present.aux
        regions = region_map(cams, boxes=batch.boxes, **self._labelling(present))
        corners = draw_corners(regions, config.patches, config.patch_size, self._noise(regions, step))
        by_map = "single_class" in config.quirks
        tags = tag_views(
            regions,
            corners,
            config.patch_size,
            config.patch_area,
            only_class(regions.flatten(1)).clamp(min=0) if by_map else _only_tag(batch, 0),
            count_ids="patch_area" in config.quirks,
            empty_tag=1 if "view_tag" in config.quirks else MIXED,
            background=self.background,
        ).flatten()
        # Embed: the student sees both global views and the patches; the teacher sees the patches of the strong view.
        other = self.network.backbone(batch.weak).class_token
        patches = cut_patches(batch.images, corners, config.patch_size)
        student = self._view_rows(tokens.class_token, other, self.network.backbone(patches).class_token)
        queries = self.projection(student).float()
        keys = self._keys(batch, tokens.class_token, other, corners)
        # Queue the keys of all processes. The columns hold this step's keys twice, once as queued, as in the release.
        all_keys, all_tags = gather_rows(keys), gather_rows(tags)
        self._enqueue(all_keys, all_tags)
        columns = torch.cat([all_keys, self.queue]), torch.cat([all_tags, self.queue_tags])
        return self._contrasts(queries, tags, columns)

    def _contrasts(self, queries: Tensor, tags: Tensor, columns: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Conquer: contrast by tag, first locally; what that finds mistagged does not go to the prototypes."""
        config, processes = self.config, world()[1]
        alone = config.contrast_groups > 1
        parts = max(1, config.contrast_groups // processes)
        losses: list[tuple[Tensor, Tensor]] = []
        for own, own_tags in zip(queries.chunk(parts), tags.chunk(parts), strict=True):
            lil, revised = local_contrast(
                own, own_tags, *columns, temperature=config.lil_temperature, form=config.lil_form, alone=alone
            )
            lig = global_contrast(own, revised, self.prototypes, temperature=config.lig_temperature, alone=alone)
            losses.append((lil, lig))
        local, global_ = zip(*losses, strict=True)
        return torch.stack(local).mean(), torch.stack(global_).mean()

    def _keys(self, batch: Batch, first: Tensor, second: Tensor, corners: Tensor) -> Tensor:
        """The teacher on its patches, and its head on the student's global class tokens; constants."""
        assert batch.strong is not None
        assert batch.strong_flipped is not None
        if "strong_flip" not in self.config.quirks:
            # In a flipped view a place lies as far from the right as it lay from the left.
            flipped = batch.strong.shape[-1] - self.config.patch_size - corners[..., 1]
            left = torch.where(batch.strong_flipped[:, None], flipped, corners[..., 1])
            corners = torch.stack([corners[..., 0], left], dim=-1)
        with torch.no_grad():
            patches = cut_patches(batch.strong, corners, self.config.patch_size)
            local = self.teacher["backbone"](patches).class_token
            return self.teacher["projection"](self._view_rows(first, second, local)).float()

    def _view_rows(self, first: Tensor, second: Tensor, patches: Tensor) -> Tensor:
        """Class tokens (B, D), (B, D), (B*n, D) as rows (B*(n+2), D), all of an image together."""
        local = patches.view(len(first), self.config.patches, -1)
        return torch.cat([first[:, None], second[:, None], local], dim=1).flatten(0, 1)

    @torch.no_grad()
    def _move_teacher(self) -> None:
        pairs = (
            (self.teacher["backbone"], self.network.backbone),
            (self.teacher["projection"], self.projection),
        )
        slow = [parameter for old, _ in pairs for parameter in old.parameters()]
        fast = [parameter for _, new in pairs for parameter in new.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - self.config.teacher_momentum)  # pyright: ignore

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, tags: Tensor) -> None:
        """Write the newest keys over the oldest; the ring wraps at any number of rows."""
        size = len(self.queue)
        keys, tags = keys[-size:].detach(), tags[-size:]
        places = (self.queue_position + torch.arange(len(keys), device=keys.device)) % size
        self.queue.index_copy_(0, places, keys.to(self.queue))
        self.queue_tags.index_copy_(0, places, tags)
        self.queue_position.add_(len(keys)).remainder_(size)

    def _noise(self, regions: Tensor, step: int) -> Tensor:
        """Uniform noise (B, H, W) that depends on step and place in the whole batch, not on the number of processes."""
        rank, processes = world()
        generator = torch.Generator(regions.device)
        generator.manual_seed(0 if "reseed" in self.config.quirks else self.draw_seed + step)
        shape = (processes * len(regions), *regions.shape[1:])
        noise = torch.rand(shape, generator=generator, device=regions.device)
        return noise[rank * len(regions) : (rank + 1) * len(regions)]

    def _labelling(self, present: Present) -> dict[str, Any]:
        """What `to_labels` and `region_map` need beside the CAMs."""
        pseudo = self.config.pseudo_mask
        return {
            "tags": (present.label_ids > 0).to(present.last),
            "ids": present.label_ids,
            "low": pseudo.low,
            "high": pseudo.high,
            "background": self.background,
        }


def _only_tag(batch: Batch, other: int) -> Tensor:
    """Label id (B,) of an image's tag where it is known to bear exactly one, else `other`."""
    one = (batch.tags.sum(dim=1) == 1) & (batch.known > 0).all(dim=1)
    return torch.where(one, batch.tags.argmax(dim=1) + 1, other)
