"""What people draw in label tools, as ground truth: which drawings make a whole mask, and which do not."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tagmask.data.masks import Outline, PolygonMask
from tagmask.data.names import is_background
from tagmask.data.readers.source import Row


class ClassIds:
    """The ids 1, 2, ... of class names in the order in which they are met; names known before come first."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        self._ids = {name: label for label, name in enumerate(names or (), start=1)}

    def __getitem__(self, name: str) -> int:
        """Return the id of a name; a new one gets the next."""
        return self._ids.setdefault(name, len(self._ids) + 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order of their ids."""
        return tuple(self._ids)


@dataclass
class Drawing:
    """What one person marked in one image.

    Attributes:
        where: file and image, for messages.
        size: (height, width) that the tool states for the image; None where it states none.
        outlines: regions with their class ids, what lies above coming later.
        outlined: names of the classes that have a region.
        loose: whether something is marked by a box, a point or a line, whose pixels nobody knows.
    """

    where: str
    size: tuple[int, int] | None = None
    outlines: list[Outline] = field(default_factory=list)
    outlined: set[str] = field(default_factory=set)
    loose: bool = False

    def add(self, names: Sequence[str], ids: ClassIds, **shape: Any) -> None:
        """Add a region, with the fields of an `Outline`; of a region with several names nobody knows the class.

        A polygon that encloses nothing, as a stray click leaves, is no region.
        """
        if shape.get("polygons") == ():
            return
        self.outlines.append(Outline(ids[names[0]], crowd=len(names) > 1, **shape))
        self.outlined.update(names)

    def mask(self, tags: Iterable[str]) -> PolygonMask | None:
        """Return the ground truth; None where something is boxed or tagged and not outlined.

        Its pixels would be taken for background.
        """
        if self.loose or not self.outlined.issuperset(tags):
            return None
        return PolygonMask(self.where, tuple(self.outlines), self.size, in_order=True)


def polygon(points: Iterable[tuple[float, float]]) -> tuple[array[float], ...]:
    """Return the `polygons` of an outline around (x, y) points, in pixels; none where they enclose nothing.

    Raises:
        ValueError, TypeError: the points are none.
    """
    flat = array("d", (float(value) for x, y in points for value in (x, y)))
    if not all(map(math.isfinite, flat)):
        raise ValueError("a coordinate is inf or nan")
    return (flat,) if len(flat) >= 6 else ()


def with_masks(rows: list[Row], source: object) -> tuple[list[Row], tuple[str, ...]]:
    """Keep the masks of rows where anything is outlined at all, and count in words the images that have none.

    Where nobody drew a region, empty masks of images without tags would say that tags alone are outlines. A region
    called `background` is id 0 in the masks, and no tag.

    Args:
        rows: with their masks.
        source: the file they come from, for the message.
    """
    rows = [row._replace(tags=_classes(row.tags), unknown=row.unknown and _classes(row.unknown)) for row in rows]
    if not any(row.mask is not None and row.tags for row in rows):
        return [row._replace(mask=None) for row in rows], ()
    without = sum(row.mask is None for row in rows)
    if not without:
        return rows, ()
    return rows, (
        f"{source}: {without} of {len(rows)} images have no ground truth mask, for in each something is tagged or boxed"
        " that nobody outlined",
    )


def _classes(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not is_background(name))
