"""Images too large for one forward: overlapping tiles, each labelled like an image of its own, blended where they meet.

No more is held in memory than the tiles of one row with their scores, and the label map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.rasters import Raster
from tagmask.ops.resize import resize

OVERLAP = 1 / 4
"""How far neighbouring tiles overlap, as a fraction of their side."""
MARGIN = 1 / 4
"""The outer part of an overlap that does not count: there a network sees the end of the tile, not of the image."""
STRIDE = 32
"""Tiles begin at multiples of this, so that a network's grid of features lies the same in all of them."""
PIECE = 64  # rows whose winners are looked for at once

Score = Callable[[Sequence[Image.Image]], list[Tensor]]
"""Scores tiles of one size: for each the planes (n, h, w) of the labels that may win, at any resolution."""


@dataclass(frozen=True)
class Labelled:
    """What tiles make of an image.

    Attributes:
        labels: (H, W) uint8 or, of over 256 planes, uint16, the index of the winning plane.
        planes: (n, h, w) the blended planes made smaller.
        confidence: the mean over the pixels of the winner's fraction, in 0..1.
    """

    labels: np.ndarray
    planes: Tensor
    confidence: float


def label_tiles(
    raster: Raster, score: Score, *, tile: int, longest: int, batch: int, probabilities: bool = False
) -> Labelled:
    """Label an image tile by tile.

    Args:
        raster: the image.
        score: what labels tiles.
        tile: their side in pixels of the image.
        longest: the most pixels of the longer side of `Labelled.planes`.
        batch: the most tiles of one size that are scored at a time.
        probabilities: whether planes are probabilities already, else logits.
    """
    width, height = raster.size
    # A row of tiles lies along the shorter side, for all of its planes are held.
    upright = width <= height
    along, across = (height, width) if upright else (width, height)
    rows, columns = spans(along, tile), spans(across, tile)
    row_weights, column_weights = weights(rows, along, tile), weights(columns, across, tile)
    labels = np.empty((along, across), np.uint8)  # until it is known how many planes there are
    factor = min(1.0, longest / along)
    reduced, small_across = 0, max(1, round(across * factor))
    small: list[Tensor] = []
    held: Tensor | None = None  # planes of the rows that the tiles before began and did not finish
    confidence = 0.0
    for number, (start, end) in enumerate(rows):
        # Add this row of tiles to what its upper neighbours left.
        band: Tensor | None = None
        for group in _groups(columns, batch):
            spots = [columns[place] for place in group]
            boxes = [(left, start, right, end) if upright else (start, left, end, right) for left, right in spots]
            scored = score([raster.read(box) for box in boxes])
            for place, (left, right), planes in zip(group, spots, scored, strict=True):
                turned = planes if upright else planes.transpose(-1, -2)
                enlarged = resize(turned[None].float(), (end - start, right - left))[0]
                if band is None:
                    band = enlarged.new_zeros(len(enlarged), end - start, across)
                weight = row_weights[number][:, None] * column_weights[place]
                band[:, :, left:right] += enlarged * weight.to(enlarged.device)
        assert band is not None
        if number == 0 and len(band) > 256:
            labels = labels.astype(np.uint16)
        if held is not None:
            band[:, : held.shape[1]] += held
        # Rows that no later tile touches are done.
        done = rows[number + 1][0] - start if number + 1 < len(rows) else end - start
        finished, held = band[:, :done], band[:, done:].clone()
        narrow = torch.uint8 if labels.dtype == np.uint8 else torch.int32  # so that little is copied from the device
        for piece in range(0, done, PIECE):
            own = finished[:, piece : piece + PIECE]
            best, index = own.max(dim=0)
            labels[start + piece : start + piece + own.shape[1]] = index.to(narrow).cpu().numpy()
            confidence += float((best if probabilities else own.softmax(dim=0).amax(dim=0)).double().sum())
        until = max(1, round((start + done) * factor))
        if until > reduced:
            small.append(F.adaptive_avg_pool2d(finished, (until - reduced, small_across)).cpu())
            reduced = until
    planes = torch.cat(small, dim=1)
    if not upright:
        labels, planes = np.ascontiguousarray(labels.T), planes.transpose(-1, -2)
    return Labelled(labels, planes, confidence / labels.size)


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut a side into overlapping parts of `tile` pixels, as (start, end); the last may be a little shorter."""
    if length <= tile:
        return [(0, length)]
    step = max(STRIDE, int(tile * (1 - OVERLAP)) // STRIDE * STRIDE)
    last = -(-(length - tile) // STRIDE) * STRIDE
    starts = [*range(0, last, step), last]
    return [(start, min(length, start + tile)) for start in starts]


def weights(parts: Sequence[tuple[int, int]], length: int, tile: int) -> list[Tensor]:
    """Say how much each part counts at each of its pixels; over all parts these are 1 at every pixel.

    A part counts from zero, a margin away from its ends, to its full weight where the overlap ends; at the ends of the
    image it counts fully.
    """
    overlap = tile * OVERLAP
    total = torch.zeros(length, dtype=torch.float64)
    ramps = []
    for start, end in parts:
        places = torch.arange(start, end, dtype=torch.float64) + 0.5
        before = torch.full_like(places, math.inf) if start == 0 else places - start
        behind = torch.full_like(places, math.inf) if end == length else end - places
        inside = (torch.minimum(before, behind) - MARGIN * overlap) / ((1 - 2 * MARGIN) * overlap)
        ramps.append(inside.clamp(1e-6, 1))
        total[start:end] += ramps[-1]
    return [(ramp / total[start:end]).float() for ramp, (start, end) in zip(ramps, parts, strict=True)]


def _groups(parts: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Put neighbours of one length together, so many at most; the last of a row may be shorter."""
    groups: list[list[int]] = []
    for place, (start, end) in enumerate(parts):
        first = parts[groups[-1][0]] if groups else (0, 0)
        if groups and len(groups[-1]) < most and first[1] - first[0] == end - start:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
