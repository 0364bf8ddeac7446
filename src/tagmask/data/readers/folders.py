"""A folder a class, with or without folders for the splits above."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tagmask.data.images import is_image_name
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import Options, Row, Source, class_list_beside, record_name
from tagmask.data.walk import files_below
from tagmask.errors import TagmaskError

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
NO_IMAGES = frozenset({"thumbs.db", "desktop.ini"})

CVAT_MEND = 'export as "CVAT for images 1.1", or as YOLO with a data.yaml'
COCO_MEND = "name the COCO instances file (instances_*.json) itself"
FOREIGN_FOLDERS = {
    **dict.fromkeys(("obj_train_data", "obj_valid_data", "obj_test_data"), ("Darknet YOLO", CVAT_MEND)),
    **dict.fromkeys(
        ("jpegimages", "imagesets", "segmentationclass", "segmentationclassaug", "segmentationobject"),
        ("PASCAL VOC", "name the folder that holds JPEGImages and Annotations"),
    ),
    **{f"{split}{year}": ("COCO", COCO_MEND) for split in ("train", "val", "test") for year in (2014, 2015, 2017)},
    **dict.fromkeys(("unlabeled2017", "annotations"), ("COCO", COCO_MEND)),
    **dict.fromkeys(
        ("image", "images", "imgs", "label", "labels", "mask", "masks", "annotation", "segmentation", "segmentations"),
        (
            "images beside labels or masks",
            "name that folder if the folders in it are the classes, or write tags.csv",
        ),
    ),
}
"""Names of folders in small letters, which are no classes where half of all have such: their format, what to do."""
BESIDE = {
    ".xml": ("PASCAL VOC XML", "put the images into JPEGImages and the XML files into Annotations"),
    ".json": ("a JSON of LabelMe, COCO or VIA", "export as COCO instances, or write tags.csv"),
    ".txt": ("Darknet YOLO", CVAT_MEND),
}
"""Annotation files by suffix: the format they belong to, and what to do."""


def read_folders(path: Path, options: Options, problems: Problems) -> Source:
    """Read `CLASS/**/IMAGE` or `SPLIT/CLASS/**/IMAGE`.

    The folders are split folders where one of them has a split's name (train, val, test, ...) and no image of its own.
    Images outside of any class folder bear no tag. Links to folders are followed for splits and classes, not below.

    Raises:
        TagmaskError: the folders are none of classes, such as those of an export of another format. `classes.txt`
            with their names says that they are.
    """
    if options.image_folder is not None:
        raise TagmaskError(f"image_folder: {path} holds a folder a class, where the images are; remove the key")
    skipped: list[str] = []
    rows: list[Row] = []
    classes: dict[str, None] = {}
    others: list[str] = []
    for split, folder in _split_folders(path, skipped, rows):
        for name in _subfolders(folder):
            images, beside = _images(folder / name)
            others += beside
            skipped += [f"{file}: no image" for file in beside]
            if not images:
                skipped.append(f"{folder / name}: no image in it, so it is no class")
                continue
            classes[name] = None
            rows += [_row(image, path, (name,), split) for image in images]
        rows += [_row(image, path, (), split) for image in _loose_images(folder)]
    if not classes:
        raise TagmaskError(f"{path}: no folder in it holds images; expected CLASS/IMAGE or train/CLASS/IMAGE")
    listed = class_list_beside(path)
    if listed is None:
        _check_classes(path, tuple(classes), others, {os.path.splitext(row.where)[0] for row in rows})
    return Source(
        path=path,
        rows=rows,
        classes=listed or tuple(sorted(classes)),
        classes_from=str(path / "classes.txt") if listed else f"the folders of {path}",
        tag_source="names of the folders the images lie in",
        skipped=tuple(skipped),
    )


def _check_classes(path: Path, classes: tuple[str, ...], others: Iterable[str], stems: set[str]) -> None:
    """Refuse folders that are not named after classes.

    Args:
        path: the folder read.
        classes: names of the folders that hold images.
        others: the files among the images that are none.
        stems: paths of the images without suffix.
    """
    if all(name.lower() in SPLIT_NAMES for name in classes):
        raise TagmaskError(
            f"{path}: the folders {', '.join(classes)} are named after splits, not after classes; expected "
            "train/CLASS/IMAGE, or name the file that holds the tags"
        )
    confirm = "If its folders are classes, write their names into classes.txt there, one a line"
    foreign = [name for name in classes if name.lower() in FOREIGN_FOLDERS]
    if 2 * len(foreign) >= len(classes):  # one class of many may well be called "mask"
        what, mend = FOREIGN_FOLDERS[foreign[0].lower()]
        raise TagmaskError(
            f"{path}: looks like {what}, not like a folder a class (the folder {foreign[0]!r}); {mend}. {confirm}"
        )
    for file in others:
        stem, suffix = os.path.splitext(file)
        # Notes in a text file are common; a text file called like an image describes it.
        if suffix.lower() in (".xml", ".json") or (suffix.lower() == ".txt" and stem in stems):
            what, mend = BESIDE[suffix.lower()]
            raise TagmaskError(
                f"{path}: looks like {what}, not like a folder a class ({file} is among the images); {mend}. {confirm}"
            )
    if len(classes) == 1:
        raise TagmaskError(
            f"{path}: the folder {classes[0]!r} would be the only class; expected a folder for each of several,"
            f" or tags.csv. {confirm}"
        )


def _split_folders(path: Path, skipped: list[str], rows: list[Row]) -> list[tuple[str, Path]]:
    """Return (split, folder of class folders); the split is empty where the class folders lie in `path` itself."""
    names = _subfolders(path)
    splits = [name for name in names if name.lower() in SPLIT_NAMES and _subfolders(path / name)]
    if not splits:
        return [("", path)]
    others = [name for name in names if name not in splits and _images(path / name)[0]]
    if others:
        raise TagmaskError(
            f"{path}: holds split folders ({', '.join(splits)}) and the folder {others[0]!r} beside them; move it into"
            " the split it belongs to"
        )
    skipped += [f"{path / name}: lies beside the split folders" for name in names if name not in splits]
    rows += [_row(image, path, (), "") for image in _loose_images(path)]
    return [(name, path / name) for name in splits]


def split_of_name(file: Path) -> str:
    """Return the split that a shard's name begins with, as in `train-0000.tar`; nothing where it begins with none."""
    found = re.match(r"([a-z]+)", file.stem.lower())
    return found[1] if found and found[1] in SPLIT_NAMES else ""


def _row(image: str, root: Path, tags: tuple[str, ...], split: str) -> Row:
    return Row(where=image, name=record_name(image, [str(root)]), image=Path(image), tags=tags, split=split)


def _subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder; links that lead back to it or above are no folders of it."""
    above = {os.path.realpath(place) for place in (folder, *folder.absolute().parents)}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    return [name for name in names if (folder / name).is_dir() and os.path.realpath(folder / name) not in above]


def _loose_images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if is_image_name(entry.name) and entry.is_file())


def _images(folder: Path) -> tuple[list[str], list[str]]:
    """Return the images under a folder, sorted, and the other files that a person may have put there."""
    images: list[str] = []
    others: list[str] = []
    for path, regular in files_below(folder):
        name = os.path.basename(path)
        if regular and is_image_name(name):
            images.append(path)
        elif not name.startswith(".") and name.lower() not in NO_IMAGES:
            others.append(path)
    return sorted(images), sorted(others)
