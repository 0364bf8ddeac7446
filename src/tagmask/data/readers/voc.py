"""Folder trees of PASCAL VOC: tags from the XML files or the masks, splits from the lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tagmask.data.colours import LABELMAP, ColourMask
from tagmask.data.images import is_image_name
from tagmask.data.limits import parse_xml
from tagmask.data.masks import PngMask
from tagmask.data.readers.assemble import mask_order
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, class_list_beside, missing_image, read_text
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
AUGMENTED = "train_aug"
IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Segmentation"
FIRST = ("train", "val", "test")


def find_voc(folder: Path) -> Path | None:
    """Return the VOC tree at a folder, or the only one in it or in its `VOCdevkit`; None where there is none."""
    for place in (folder, folder / "VOCdevkit"):
        if (place / IMAGES).is_dir():
            return place
        # Label tools leave the photographs out, and say in labelmap.txt what the masks are.
        if (place / LABELMAP).is_file() and any((place / part).is_dir() for part in ("SegmentationClass", ANNOTATIONS)):
            return place
        inner = sorted(place.glob(f"VOC*/{IMAGES}"))
        if len(inner) > 1:
            years = ", ".join(found.parent.name for found in inner)
            raise TagmaskError(f"{place}: holds several VOC trees ({years}); name one of them")
        if inner:
            return inner[0].parent
    return None


def read_voc(path: Path, options: Options, problems: Problems) -> Source:
    """Read a VOC tree: `JPEGImages`, `Annotations/*.xml`, `ImageSets/Segmentation/*.txt`, `SegmentationClass(Aug)`.

    Splits are the lists, which may overlap, and `train_aug`: every id of SegmentationClassAug that is not in `val`
    (10,582 in VOC 2012 with SBD). Without lists and masks every image is read, without a split. Images in no split
    are left out. Tags are the objects of the XML files, difficult and truncated ones included, or with
    `tag_source="masks"` the ids that occur in an image's mask. Of an image without its XML file or mask nobody
    knows any tag.
    """
    root = find_voc(path)
    if root is None:
        raise TagmaskError(f"{path}: no VOC tree; expected the folders {IMAGES} and {ANNOTATIONS} in it")
    folder = options.image_folder or root / IMAGES
    masks = _mask_folder(root)
    index = FileIndex()
    images = index.images(str(folder))
    if not images:
        raise TagmaskError(f"{folder}: holds no image")
    groups, places = _groups(root, masks, index)
    names = sorted(frozenset[str]().union(*groups.values())) if groups else sorted(images)
    rows: list[Row] = []
    for name in names:
        where = places.get(name, str(folder / images.get(name, f"{name}.jpg")))
        if name not in images:
            problems.add("missing image", where, missing_image(str(folder / f"{name}.jpg"), index))
        image = folder / images[name] if name in images else None
        rows.append(Row(where, name, image, split=own_split(name, groups)))
    rows, classes, classes_from, tag_source = _tagged(rows, root, masks, options, index, problems)
    if options.tag_list is not None:
        rows, listed = listed_tags(rows, options.tag_list, classes or CLASSES, problems)
        tag_source = f"tags of {options.tag_list.name} for {listed} images; of the others: {tag_source}"
    outside = len(images.keys() - set(names))
    skipped = (f"{folder}: {outside} images are in no list of {LISTS} and have no mask",) if outside else ()
    return Source(path, rows, classes, classes_from, tag_source, masks, groups, skipped)


def _mask_folder(root: Path) -> Path | None:
    return next((root / name for name in ("SegmentationClassAug", "SegmentationClass") if (root / name).is_dir()), None)


def _groups(root: Path, masks: Path | None, index: FileIndex) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Return the image ids of each split, and the file and row that names each id first."""
    groups: dict[str, frozenset[str]] = {}
    places: dict[str, str] = {}
    for file in sorted((root / LISTS).glob("*.txt")):
        ids = list_ids(file)
        groups[file.stem] = frozenset(ids)
        for name, row in ids.items():
            places.setdefault(name, f"{file} row {row}")
    if masks is not None and masks.name == "SegmentationClassAug":
        labelled = {os.path.splitext(name)[0] for name in index.names(str(masks)) if name.endswith(".png")}
        groups[AUGMENTED] = frozenset(labelled - groups.get("val", frozenset()))
        places = {name: str(masks / f"{name}.png") for name in labelled} | places
    return groups, places


def list_ids(file: Path) -> dict[str, int]:
    """Return the ids and rows of a list of `id`, `id class class ...` or `/JPEGImages/id.jpg /.../id.png`."""
    ids: dict[str, int] = {}
    for row, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            name = os.path.basename(line.split()[0])
            ids.setdefault(os.path.splitext(name)[0] if is_image_name(name) else name, row)
    return ids


def own_split(name: str, groups: dict[str, frozenset[str]]) -> str:
    """Return the one split that a record bears: its original one where there is one, else `train_aug`."""
    return next((split for split in (*FIRST, AUGMENTED, *groups) if name in groups.get(split, ())), "")


