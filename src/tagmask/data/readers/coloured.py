"""Trees of VOC's form with a labelmap.txt: "Segmentation mask" and VOC exports of CVAT, those of Datumaro, and ours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tagmask.data.colours import LABELMAP, ColourMask, read_labelmap
from tagmask.data.images import IMAGE_SUFFIXES
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, find_image, read_text
from tagmask.data.readers.voc import (
    ANNOTATIONS,
    IMAGES,
    LISTS,
    find_voc,
    listed_tags,
    mask_tags,
    own_split,
    read_voc,
    with_tags,
    xml_tags,
)
from tagmask.data.walk import files_below
from tagmask.errors import TagmaskError

MASKS = "SegmentationClass"
MAIN = "ImageSets/Main"


def read_voc_tree(path: Path, options: Options, problems: Problems) -> Source:
    """Read a tree by its labelmap.txt where it has one, else as VOC's own, whose classes are known.

    The classes, and which colour of `SegmentationClass/NAME.png` each is, are those of labelmap.txt. Images are in
    `image_folder`, else in `JPEGImages`, `images`, or the tree itself; names may hold folders and spaces. Tags are the
    classes in the mask and the objects of the XML file; of an image without either nobody knows any. Splits are the
    lists of `ImageSets/Segmentation`, else of `ImageSets/Main`.
    """
    root = find_voc(path)
    if root is None or not (root / LABELMAP).is_file():
        return read_voc(path, options, problems)
    classes, colours = read_labelmap(root / LABELMAP, read_text(root / LABELMAP))
    index = FileIndex()
    bases = [options.image_folder] if options.image_folder else [root / IMAGES, root / "images", root]
    rows, groups = _rows(path, root, [os.path.normpath(base) for base in bases], classes, index, problems)
    rows = [row._replace(mask=_mask(row, root, colours, index)) for row in rows]
    seen = mask_tags(rows, lambda row: _mask(row, root, colours, index), classes, problems)
    named: list[tuple[str, ...] | None] = [None] * len(rows)
    if options.tag_source == "annotations" and (root / ANNOTATIONS).is_dir():
        named = [xml_tags(row.mask_name, root / ANNOTATIONS, index, problems) for row in rows]
    rows = with_tags(rows, (_joined(*both) for both in zip(seen, named, strict=True)))
    source = f"classes in the masks of {MASKS}" + (f" and objects of {ANNOTATIONS}/*.xml" if any(named) else "")
    if options.tag_list is not None:
        rows, count = listed_tags(rows, options.tag_list, classes, problems)
        source = f"tags of {options.tag_list.name} for {count} images; of the others: {source}"
    return Source(path, rows, classes, str(root / LABELMAP), source, groups=groups)


def _joined(seen: tuple[str, ...] | None, named: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return named if seen is None else tuple(dict.fromkeys((*seen, *(named or ()))))


def _mask(row: Row, root: Path, colours: dict[int, int], index: FileIndex) -> ColourMask | None:
    path = str(root / MASKS / f"{row.mask_name}.png")
    return ColourMask(Path(path), colours) if index.has(os.path.normpath(path)) else None


def _rows(
    path: Path, root: Path, bases: list[str], classes: tuple[str, ...], index: FileIndex, problems: Problems
) -> tuple[list[Row], dict[str, frozenset[str]]]:
    """Find the images that the lists name, else those of the masks, else those of the XML files.

    Returns:
        Rows without tags, the name in the tree as `mask_name`; and the images of each split, by record name.

    Raises:
        TagmaskError: there is none of these, or not one of the images.
    """
    lists = _lists(root, classes)
    places = {name: where for split in lists.values() for name, where in reversed(split.items())}
    places = places or _names_below(root / MASKS, ".png") or _names_below(root / ANNOTATIONS, ".xml")
    if not places:
        raise TagmaskError(f"{root}: names no image; expected {LISTS}/*.txt, or masks in {MASKS}")
    missing = Problems()
    rows: list[Row] = []
    for name, where in sorted(places.items()):
        ends = [os.path.normpath(os.path.join(base, name)) for base in bases]
        images = (end + suffix for end in ends for suffix in (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"})))
        record, image = find_image(where, images, bases, index, missing)
        rows.append(Row(where, record, image, mask_name=name))
    if all(row.image is None for row in rows):
        raise TagmaskError(
            f"{root}: holds no photograph of {len(rows)} (the first: {rows[0].mask_name}), as CVAT exports it without"
            " *save images*; name their folder (image_folder)"
        )
    problems.found += missing.found
    records = {row.mask_name: row.name for row in rows}
    groups = {split: frozenset(records[name] for name in names) for split, names in lists.items()}
    return [row._replace(split=own_split(row.name, groups)) for row in rows], groups


def _names_below(folder: Path, suffix: str) -> dict[str, str]:
    """Return the names of the files of a suffix below a folder, with `/` between folders, and their paths."""
    found = (Path(file) for file, regular in files_below(folder) if regular and file.endswith(suffix))
    return {file.relative_to(folder).with_suffix("").as_posix(): str(file) for file in found}


def _lists(root: Path, classes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, for each split, the names that its list holds, and file and row of each.

    A line is a name; Datumaro quotes those with spaces. Lists of a single class (`Main/cat_train.txt`) say nothing new.
    """
    for folder in (root / LISTS, root / MAIN):
        files = [
            file
            for file in sorted(folder.glob("*.txt"))
            if not any(file.stem.startswith(f"{name}_") for name in classes) and file.read_bytes().strip()
        ]
        if files:
            return {
                file.stem: {
                    name: f"{file} row {row}"
                    for row, line in enumerate(read_text(file).splitlines(), start=1)
                    if (name := line.strip().strip('"'))
                }
                for file in files
            }
    return {}
