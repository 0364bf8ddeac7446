"""CAMs to label maps: thresholds, boxes, with and without background.

Everywhere: `ids` (B, T) are the label ids of the T maps of each image, 0 for a map that stands for nothing; by default
1..K. A training step carries only the maps of present tags (`present_tags`), so cost grows with tags, not classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.label_ids import IGNORE

UNCERTAIN = -1


def present_tags(tags: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Where the present classes are.

    Args:
        tags: (B, K) 0/1.
        most: the largest number of tags of an image of the batch.

    Returns:
        `channels` (B, T) int64 indices into K, present ones first in ascending order, T = min(most, K); and
        `ids` (B, T) int64 = channel + 1, or 0 where the image has fewer tags.
    """
    order = (1 - tags).argsort(dim=1, stable=True)[:, : max(most, 1)]
    return order, (order + 1) * (tags.gather(1, order) > 0)


def take_channels(maps: Tensor, channels: Tensor) -> Tensor:
    """Pick maps (B, T, h, w) of (B, K, h, w) by `channels` (B, T)."""
    return maps.gather(1, channels[:, :, None, None].expand(-1, -1, *maps.shape[-2:]))


def beside_context(cams: Tensor, context: Tensor) -> Tensor:
    """CAMs (K, h, w) with 0 where one of the context's (n, h, w) is higher; there the surroundings are seen."""
    if not len(context):
        return cams
    return torch.where(cams >= context.amax(dim=0), cams, 0.0)


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, height, width) bool, True inside boxes (B, 4) of top, bottom, left, right in pixels of that grid."""
    rows = torch.arange(height, device=boxes.device)[:, None]
    columns = torch.arange(width, device=boxes.device)
    top, bottom, left, right = boxes[:, :, None, None].unbind(1)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def to_labels(
    cams: Tensor,
    tags: Tensor,
    *,
    low: float,
    high: float,
    boxes: Tensor | None = None,
    ids: Tensor | None = None,
    background: bool = True,
) -> Tensor:
    """Turn CAMs into label maps with an ignored band between two thresholds.

    Args:
        cams: (B, T, H, W) activation in [0, 1].
        tags: (B, T) 1 where the image bears the map's class.
        low, high: at or below `low` a pixel is background, above `high` its best tag; ignored between. Equal: no band.
        boxes: (B, 4) top, bottom, left, right of the unpadded image, in pixels of the maps; ignored outside.
        ids: (B, T) label ids of the maps.
        background: where False, a pixel at or below `high` is ignored: there is no background to be.

    Returns:
        (B, H, W) int64 label map: 0 background, 1..K, 255 ignore.

    Source: SeCo (CVPR 2024), section 3.2.
    """
    labels, strength = _best(cams, tags, ids)
    labels = torch.where(strength > high, labels, IGNORE)
    if background:
        labels = torch.where(strength <= low, 0, labels)
    return labels if boxes is None else torch.where(inside_boxes(boxes, *labels.shape[-2:]), labels, IGNORE)


def region_map(
    cams: Tensor,
    tags: Tensor,
    *,
    low: float,
    high: float,
    boxes: Tensor,
    ids: Tensor | None = None,
    background: bool = True,
) -> Tensor:
    """As `to_labels`, but what lies between the thresholds is UNCERTAIN (-1), not ignored.

    Source: SeCo (CVPR 2024), section 3.2, and its released code.
    """
    labels, strength = _best(cams, tags, ids)
    labels = torch.where(strength > high, labels, UNCERTAIN)
    if background:
        labels = torch.where(strength <= low, 0, labels)
    return torch.where(inside_boxes(boxes, *labels.shape[-2:]), labels, IGNORE)


def pseudo_masks(
    cams: Tensor,
    tags: Tensor,
    *,
    high: float,
    low: float,
    boxes: Tensor,
    refine: Callable[[Tensor], Tensor],
    ids: Tensor | None = None,
    background: bool = True,
) -> Tensor:
    """Training masks for a decoder from CAMs: two background scores, refinement, and what both agree on.

    At half the CAMs' size, softmax scores over the present tags and a constant background are refined by their
    neighbours; a pixel bears its class where class beats the high background score, is background where even the low
    one beats every class, and is ignored otherwise and outside the box.

    Args:
        cams: (B, T, H, W) in [0, 1].
        tags: (B, T) 1 where the image bears the map's class.
        high, low: the two background scores.
        boxes: (B, 4) of the unpadded image, in pixels.
        refine: scores (B, C, H/2, W/2) to refined scores of the same shape, such as PAR on the images at that size.
        ids: (B, T) label ids of the maps.
        background: where False, tags compete without background and a pixel is ignored where its best tag has less
            than `high` of the refined score mass.

    Returns:
        (B, H, W) int64 label map: 0 background, 1..K, 255 ignore.

    Source: SeCo (CVPR 2024), section 3.2; the scheme is AFA's (CVPR 2022).
    """
    height, width = cams.shape[-2:]
    half = F.interpolate(cams, size=(height // 2, width // 2), mode="bilinear", align_corners=False)
    absent = (tags <= 0)[:, :, None, None]
    logits = half.masked_fill(absent, -torch.inf)
    ids = _default_ids(cams) if ids is None else ids
    if not background:
        # A sharper softmax: without a background to win against, differences of CAMs must decide alone.
        refined = _enlarge(refine((logits * 10).softmax(dim=1).nan_to_num(0.0)), height, width)
        share, best = refined.max(dim=1)
        labels = torch.where(share > high, _ids_of(best, ids), IGNORE)
    else:
        planes = [
            torch.cat([torch.full_like(half[:, :1], score), logits], dim=1).softmax(dim=1) for score in (high, low)
        ]
        refined = _enlarge(refine(torch.cat(planes, dim=1)), height, width)
        with_background = F.pad(ids, (1, 0))
        sure, lenient = (_ids_of(part.argmax(dim=1), with_background) for part in refined.chunk(2, dim=1))
        labels = torch.where(sure > 0, sure, torch.where(lenient == 0, 0, IGNORE))
    return torch.where(inside_boxes(boxes, height, width), labels, IGNORE)


def _best(cams: Tensor, tags: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Label id of the strongest present map at each pixel, and its strength."""
    strength, best = (cams * tags[:, :, None, None]).max(dim=1)
    return _ids_of(best, _default_ids(cams) if ids is None else ids), strength


def _default_ids(cams: Tensor) -> Tensor:
    return torch.arange(1, cams.shape[1] + 1, device=cams.device).expand(len(cams), -1)


def _ids_of(channels: Tensor, ids: Tensor) -> Tensor:
    return ids.gather(1, channels.flatten(1)).view_as(channels)


def _enlarge(scores: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)


def with_background(cams: Tensor, power: float) -> Tensor:
    """Put the background score `(1 - highest CAM) ** power` before the CAMs of one image.

    Args:
        cams: (n, H, W) in [0, 1] of the classes the image bears; n may be 0.
        power: the papers' alpha; the larger, the weaker the background.

    Returns:
        (n + 1, H, W) scores in [0, 1], plane 0 background; they do not sum to 1.

    Source: PSA (CVPR 2018), section 3.1.
    """
    if not len(cams):
        return cams.new_ones(1, *cams.shape[1:])
    return torch.cat([(1 - cams.amax(dim=0, keepdim=True)) ** power, cams])
