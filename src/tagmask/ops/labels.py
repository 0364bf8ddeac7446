"""From CAMs to label maps: which maps to carry, what they compete with, and the thresholds between them.

A training step carries only the maps of tags that are present (`present_tags`), so that its cost grows with the tags of
an image, not with the classes of the data set. `ids` (B, T) then are the label ids of the T maps of each image, 0 for a
map that stands for nothing. By default there is a map for each class, and the ids are 1..K.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.label_ids import IGNORE
from tagmask.ops.resize import resize

UNCERTAIN = -1  # of regions between the thresholds, which contrasts mix in
LEAST_SHARE = 1e-3  # of a CAM, for a class told apart: not 0, so that a class that an image bears stays in the contest
NO_BACKGROUND_SHARPNESS = 10  # of the softmax over CAMs that have no background to win against


def present_tags(tags: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Find the classes that each image bears.

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


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Mark the inside of boxes (B, 4), top, bottom, left, right in pixels of the grid: (B, height, width) bool."""
    rows = torch.arange(height, device=boxes.device)[:, None]
    columns = torch.arange(width, device=boxes.device)
    top, bottom, left, right = boxes[:, :, None, None].unbind(1)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


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


def beside_context(cams: Tensor, context: Tensor) -> Tensor:
    """Set CAMs (K, h, w) to 0 where one of the context classes' CAMs (n, h, w) is higher."""
    if not len(context):
        return cams
    return torch.where(cams >= context.amax(dim=0), cams, 0.0)


def yielded(cams: Tensor, yields: Tensor) -> Tensor:
    """Weaken the CAM of a class where that of a class that it comes along with is strong.

    Args:
        cams: (n, H, W) in [0, 1].
        yields: (n, n) bool, whether the class of a row comes along with that of a column, as the road does with cars.

    Returns:
        (n, H, W) in [0, 1]: times 1 - c, of the highest c of the classes that each comes along with.
    """
    # Row by row: all pairs of planes at once would find no room where an image bears many classes.
    return torch.stack(
        [cam * (1 - cams[row].amax(dim=0)) if row.any() else cam for cam, row in zip(cams, yields, strict=True)]
    )


def told_apart(cams: Tensor, second: Tensor) -> Tensor:
    """Give the higher of two classes' CAMs at each pixel to one of them, and nearly nothing to the other.

    Args:
        cams: (2, H, W) in [0, 1].
        second: (H, W) in [0, 1], how far a pixel belongs to the second class.

    Returns:
        (2, H, W): at most `LEAST_SHARE` of the higher CAM goes to a class that a pixel does not belong to at all; half
        way between both get all of it.
    """
    shares = torch.stack([1 - second, second]).clamp(min=LEAST_SHARE)
    return cams.amax(dim=0) * shares / shares.amax(dim=0)


def winners(planes: Tensor, dim: int) -> Tensor:
    """Give the index of the highest plane along `dim`, the first of equal ones.

    It is `argmax`, which takes ten times as long on a CPU where the planes are not what lies side by side in memory.
    """
    return planes.max(dim=dim).indices


def weighed_by_tags(logits: Tensor, weights: Tensor, *, background: bool = True, views: int = 1) -> Tensor:
    """Weigh the classes' scores by what is known of an image's tags; the background keeps its probability.

    A dog that looks half like a cat is no ground. So where *cat* is improbable, what a pixel has of it goes to the
    classes that are probable, in proportion to their own, and not to the background.

    Args:
        logits: (C, h, w), summed over `views`; plane 0 is background, where there is one.
        weights: (K,) logarithms of the tags' probabilities; not all are minus infinity.
        background: whether label 0 exists; where not, plane c is label c + 1.
        views: of the image that the logits are summed over.

    Returns:
        (C, h, w) logits, summed as they were.
    """
    first = int(background)
    things = logits[first:] / views
    weighed = things + weights[:, None, None]
    kept = things.logsumexp(dim=0) - weighed.logsumexp(dim=0)
    return torch.cat([logits[:first], (weighed + kept) * views])


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
    """Turn CAMs into region maps: as `to_labels`, but what lies between the thresholds is UNCERTAIN (-1), not ignored.

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
    """Make training masks for a decoder from CAMs: what a high and a low background score agree on after refinement.

    At half the CAMs' size, softmax scores over the present tags and a constant background are refined by their
    neighbours. A pixel gets a class where the class beats the high background score, and background where even the low
    one beats every class. It is ignored otherwise, and outside the box.

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
    half = resize(cams, (height // 2, width // 2))
    absent = (tags <= 0)[:, :, None, None]
    logits = half.masked_fill(absent, -torch.inf)
    ids = _default_ids(cams) if ids is None else ids
    if not background:
        # The differences of CAMs have to decide alone. An image without tags has a softmax over nothing, which is NaN.
        scores = (logits * NO_BACKGROUND_SHARPNESS).softmax(dim=1).nan_to_num(0.0)
        fraction, best = resize(refine(scores), (height, width)).max(dim=1)
        labels = torch.where(fraction > high, _ids_of(best, ids), IGNORE)
    else:
        # Both backgrounds are refined at once, as two sets of planes.
        planes = [
            torch.cat([torch.full_like(half[:, :1], score), logits], dim=1).softmax(dim=1) for score in (high, low)
        ]
        refined = resize(refine(torch.cat(planes, dim=1)), (height, width))
        all_ids = F.pad(ids, (1, 0))
        sure, lenient = (_ids_of(winners(part, 1), all_ids) for part in refined.chunk(2, dim=1))
        labels = torch.where(sure > 0, sure, torch.where(lenient == 0, 0, IGNORE))
    return torch.where(inside_boxes(boxes, height, width), labels, IGNORE)


def _best(cams: Tensor, tags: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give the label id of the strongest present map at each pixel, and its strength."""
    strength, best = (cams * tags[:, :, None, None]).max(dim=1)
    return _ids_of(best, _default_ids(cams) if ids is None else ids), strength


def _default_ids(cams: Tensor) -> Tensor:
    """Give the ids 1..K to the maps of each image."""
    return torch.arange(1, cams.shape[1] + 1, device=cams.device).expand(len(cams), -1)


def _ids_of(channels: Tensor, ids: Tensor) -> Tensor:
    """Look up the label ids of channels (B, H, W) in each image's ids (B, T)."""
    return ids.gather(1, channels.flatten(1)).view_as(channels)
