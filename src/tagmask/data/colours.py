"""Masks painted in colours, and the labelmap.txt that says which class each colour is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagmask.data.dataset import check_class_list
from tagmask.data.images import opened
from tagmask.data.label_maps import voc_palette
from tagmask.data.masks import check_size
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

LABELMAP = "labelmap.txt"
SHAPE = "expected a line a class such as `cat:64,128,0::`"


@dataclass(frozen=True)
class ColourMask:
    """An image whose colours are classes; a MaskSource.

    Attributes:
        path: the file, PNG or another format that keeps colours as they are.
        colours: class id of each colour, written as the number 65536 r + 256 g + b.
        id_map: label id of each class id and of 0, the ground; None takes them as they are.
    """

    path: Path
    colours: Mapping[int, int] = field(repr=False)
    id_map: Mapping[int, int] | None = field(default=None, repr=False)

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` uint8 label map: 0 background, 1..K, 255 ignored.

        Raises:
            TagmaskError: the file is missing or damaged, has another size than its image, or a colour of no class.
        """
        ids = self.ids()
        check_size(str(self.path), ids.shape, (height, width))
        if self.id_map is None:
            return ids
        table = np.full(256, IGNORE, dtype=np.uint8)
        table[list(self.id_map)] = list(self.id_map.values())
        return table[ids]

    def ids(self) -> np.ndarray:
        """Return the `(height, width)` uint8 class ids of the colours; 255 is ignored.

        Raises:
            TagmaskError: the file is missing or damaged, or holds a colour of no class.
        """
        with opened(self.path, "mask") as image:
            if image.format in ("JPEG", "MPO"):
                raise TagmaskError(f"{self.path}: JPEG blurs the colours of a mask; write it as PNG")
            pixels = np.asarray(image.convert("RGB"), dtype=np.uint32)
        found, places = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32), return_inverse=True)
        if strange := [colour for colour in found.tolist() if colour not in self.colours]:
            shown = "; ".join(f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in strange[:3])
            raise TagmaskError(
                f"{self.path}: {len(strange)} colours are in no line of {LABELMAP} (the first: {shown}); complete it,"
                " or save the mask without smoothing"
            )
        ids = np.array([self.colours[colour] for colour in found.tolist()], dtype=np.uint8)
        return ids[places].reshape(pixels.shape[:2])


def read_labelmap(path: Path, text: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """Parse a labelmap.txt of CVAT, Datumaro or ours: `name:red,green,blue:parts:actions`, a line a class.

    `background` is 0, and so is black where no class has it; the ivory of VOC is ignored where no class has it. Where
    no line has a colour, the colours are those of VOC in the order of the lines, background first.

    Args:
        path: the file, for messages.
        text: its content.

    Returns:
        The names of the ids 1, 2, ..., and the id of each colour as `ColourMask` has it.

    Raises:
        TagmaskError: a line is none of these, two have one colour, or the names make no class list.

    Source: CVAT manual, "Segmentation Mask".
    """
    palette = [(r << 16) + (g << 8) + b for r, g, b in voc_palette().tolist()]
    names: list[str] = []
    colours: dict[int, int] = {}
    for row, line in enumerate(text.splitlines(), start=1):
        name, *parts = (part.strip() for part in line.split(":"))
        if not line.strip() or line.startswith("#"):
            continue
        colour = _colour(f"{path} row {row}", parts[0]) if parts and parts[0] else None
        if name == "ignored" and colour == palette[IGNORE]:
            continue
        if name.lower() != "background":
            names.append(name)
        if colour is not None and colours.setdefault(colour, label := _label(name, names)) != label:
            raise TagmaskError(f"{path} row {row}: another class has the colour {parts[0]}, too; give each its own")
    classes = check_class_list(names, str(path), most=IGNORE - 1)
    labels = set(colours.values()) - {0}
    if not labels:
        colours = dict(zip(palette, range(len(classes) + 1), strict=False))
    elif without := set(range(1, len(classes) + 1)) - labels:
        raise TagmaskError(f"{path}: class {classes[min(without) - 1]!r} has no colour, and others have; {SHAPE}")
    colours.setdefault(0, 0)
    colours.setdefault(palette[IGNORE], IGNORE)
    return classes, colours


def _label(name: str, names: list[str]) -> int:
    return 0 if name.lower() == "background" else len(names)


def _colour(where: str, text: str) -> int:
    values = text.split(",")
    if len(values) != 3 or not all(value.strip().isdecimal() and int(value) <= 255 for value in values):
        raise TagmaskError(f"{where}: {text[:40]!r} is no colour; {SHAPE}")
    red, green, blue = map(int, values)
    return (red << 16) + (green << 8) + blue
