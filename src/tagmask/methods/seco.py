"""SeCo, "Separate and Conquer" (CVPR 2024): cut co-occurring objects apart, then contrast them by tag.

Separate: small patches around uncertain CAM pixels, each tagged with the one class that stands in it. Conquer: patch
embeddings are contrasted with a queue of a slowly moving teacher's (LIL) and with one prototype a class (LIG).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.methods.base import Method, classification_loss, enlarge, refined_pseudo_masks, segmentation_loss
from tagmask.methods.seco_losses import MIXED, global_contrast, local_contrast, move_prototypes, patch_token_contrast
from tagmask.models.backbone import Backbone, Tokens
from tagmask.models.decoders import ProjectionHead
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.distributed import gather_rows, world
from tagmask.ops.energy import dense_energy
from tagmask.ops.labels import IGNORE, UNCERTAIN, present_tags, region_map, take_channels, to_labels
from tagmask.recipes.load import SecoConfig

GLOBAL_VIEWS = 2


class Present(NamedTuple):
    """CAMs of the classes an image bears: channels (B, T) of K, label ids (B, T), CAMs (B, T, H, W) of both heads."""

    channels: Tensor
    ids: Tensor
    last: Tensor
    aux: Tensor


class Seco(Method):
    """SeCo, single-stage. State: local teacher, queue with tags and write position, prototypes."""

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

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One step of the paper's schedule; terms whose phase has not begun are not computed."""
        config = self.config
        self._move_teacher()
        outputs = self.network(batch.images)
        tokens = outputs.tokens
        terms = {
            "cls": (1.0, classification_loss(outputs.logits, batch.tags, batch.known)),
            "cls_aux": (1.0, classification_loss(outputs.aux_logits, batch.tags, batch.known)),
        }
        if step >= config.prototypes_from:
            only = _only_tag(batch, MIXED)
            self.prototypes.copy_(
                move_prototypes(self.prototypes, tokens.class_token.float(), only, config.prototype_momentum)
            )
        if step >= min(config.ptc_from, self._contrast_fills_from(len(batch.images)), config.decoder_from):
            present = self._present(batch, tokens)
            if step >= config.ptc_from:
                terms["ptc"] = config.ptc_weight, self._token_contrast(batch, tokens, present)
            if step >= self._contrast_fills_from(len(batch.images)):
                lil, lig = self._separate_and_conquer(batch, tokens, present, step)
                if step >= config.contrast_from:
                    terms |= {"lil": (config.lil_weight, lil), "lig": (config.lig_weight, lig)}
            if step >= config.decoder_from:
                terms |= self._segmentation(batch, tokens, present, step)
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return {"loss": loss, **{name: value for name, (_, value) in terms.items()}}

    def _contrast_fills_from(self, images: int) -> int:
        """The step from which keys are queued: early enough that no other entry is left when the contrast begins."""
        rows = images * world()[1] * (self.config.patches + GLOBAL_VIEWS)
        return self.config.contrast_from - -(-self.config.queue // rows) - 1

    @torch.no_grad()
    def _present(self, batch: Batch, tokens: Tokens) -> Present:
        """Multi-scale CAMs of the present classes, from both classifiers; the student's own forward is reused."""
        channels, ids = present_tags(batch.tags, batch.most_tags)

        def forward(images: Tensor) -> tuple[Tensor, ...]:
            own = channels.repeat(len(images) // len(channels), 1)
            return tuple(take_channels(maps, own) for maps in self.network.maps(self.network.backbone(images)))

        plain = tuple(take_channels(maps, channels) for maps in self.network.maps(tokens))
        last, aux = multiscale_cams(forward, batch.images, self.config.scales, plain)
        return Present(channels, ids, last.float(), aux.float())

    def _token_contrast(self, batch: Batch, tokens: Tokens, present: Present) -> Tensor:
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
        config = self.config
        cams = present.last if step >= config.pseudo_mask_last_from else present.aux
        masks = refined_pseudo_masks(
            self.network.backbone, batch, cams, present.ids, config.pseudo_mask, self.background
        )
        logits = enlarge(self.network.decoder(tokens.patches), batch.images.shape[-2:])
        terms = {"seg": (config.seg_weight, segmentation_loss(logits, masks, self.background))}
        if config.reg_weight > 0:
            pixels = self.network.backbone.pixels(batch.images)
            energy = dense_energy(pixels, logits.float(), masks, batch.boxes, weight=config.energy_weight)
            terms["reg"] = config.reg_weight, energy
        return terms

    def _separate_and_conquer(self, batch: Batch, tokens: Tokens, present: Present, step: int) -> tuple[Tensor, Tensor]:
        """Local and global contrast of this step's patches and global views (steps 5 to 10 of the paper's scheme)."""
        config = self.config
        assert batch.weak is not None
        cams = present.last if step >= config.region_last_from else present.aux
        regions = region_map(cams, boxes=batch.boxes, **self._labelling(present))
        corners = draw_corners(regions, config.patches, config.patch_size, self._noise(regions, step))
        by_map = "single_class" in config.quirks
        single = _only_class(regions.flatten(1)).clamp(min=0) if by_map else _only_tag(batch, 0)
        tags = tag_views(
            regions,
            corners,
            config.patch_size,
            config.patch_area,
            single,
            count_ids="patch_area" in config.quirks,
            empty_tag=1 if "view_tag" in config.quirks else MIXED,
            background=self.background,
        ).flatten()
        other = self.network.backbone(batch.weak).class_token
        patches = cut_patches(batch.images, corners, config.patch_size)
        student = self._view_rows(tokens.class_token, other, self.network.backbone(patches).class_token)
        queries = self.projection(student).float()
        keys = self._keys(batch, tokens.class_token, other, corners)
        all_keys, all_tags = gather_rows(keys), gather_rows(tags)
        self._enqueue(all_keys, all_tags)
        columns = torch.cat([all_keys, self.queue]), torch.cat([all_tags, self.queue_tags])
        lil, revised = local_contrast(queries, tags, *columns, temperature=config.lil_temperature, form=config.lil_form)
        return lil, global_contrast(queries, revised, self.prototypes, temperature=config.lig_temperature)

    def _keys(self, batch: Batch, first: Tensor, second: Tensor, corners: Tensor) -> Tensor:
        """The teacher on its patches, and its head on the student's global class tokens; constants."""
        assert batch.strong is not None
        assert batch.strong_flipped is not None
        if "strong_flip" not in self.config.quirks:
            # A mirrored view has the place it was asked for at the other side.
            mirrored = batch.strong.shape[-1] - self.config.patch_size - corners[..., 1]
            left = torch.where(batch.strong_flipped[:, None], mirrored, corners[..., 1])
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
            "tags": (present.ids > 0).to(present.last),
            "ids": present.ids,
            "low": pseudo.low,
            "high": pseudo.high,
            "background": self.background,
        }


def draw_corners(regions: Tensor, patches: Tensor | int, size: int, noise: Tensor) -> Tensor:
    """Draw patches centred on uncertain pixels, or anywhere where an image has too few of them.

    Args:
        regions: (B, H, W) region map.
        patches: n, how many an image.
        size: side of a patch in pixels; centres keep half of it from the border.
        noise: (B, H, W) uniform in [0, 1).

    Returns:
        (B, n, 2) int64 top and left of the patches.

    Source: SeCo (CVPR 2024), section 3.2.
    """
    half = size // 2
    height, width = regions.shape[-2:]
    inner = slice(half, height - size + half + 1), slice(half, width - size + half + 1)
    uncertain = (regions[:, inner[0], inner[1]] == UNCERTAIN).flatten(1)
    enough = uncertain.sum(dim=1, keepdim=True) >= patches
    chosen = noise[:, inner[0], inner[1]].flatten(1) + (uncertain & enough)
    places = chosen.topk(int(patches), dim=1).indices
    columns = width - size + 1
    return torch.stack([places // columns, places % columns], dim=-1)


def cut_patches(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Patches (B*n, 3, size, size) of images (B, 3, H, W) at corners (B, n, 2)."""
    patches = _windows(images, corners, size)
    return patches.movedim(-1, 2).flatten(0, 1)


def tag_views(
    regions: Tensor,
    corners: Tensor,
    size: int,
    area: float,
    single: Tensor,
    *,
    count_ids: bool = False,
    empty_tag: int = MIXED,
    background: bool = True,
) -> Tensor:
    """Tags of the two global views and of the patches of each image.

    Args:
        regions: (B, H, W) region map: 0 background, 1..K, -1 uncertain, 255 outside.
        corners: (B, n, 2) top and left of the patches.
        size: their side in pixels.
        area: occupied share at or under which a patch is background.
        single: (B,) label id of an image's only tag, 0 where it has several or none; its uncertain pixels count as it.
        count_ids: the reference's accident of summing class ids where pixels are meant.
        empty_tag: of global views whose region map holds no class.
        background: whether background is a tag; where not, such patches are mixed.

    Returns:
        (B, 2 + n) int64: 1..K, 0 background, -1 mixed.

    Source: SeCo (CVPR 2024), section 3.2.
    """
    patches = _windows(regions[:, None], corners, size)[..., 0].flatten(2)
    uncertain = patches == UNCERTAIN
    weight = (patches > 0) & (patches != IGNORE)
    # Before the fill, so that ids are counted of no uncertain pixel.
    weight = (torch.where(weight, patches, 0) if count_ids else weight.long()) + uncertain
    only = _only_class(torch.where(uncertain & (single > 0)[:, None, None], single[:, None, None], patches))
    occupied = weight.sum(dim=-1) / size**2
    local = torch.where(occupied <= area, 0 if background else MIXED, torch.where(only > 0, only, MIXED))
    whole = _only_class(regions.flatten(1))
    whole = torch.where(whole > 0, whole, torch.where(whole == 0, empty_tag, MIXED))
    return torch.cat([whole[:, None].expand(-1, GLOBAL_VIEWS), local], dim=1)


def _only_tag(batch: Batch, other: int) -> Tensor:
    """(B,) label id of an image's tag where it is known to bear exactly one, else `other`."""
    one = (batch.tags.sum(dim=1) == 1) & (batch.known > 0).all(dim=1)
    return torch.where(one, batch.tags.argmax(dim=1) + 1, other)


def _only_class(pixels: Tensor) -> Tensor:
    """Over the last dimension: the class id if exactly one occurs, 0 if none, -1 if several."""
    is_class = (pixels > 0) & (pixels != IGNORE)
    largest = torch.where(is_class, pixels, 0).amax(dim=-1)
    smallest = torch.where(is_class, pixels, IGNORE).amin(dim=-1)
    return torch.where(largest == 0, 0, torch.where(largest == smallest, largest, MIXED))


def _windows(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """(B, n, size, size, C) windows of (B, C, H, W) at (B, n, 2)."""
    steps = torch.arange(size, device=images.device)
    rows = corners[..., 0, None, None] + steps[:, None]
    columns = corners[..., 1, None, None] + steps
    index = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[index, rows, columns]
