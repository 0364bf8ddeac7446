"""Refine a label map around a scribble that says "this is CLASS" or "this is not CLASS"."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from tagmask.errors import TagmaskError
from tagmask.ops.crf import CrfParameters, dense_crf
from tagmask.ops.label_ids import IGNORE

FREE, FIXED, STROKE = 0, 1, 2
"""What a byte of the marks says of its pixel: anything may become of it, it stays, the new scribble runs over it."""
REACH = 1 / 5
"""How far beyond its box a scribble can change the map, as a fraction of the image's longer side."""
MOST_PIXELS = 160 * 160  # that the CRF sees; larger surroundings are scaled down, so that the answer comes at once
CRF = CrfParameters(1, 3, 40, 8, 6, 5)
LIKENESS = 20.0  # grey levels by which a colour may differ from the scribble's
NEARNESS = 1 / 6  # how far a scribble's word carries, as a fraction of the box's longer side
MODEL = 0.5  # weight of the model's probabilities beside those of the map as it stands


def refine_scribble(
    photo: Image.Image,
    labels: np.ndarray,
    marks: np.ndarray,
    label: int,
    *,
    wanted: bool,
    candidates: tuple[int, ...],
    probabilities: np.ndarray | None = None,
) -> np.ndarray:
    """Let a scribble decide on what looks alike and hangs together with it.

    A dense CRF runs on the box around the scribble. Its scores are those of the model and of the map, moved towards
    what the scribble says by nearness and likeness of colour. Only pixels that become `label` ("is") or lose it ("is
    not"), and hang together with the scribble, are changed.

    Args:
        photo: RGB, of the map's size.
        labels: (h, w) uint8 label map; stays as it is.
        marks: (h, w) uint8 of FREE, FIXED and STROKE.
        label: id of the class, or 0 for background.
        wanted: whether the scribble says "this is", else "this is not".
        candidates: ids that may win beside those in the map; never 255.
        probabilities: (K + 1, h', w') of each id at any size; None: of the map alone.

    Returns:
        The new (h, w) uint8 label map.

    Raises:
        TagmaskError: there is no scribble, or no other class that could win.

    Source: dense CRF, Krähenbühl and Koltun, NIPS 2011; scribbles as hard constraints, Boykov and Jolly, ICCV 2001.
    """
    stroke = marks == STROKE
    if not stroke.any():
        raise TagmaskError("there is no scribble: draw a line over what is meant")
    rows, columns, size = _box(stroke)
    part = labels[rows, columns]
    ids = sorted({int(own) for own in np.unique(part) if own != IGNORE} | {label} | set(candidates))
    if not wanted and len(ids) == 1:
        raise TagmaskError("nothing else can be there: say with “is” what it is, or erase it")

    # The box at a size that is refined at once.
    box = (columns.start, rows.start, columns.stop, rows.stop)
    colours = np.asarray(photo.crop(box).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    small, fixed = _rescaled(part, size), _rescaled(marks[rows, columns] == FIXED, size)
    drawn = _touched(stroke[rows, columns], size)

    # What each pixel is, by the map and the model, and by the scribble.
    planes = np.stack([small == own for own in ids]).astype(np.float32)
    planes += np.where(small == IGNORE, 1 / len(ids), 0)
    if probabilities is not None:
        whole = [_cut_out(probabilities[own], labels.shape, box, size) for own in ids]
        planes = (1 - MODEL) * planes + MODEL * np.stack(whole)
    planes = 0.9 * planes + 0.1 / len(ids)
    planes /= planes.sum(axis=0)
    own, likeness = ids.index(label), _likeness(colours, drawn)
    others = [index for index in range(len(ids)) if index != own]
    if wanted:
        planes *= 1 - likeness
        planes[own] += likeness
    else:
        taken = planes[own] * likeness
        planes[others] *= 1 + taken / planes[others].sum(axis=0)
        planes[own] -= taken
    kept = fixed & ~drawn
    planes[:, kept] = np.stack([small[kept] == each for each in ids])

    # The CRF, and what of it counts: this class alone, and only together with the scribble.
    found = dense_crf(torch.from_numpy(colours.copy()), torch.from_numpy(planes), preset=CRF).numpy()
    best = np.full(size, label, np.uint8)
    if not wanted:
        best = np.asarray(ids, np.uint8)[np.asarray(others)[found[others].argmax(axis=0)]]
    line = stroke[rows, columns]
    says = _rescaled((found.argmax(axis=0) == own) == wanted, part.shape) & (marks[rows, columns] != FIXED)
    changed = (says | line) & ((part != label) if wanted else (part == label))
    numbered, _ = ndimage.label(changed | line)  # type: ignore[misc]
    reached = changed & np.isin(numbered, np.unique(numbered[line]))
    result = labels.copy()
    result[rows, columns][reached] = _rescaled(best, part.shape)[reached]
    return result


def _box(stroke: np.ndarray) -> tuple[slice, slice, tuple[int, int]]:
    """Find the rows and columns around a scribble, and the (h, w) at which they are refined."""
    margin = max(16, round(REACH * max(stroke.shape)))
    spans = []
    for axis, side in ((1, stroke.shape[0]), (0, stroke.shape[1])):
        places = np.flatnonzero(stroke.any(axis=axis))
        spans.append(slice(max(0, int(places[0]) - margin), min(side, int(places[-1]) + margin + 1)))
    sides = [span.stop - span.start for span in spans]
    factor = min(1.0, (MOST_PIXELS / (sides[0] * sides[1])) ** 0.5)
    return spans[0], spans[1], (max(1, round(sides[0] * factor)), max(1, round(sides[1] * factor)))


def _likeness(colours: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Say how near each pixel is to the scribble, and how like in colour to its nearest point of it, (h, w) in 0..1."""
    distance, nearest = ndimage.distance_transform_edt(~drawn, return_indices=True)  # type: ignore[misc]
    smooth = ndimage.gaussian_filter(colours.astype(np.float32), (1, 1, 0))
    spread = ((smooth - smooth[tuple(nearest)]) ** 2).sum(axis=2)
    reach = max(8.0, max(drawn.shape) * NEARNESS)
    likeness = np.exp(-spread / (2 * LIKENESS**2) - distance**2 / (2 * reach**2))
    return np.where(drawn, 1.0, 0.95 * likeness).astype(np.float32)


def _touched(stroke: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mark the small pixels that a scribble touches: a thin line must not fall between them."""
    drawn = np.zeros(size, bool)
    rows, columns = np.nonzero(stroke)
    drawn[rows * size[0] // stroke.shape[0], columns * size[1] // stroke.shape[1]] = True
    return drawn


def _rescaled(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scale ids or marks to (h, w), each pixel by the nearest."""
    rows, columns = ((2 * np.arange(to) + 1) * side // (2 * to) for to, side in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns]


def _cut_out(
    plane: np.ndarray, shape: tuple[int, ...], box: tuple[int, int, int, int], size: tuple[int, int]
) -> np.ndarray:
    """Cut a box out of a plane that covers the whole image, and scale it to (h, w)."""
    height, width = plane.shape
    scaled = (
        box[0] * width / shape[1],
        box[1] * height / shape[0],
        box[2] * width / shape[1],
        box[3] * height / shape[0],
    )
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=scaled))
