"""SeCo's patches (CVPR 2024, section 3.2): where they are cut, and which single tag each of them bears."""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.methods.seco_losses import MIXED
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import UNCERTAIN

GLOBAL_VIEWS = 2
"""The whole-image views beside the patches: the training image and its weak view."""


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
    """Cut patches (B*n, 3, size, size) out of images (B, 3, H, W) at corners (B, n, 2)."""
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
    """Give each image's two global views and its patches the one tag that the region map shows in them.

    Args:
        regions: (B, H, W) region map: 0 background, 1..K, -1 uncertain, 255 outside.
        corners: (B, n, 2) top and left of the patches.
        size: their side in pixels.
        area: occupied fraction at or under which a patch is background.
        single: (B,) label id of an image's only tag, 0 where it has several or none; its uncertain pixels count as it.
        count_ids: sum class ids where pixels are meant, as the release does (quirk `patch_area`).
        empty_tag: the tag of global views whose region map holds no class.
        background: whether background is a tag; where not, such patches are mixed.

    Returns:
        (B, 2 + n) int64: 1..K, 0 background, -1 mixed.

    Source: SeCo (CVPR 2024), section 3.2.
    """
    patches = _windows(regions[:, None], corners, size)[..., 0].flatten(2)
    uncertain = patches == UNCERTAIN
    weight = (patches > 0) & (patches != IGNORE)
    # The area is counted before uncertain pixels are filled: each of them counts as one pixel, whatever its id will be.
    weight = (torch.where(weight, patches, 0) if count_ids else weight.long()) + uncertain
    only = only_class(torch.where(uncertain & (single > 0)[:, None, None], single[:, None, None], patches))
    occupied = weight.sum(dim=-1) / size**2
    local = torch.where(occupied <= area, 0 if background else MIXED, torch.where(only > 0, only, MIXED))
    whole = only_class(regions.flatten(1))
    whole = torch.where(whole > 0, whole, torch.where(whole == 0, empty_tag, MIXED))
    return torch.cat([whole[:, None].expand(-1, GLOBAL_VIEWS), local], dim=1)


def only_class(pixels: Tensor) -> Tensor:
    """Find the one class among the label ids in the last dimension: its id, 0 if there is none, -1 if several."""
    is_class = (pixels > 0) & (pixels != IGNORE)
    largest = torch.where(is_class, pixels, 0).amax(dim=-1)
    smallest = torch.where(is_class, pixels, largest[..., None]).amin(dim=-1)
    return torch.where(largest == 0, 0, torch.where(largest == smallest, largest, MIXED))


def _windows(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Windows (B, n, size, size, C) of images (B, C, H, W) at corners (B, n, 2)."""
    steps = torch.arange(size, device=images.device)
    rows = corners[..., 0, None, None] + steps[:, None]
    columns = corners[..., 1, None, None] + steps
    index = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[index, rows, columns]
