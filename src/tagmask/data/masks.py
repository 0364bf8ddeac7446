"""Read label maps: from image files of ids, and from the outlines of annotation files."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tagmask.data.images import opened
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import HIGHEST, IGNORE, label_dtype


def id_map(mask_classes: Sequence[str], classes: Sequence[str], background: bool) -> dict[int, int]:
    """Return the label id of each id of a mask: of a chosen class its own, of all else 0, or 255 without background.

    Args:
        mask_classes: names in the order of the mask's ids 1, 2, ...
        classes: the chosen names in the order of the label ids 1, 2, ...
        background: whether there is a label 0.
    """
    ground = 0 if background else IGNORE
    label = {name: position for position, name in enumerate(classes, start=1)}
    return {0: ground} | {source: label.get(name, ground) for source, name in enumerate(mask_classes, start=1)}


@dataclass(frozen=True)
class PngMask:
    """A palette or grey image whose pixel values are ids; a MaskSource.

    Attributes:
        path: the file; PNG, or another format that keeps values as they are.
        id_map: label id of each id that may stand in the file, 255 (ignored) aside, which stays; None takes any id as
            it is.
    """

    path: Path
    id_map: Mapping[int, int] | None = field(default=None, repr=False)

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` label map as of `MaskSource.load`: 0 background, 1..K, 255 ignored.

        Raises:
            TagmaskError: the file is missing or damaged, holds colours in place of ids, has another size than its
                image, or holds ids that are no class.
        """
        ids = self.ids()
        check_size(str(self.path), ids.shape, (height, width))
        return ids if self.id_map is None else self._mapped(ids, self.id_map)

    def ids(self) -> np.ndarray:
        """Return the `(height, width)` values as they stand in the file: uint8, or uint16 where one is above 255.

        Raises:
            TagmaskError: the file is missing or damaged, or holds colours in place of ids.
        """
        with opened(self.path, "mask") as image:
            if image.format in ("JPEG", "MPO"):
                raise TagmaskError(f"{self.path}: JPEG blurs the ids of a mask; write it as a palette or grey PNG")
            image.load()
            if image.mode in ("I", "I;16", "I;16B", "I;16L"):
                return self._narrowed(np.asarray(image))
            if image.mode not in ("P", "L", "1"):
                raise TagmaskError(
                    f"{self.path}: holds colours ({image.mode}), and a mask holds ids; write a palette or grey PNG"
                    " whose pixel values are 0 background, 1..K classes, 255 ignored. Turning colours to grey"
                    " does not give ids"
                )
            ids = np.array(image, dtype=np.uint8)
            return ids // self._stretch() if image.mode == "L" and image.format == "PNG" else ids

    def _stretch(self) -> int:
        """Find the factor by which Pillow spread grey values of 2 and 4 bits over 0..255; ids are the values before."""
        with self.path.open("rb") as file:
            bits = file.read(25)[24]
        return {2: 85, 4: 17}.get(bits, 1)

    def _narrowed(self, values: np.ndarray) -> np.ndarray:
        """Turn ids of 16 or 32 bits into the type that holds them."""
        if values.min() < 0 or values.max() > HIGHEST:
            bad = np.unique(values[(values < 0) | (values > HIGHEST)])
            raise TagmaskError(f"{self.path}: ids {_listed(bad)}; ids go from 0 to {HIGHEST}; correct the mask")
        return values.astype(label_dtype(values.max()))

    def _mapped(self, ids: np.ndarray, id_map: Mapping[int, int]) -> np.ndarray:
        """Replace the ids of the file by label ids; 255 stays."""
        kind = label_dtype(max(id_map.values(), default=0))
        size = max(np.iinfo(ids.dtype).max, *id_map, 0) + 1
        table = np.full(size, -1, dtype=np.int16 if kind == "uint8" else np.int32)
        for source, label in id_map.items():
            table[source] = label
        table[IGNORE] = IGNORE
        labels = table[ids]
        if labels.min() < 0:
            highest = max(id_map, default=0)
            raise TagmaskError(
                f"{self.path}: ids {_listed(np.unique(ids[labels < 0]))} are no class; expected 0 (background),"
                f" 1..{highest} in the order of the mask's class list, and {IGNORE} (ignored); correct the mask or"
                " complete the list"
            )
        return labels.astype(kind)


