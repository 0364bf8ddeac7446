"""Connected regions of a label map, and their outlines along the edges of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tagmask.data.label_maps import classes_in

# East, south, west, north: the directions of the edges above, right of, below and left of a pixel, walked clockwise.
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch along their sides.

    Attributes:
        label: id of the class, 1..K.
        top, left: the place of `inside` in the image, in pixels.
        inside: (h, w) bool, the smallest box around the region.
    """

    label: int
    top: int
    left: int
    inside: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height, in pixels."""
        return self.left, self.top, self.inside.shape[1], self.inside.shape[0]

    @property
    def area(self) -> int:
        """The number of pixels."""
        return int(np.count_nonzero(self.inside))

    def runs(self, height: int, width: int) -> list[int]:
        """Count run lengths of the `(height, width)` image column by column, ground first, as COCO does."""
        columns, rows = np.nonzero(self.inside.T)
        places = (columns + self.left) * height + rows + self.top
        starts = places[np.r_[True, np.diff(places) > 1]]
        ends = places[np.r_[np.diff(places) > 1, True]] + 1
        borders = np.stack([starts, ends], axis=1).ravel()
        lengths = np.diff(np.r_[0, borders, height * width])
        return (lengths if lengths[-1] else lengths[:-1]).tolist()

    def polygon(self) -> np.ndarray:
        """Trace the outline as one closed polygon, (P, 2) x and y in pixels; (0, 0) is the image's corner.

        It runs along the edges of pixels and leads into each hole through a cut of no width, so that filling it by the
        even-odd rule gives the region, holes and single pixels included.
        """
        outer, *holes = sorted(_rings(self.inside), key=lambda ring: tuple(ring[_start(ring)]))
        for hole in holes:
            outer = _joined(outer, hole, self.inside)
        return outer + np.array([self.left, self.top])


def regions(label_map: np.ndarray, num_classes: int) -> Iterator[Region]:
    """Yield the regions of each class 1..`num_classes` of a (h, w) label map, by class, then from top to bottom.

    Pixels that touch at corners only are apart; what is 0, 255 (ignored) or above `num_classes` is in no region.
    """
    for label in classes_in(label_map, num_classes):
        numbered = np.zeros(label_map.shape, dtype=np.int32)
        ndimage.label(label_map == label, output=numbered)
        for number, place in enumerate(ndimage.find_objects(numbered), start=1):
            yield Region(label, place[0].start, place[1].start, numbered[place] == number)


def _rings(inside: np.ndarray) -> list[np.ndarray]:
    """Trace the closed lines between the region and the rest, each (P, 2) corners, the region on its right hand."""
    # Which edges of pixels lie between inside and outside, by the corner where they begin and their direction.
    padded = np.pad(inside, 1)
    centre = padded[1:-1, 1:-1]
    height, width = inside.shape
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    exists = np.zeros((height + 1, width + 1, 4), dtype=bool)
    for direction, (down, right) in enumerate(((0, 0), (0, 1), (1, 1), (1, 0))):
        edge = centre & ~beyond[direction]
        exists[down : height + down, right : width + right, direction] = edge
    y, x, direction = np.nonzero(exists)
    known = np.flatnonzero(exists)
    end_x, end_y = x + STEPS[direction, 0], y + STEPS[direction, 1]
    following = np.zeros(len(known), dtype=np.int64)
    # The edge that follows each. Where two lines meet at a corner, turning right keeps apart what touches there only.
    for turn in (3, 0, 1):
        wanted = (end_y * (width + 1) + end_x) * 4 + (direction + turn) % 4
        place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        following = np.where(known[place] == wanted, place, following)
    # A line's corners are where its direction changes.
    corner = direction != direction[following]
    return [
        np.stack([end_x[ring], end_y[ring]], axis=1)[corner[ring]].astype(np.float64) for ring in _cycles(following)
    ]


def _cycles(following: np.ndarray) -> list[list[int]]:
    """Split edges 0..E-1 into closed lines, `following` (E,) being the edge after each."""
    after = following.tolist()
    seen = bytearray(len(after))
    cycles = []
    for first in range(len(after)):
        if seen[first]:
            continue
        cycle, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            cycle.append(edge)
            edge = after[edge]
        cycles.append(cycle)
    return cycles


def _start(ring: np.ndarray) -> int:
    """Find the position of the uppermost of a ring's leftmost corners."""
    return int(np.lexsort((ring[:, 1], ring[:, 0]))[0])


def _joined(outer: np.ndarray, hole: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Join two lines into one around both by a cut from the hole's left side straight left through the region.

    It ends at `outer`, which already goes around the holes that begin further left, as the cut may reach one of them.
    """
    right, top = hole[_start(hole)]
    row = inside[int(top), : int(right)]
    left = float(len(row) - np.argmin(row[::-1])) if not row.all() else 0.0
    height = top + 0.5
    from_outer, from_hole = _crossing(outer, left, height), _crossing(hole, right, height)
    cut = np.array([[left, height], [right, height]])
    around = np.roll(hole, -from_hole - 1, axis=0)
    return np.concatenate([outer[: from_outer + 1], cut, around, cut[::-1], outer[from_outer + 1 :]])


def _crossing(ring: np.ndarray, x: float, y: float) -> int:
    """Find the position of the corner before the upright edge at `x` that passes `y`."""
    following = np.roll(ring, -1, axis=0)
    upright = (ring[:, 0] == x) & (following[:, 0] == x)
    passes = np.minimum(ring[:, 1], following[:, 1]) < y
    passes &= np.maximum(ring[:, 1], following[:, 1]) > y
    return int(np.flatnonzero(upright & passes)[0])
