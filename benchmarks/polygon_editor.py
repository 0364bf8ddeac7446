"""Rough masks to good ones in X-AnyLabeling: what the hand of polygon_hand.py has to do, and what it left.

A polygon cannot be mended by a line: who uses it deletes the rough shape and draws its outline anew. The hand knows the
ground truth, and draws as coarsely as brings the mean IoU of the image to what `mending.py` calls good.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from browser_hand import read_masks
from mending import GOOD, quality
from scipy import ndimage

from tagmask.data.masks import Outline, PolygonMask
from tagmask.data.readers.drawings import polygon
from tagmask.data.writers.regions import Region, regions

TOLERANCES = (12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4, 0.0)  # pixels of the image
Corners = dict[int, list[np.ndarray]]  # label id to (n, 2) x and y of each polygon


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave corners of a closed outline (n, 2) out, none of which lies further than `tolerance` from what is left.

    Source: Douglas and Peucker, 1973.
    """
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    keep = np.zeros(len(ring) + 1, bool)
    keep[[0, far, len(ring)]] = True
    points, parts = np.vstack([ring, ring[:1]]).astype(float), [(0, far), (far, len(ring))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        along, away = points[last] - points[first], points[first + 1 : last] - points[first]
        length = np.hypot(*along)
        across = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length if length else np.hypot(*away.T)
        if across.max() > tolerance:
            middle = first + 1 + int(across.argmax())
            keep[middle] = True
            parts += [(first, middle), (middle, last)]
    return points[:-1][keep[:-1]]


def corners(truth: np.ndarray, classes: int) -> Corners:
    """Simplify the outlines of an image, by one tolerance for all, as far as they make a good mask of it."""
    height, width = truth.shape
    chosen: Corners = {}
    for tolerance in TOLERANCES:
        chosen = {}
        for region in regions(truth, classes):
            ring = simplified(region.polygon(), tolerance)
            if len(ring) >= 3:  # its canvas ends at the last pixel's middle
                chosen.setdefault(region.label, []).append(np.minimum(ring, (width - 1, height - 1)))
        drawn = tuple(Outline(own, polygons=polygon(ring)) for own, rings in chosen.items() for ring in rings)
        if quality(PolygonMask("", drawn, in_order=True).load(height, width), truth, classes) >= GOOD:
            break
    return chosen


def draw_all(
    python: Path,
    photos: Path,
    rough: Mapping[str, np.ndarray],
    truths: Mapping[str, np.ndarray],
    classes: tuple[str, ...],
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Let the hand redraw the masks of a folder of photographs, and return what it did and the masks that it saved.

    Args:
        python: that of the environment in which X-AnyLabeling is installed.
        photos: a folder of NAME.png of its own, into which the rough shapes are put.
        rough, truths: (h, w) label maps by name.
    """
    job: dict[str, Any] = {"classes": classes, "images": []}
    for name, truth in truths.items():
        file = photos / f"{name}.png"
        found = list(regions(rough[name], len(classes)))
        shapes = [
            {"label": classes[each.label - 1], "points": each.polygon().tolist(), "shape_type": "polygon", "flags": {}}
            for each in found
        ]
        size = {"imageHeight": truth.shape[0], "imageWidth": truth.shape[1]}
        shown = {"version": "4.0.0", "flags": {}, "shapes": shapes, "imagePath": file.name, "imageData": None, **size}
        file.with_suffix(".json").write_text(json.dumps(shown), encoding="utf-8")
        draw = [
            {"digit": own, "points": ring.tolist()}
            for own, rings in corners(truth, len(classes)).items()
            for ring in rings
        ]
        job["images"].append(
            {"name": name, "file": str(file), "rough": [_inside(each) for each in found], "draw": draw}
        )
    (photos.parent / "job.json").write_text(json.dumps(job), encoding="utf-8")
    hand = Path(__file__).with_name("polygon_hand.py")
    said = subprocess.run([python, hand, photos.parent / "job.json"], stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in said.stdout.splitlines() if line.startswith("{")]
    efforts = {each.pop("name"): each for each in map(json.loads, lines)}
    return efforts, read_masks(photos, [f"data.classes={json.dumps(classes)}"], truths)


def _inside(region: Region) -> tuple[float, float]:
    """Return the place (x, y) in a region that is furthest from its rim."""
    depth = ndimage.distance_transform_edt(np.pad(region.inside, 1))[1:-1, 1:-1]  # type: ignore[misc]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(region.left + column) + 0.5, float(region.top + row) + 0.5