class PixelCode(Protocol):
    """A drawn region in the code of a label tool."""

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return which pixels of an image the region covers, (height, width) bool.

        Raises:
            TagmaskError: the code is damaged or does not fit the image; the message names no file.
        """
        ...


@dataclass(frozen=True)
class Outline:
    """One object of an annotation file, with coordinates in pixels.

    Attributes:
        label: id of its class in the source's list, from 1.
        crowd: a group outlined as one; not exact enough to be ground truth.
        polygons: flat x, y, x, y, ... of each part.
        runs: COCO's run-length code in place of polygons: a list of run lengths or their compressed text.
        size: (height, width) the run-length code was made for.
        code: another tool's code in place of polygons and runs.
    """

    label: int
    crowd: bool = False
    polygons: tuple[array[float], ...] = ()
    runs: tuple[int, ...] | str | None = None
    size: tuple[int, int] | None = None
    code: PixelCode | None = None


@dataclass(frozen=True)
class PolygonMask:
    """The objects of one image of an annotation file, painted into a label map; a MaskSource.

    Larger objects are painted first, so that smaller ones lie over them, unless the file has an order of its own.
    Groups outlined as one (`iscrowd`) are painted in the same order as 255, ignored.

    Attributes:
        source: file and image, for messages.
        outlines: the objects.
        size: (height, width) the file states for the image; None where it states none.
        id_map: label id of each class id of the source and of 0, the ground; None takes them as they are.
        in_order: whether later outlines lie over earlier ones, whatever their size.
    """

    source: str
    outlines: tuple[Outline, ...] = field(repr=False)
    size: tuple[int, int] | None = None
    id_map: Mapping[int, int] | None = field(default=None, repr=False)
    in_order: bool = False

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` label map as of `MaskSource.load`: 0 background, 1..K, 255 ignored.

        Raises:
            TagmaskError: the file states another size than that of the image, or an outline is damaged.
        """
        check_size(self.source, self.size or (height, width), (height, width))
        painted = [(self._shape(outline, height, width), self._label(outline)) for outline in self.outlines]
        ground = 0 if self.id_map is None else self.id_map[0]
        highest = max(self.id_map.values()) if self.id_map else max((each.label for each in self.outlines), default=0)
        labels = np.full((height, width), ground, dtype=label_dtype(highest))
        if not self.in_order:
            painted.sort(key=lambda pair: -np.count_nonzero(pair[0]))
        for shape, label in painted:
            labels[shape] = label
        return labels

    def _label(self, outline: Outline) -> int:
        if self.id_map is None:
            return IGNORE if outline.crowd else outline.label
        label = self.id_map[outline.label]
        # A crowd of a class nobody asked for is ground like each of its members.
        return IGNORE if outline.crowd and label != self.id_map[0] else label

    def _shape(self, outline: Outline, height: int, width: int) -> np.ndarray:
        """Which pixels an outline covers, (height, width) bool."""
        if outline.runs is not None:
            check_size(f"{self.source}, run-length code", outline.size or (height, width), (height, width))
            return self._from_runs(outline.runs, height, width)
        if outline.code is not None:
            try:
                return outline.code.inside(height, width)
            except TagmaskError as error:
                raise TagmaskError(f"{self.source}: {error}") from None
        return self._from_polygons(outline.polygons, height, width)

    def _from_runs(self, runs: Sequence[int] | str, height: int, width: int) -> np.ndarray:
        # pycocotools leaves the rest of a code that is too short uninitialised, so lengths are checked here.
        lengths = _uncompressed(runs) if isinstance(runs, str) else runs
        if min(lengths, default=0) < 0 or sum(lengths) != height * width:
            raise TagmaskError(
                f"{self.source}: a run-length code covers {sum(lengths)} pixels, the image has {height * width}"
                f" ({width} x {height}); write the annotation again"
            )
        inside = np.arange(len(lengths)) % 2 == 1
        return np.repeat(inside, lengths).reshape(width, height).T

    def _from_polygons(self, polygons: Sequence[array[float]], height: int, width: int) -> np.ndarray:
        coco = _coco_masks(self.source)
        reach = 2 * max(height, width)
        for polygon in polygons:
            if not (np.abs(np.frombuffer(polygon)) <= reach).all():
                raise TagmaskError(
                    f"{self.source}: a polygon lies far outside the {width} x {height} image; correct it"
                )
        codes = coco.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
        return coco.decode(coco.merge(codes)).astype(bool)


@dataclass(frozen=True)
class AgreedMask:
    """The masks that several people drew of one image; where they differ, pixels are ignored. A MaskSource.

    Attributes:
        masks: one a person, at least one.
        id_map: as of `PolygonMask`.
    """

    masks: tuple[PolygonMask, ...]
    id_map: Mapping[int, int] | None = field(default=None, repr=False)

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` label map as of `MaskSource.load`: 0 background, 1..K, 255 ignored.

        Raises:
            TagmaskError: one of the masks is damaged or of another size.
        """
        first, *others = (replace(mask, id_map=self.id_map).load(height, width) for mask in self.masks)
        for other in others:
            first[first != other] = IGNORE
        return first


def _coco_masks(source: str) -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise TagmaskError(f"{source}: needs pycocotools; pip install 'tagmask[coco]'") from error
    return mask


def encode_runs(labels: np.ndarray) -> list[tuple[int, str]]:
    """Return the ids of a label map, (H, W), but 0, each with COCO's compressed run-length code of its pixels.

    Raises:
        TagmaskError: pycocotools is missing.
    """
    coco = _coco_masks("run-length codes")
    ids = [int(label) for label in np.unique(labels) if label]
    return [(label, coco.encode(np.asfortranarray(labels == label))["counts"].decode("ascii")) for label in ids]


def _uncompressed(text: str) -> list[int]:
    """Decode COCO's compressed run lengths: 5 bits a character, low ones first, differences from the third on."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    return lengths


def check_size(source: str, have: tuple[int, ...], want: tuple[int, int]) -> None:
    """Raise where a mask has another size (height, width) than its image."""
    if tuple(have) == want:
        return
    message = f"{source}: mask is {have[1]} x {have[0]} (width x height), its image {want[1]} x {want[0]}"
    if tuple(have) == want[::-1]:
        raise TagmaskError(f"{message}; if the image is turned by its EXIF tag, save the mask for the upright picture")
    raise TagmaskError(f"{message}; save the mask at the size of its image, without smoothing")


def _listed(ids: np.ndarray) -> str:
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(str(value) for value in ids[:10]) + more
