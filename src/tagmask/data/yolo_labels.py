"""Label files of YOLO: a line for each object, with its class and a box or an outline in fractions of the sides."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagmask.data.masks import Outline, PolygonMask
from tagmask.errors import TagmaskError

BOX = 5
"""Numbers in the line of a box: class, centre x and y, width, height."""
OUTLINE = 7
"""Fewest numbers in the line of an outline: class and three points."""


def read_objects(path: Path) -> list[tuple[int, list[float]]]:
    """Read the class number and the coordinates of each object of a label file.

    Raises:
        TagmaskError: the file is not text, or a line is no object.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TagmaskError(f"{path}: cannot be read ({error}); write it again") from error
    objects = []
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            number, *values = map(float, line.split())
        except ValueError:
            raise TagmaskError(f"{path} row {row}: {line[:40]!r} is not numbers; expected `class x y ...`") from None
        if not all(map(math.isfinite, (number, *values))):
            raise TagmaskError(f"{path} row {row}: {line[:40]!r} holds inf or nan; expected `class x y ...`")
        if number < 0 or number != int(number) or not values:
            raise TagmaskError(f"{path} row {row}: {line[:40]!r} has no class number; expected `class x y ...`")
        objects.append((int(number), values))
    return objects


@dataclass(frozen=True)
class YoloMask:
    """The outlines of a label file, painted into a label map; a MaskSource.

    Attributes:
        path: the label file.
        id_map: label id of each class id (number in the file plus 1) and of 0, background; None takes them as they are.
    """

    path: Path
    id_map: Mapping[int, int] | None = field(default=None, repr=False)

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` uint8 label map: 0 background, 1..K, 255 ignored.

        Raises:
            TagmaskError: the file is missing, or a line is no outline.
        """
        outlines = []
        for number, values in read_objects(self.path):
            if len(values) % 2 or len(values) < OUTLINE - 1:
                raise TagmaskError(
                    f"{self.path}: an object has {len(values)} coordinates; expected three points or more"
                )
            points = np.asarray(values).reshape(-1, 2) * (width, height)
            outlines.append(Outline(number + 1, polygons=(array("d", points.ravel()),)))
        return PolygonMask(str(self.path), tuple(outlines), (height, width), self.id_map).load(height, width)