def _tagged(
    rows: list[Row], root: Path, masks: Path | None, options: Options, index: FileIndex, problems: Problems
) -> tuple[list[Row], tuple[str, ...] | None, str, str]:
    """Return the rows with tags, the class list, where it stands, and the tag source in words."""
    listed = class_list_beside(root)
    place = str(root / "classes.txt") if listed else "the 20 classes of PASCAL VOC"
    if options.tag_source == "masks":
        folder = options.masks or masks
        if folder is None:
            raise TagmaskError(f"{root}: tag_source: masks needs a folder of masks; expected SegmentationClassAug")
        order = mask_order(folder, listed or CLASSES, options) or CLASSES
        tags = mask_tags(rows, lambda row: _png(row, folder, index), order, problems)
        return with_tags(rows, tags), listed or CLASSES, place, f"classes that occur in the masks of {folder.name}"
    if not (root / ANNOTATIONS).is_dir():
        raise TagmaskError(
            f"{root}: no folder {ANNOTATIONS} with XML files; tag_source: masks reads tags off the masks"
        )
    tags = [xml_tags(row.name, root / ANNOTATIONS, index, problems) for row in rows]
    seen = {tag for found in tags for tag in found or ()}
    if listed is None and seen <= set(CLASSES):
        listed = CLASSES
    source = f"objects of {ANNOTATIONS}/*.xml, difficult and truncated ones included"
    return with_tags(rows, tags), listed, place, source


def listed_tags(rows: list[Row], file: Path, classes: tuple[str, ...], problems: Problems) -> tuple[list[Row], int]:
    """Give the images that a list names the classes whose numbers, from 0, stand behind the name, and count them."""
    listed: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name, *numbers = line.split() or [""]
        wrong = [each for each in numbers if not each.isdecimal() or int(each) >= len(classes)]
        if wrong:
            problems.add("row", f"{file} row {number}", f"{wrong[0]!r} is no number of a class, 0..{len(classes) - 1}")
        elif name:
            stem, suffix = os.path.splitext(os.path.basename(name))
            listed[stem if is_image_name(name) else stem + suffix] = tuple(classes[int(each)] for each in numbers)
    named = [row.name in listed for row in rows]
    tagged = [
        row._replace(tags=listed[row.name], unknown=()) if there else row
        for row, there in zip(rows, named, strict=True)
    ]
    return tagged, sum(named)


def with_tags(rows: list[Row], tags: Iterable[tuple[str, ...] | None]) -> list[Row]:
    """Give each row its tags; None says that nobody knows any."""
    return [
        row._replace(tags=found or (), unknown=None if found is None else ())
        for row, found in zip(rows, tags, strict=True)
    ]


def xml_tags(name: str, folder: Path, index: FileIndex, problems: Problems) -> tuple[str, ...] | None:
    """Return the names of the objects of an image's XML file; None where it has none, or a damaged one."""
    path = str(folder / f"{name}.xml")
    if not index.has(path):
        return None
    try:
        names = [(item.findtext("name") or "").strip() for item in parse_xml(Path(path)).iterfind("object")]
    except TagmaskError as error:
        problems.add("row", path, str(error).removeprefix(f"{path}: "))
        return None
    if "" in names:
        problems.add("row", path, "an <object> has no <name>; name it or remove it")
    return tuple(dict.fromkeys(filter(None, names)))


def mask_tags(
    rows: list[Row],
    find_mask: Callable[[Row], PngMask | ColourMask | None],
    order: tuple[str, ...],
    problems: Problems,
) -> list[tuple[str, ...] | None]:
    """Return the classes that occur in each image's mask; None where it has none, or a damaged one.

    Args:
        rows: the images.
        find_mask: the mask of a row, or None.
        order: names of the mask ids 1, 2, ...
        problems: where to note what is wrong.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        present = pool.map(_mask_ids, map(find_mask, rows))
        return [_named(row, ids, order, problems) for row, ids in zip(rows, present, strict=True)]


def _png(row: Row, folder: Path, index: FileIndex) -> PngMask | None:
    path = folder / f"{row.name}.png"
    return PngMask(path) if index.has(str(path)) else None


def _mask_ids(mask: PngMask | ColourMask | None) -> list[int] | TagmaskError | None:
    """Return the class ids in a mask, or what is wrong with it, or None where there is none."""
    if mask is None:
        return None
    try:
        counts = np.bincount(mask.ids().ravel(), minlength=256)
    except TagmaskError as error:
        return error
    return [int(value) for value in np.flatnonzero(counts) if value not in (0, IGNORE)]


def _named(
    row: Row, ids: list[int] | TagmaskError | None, order: tuple[str, ...], problems: Problems
) -> tuple[str, ...] | None:
    if ids is None:
        return None
    if isinstance(ids, TagmaskError):
        problems.add("mask", row.where, str(ids))
        return None
    beyond = [value for value in ids if value > len(order)]
    if beyond:
        problems.add("mask", row.where, f"the mask holds ids {beyond}; the class list ends at {len(order)}")
    return tuple(order[value - 1] for value in ids if value <= len(order))
