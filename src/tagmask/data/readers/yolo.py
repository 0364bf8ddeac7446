"""Data sets of YOLO: beside each image a text file, whose lines begin with a class number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tagmask.data.dataset import check_class_list
from tagmask.data.readers.folders import SPLIT_NAMES
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import (
    FileIndex,
    Options,
    Row,
    Source,
    missing_image,
    read_class_list,
    read_text,
    record_name,
)
from tagmask.data.walk import image_files
from tagmask.data.yolo_labels import BOX, OUTLINE, YoloMask, read_objects
from tagmask.errors import TagmaskError
from tagmask.recipes.yaml_safe import load_yaml

IMAGES, LABELS = "images", "labels"
SPLITS = ("train", "val", "test")
TURNED_BOX = 9


def find_yolo(folder: Path) -> Path | None:
    """Return the description of a folder, else the folder itself where it has `images` and label files, else None.

    Raises:
        TagmaskError: there are several descriptions.
    """
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".yaml", ".yml") and _describes(file)]
    if len(files) > 1:
        raise TagmaskError(f"{folder}: holds several descriptions ({', '.join(file.name for file in files)}); name one")
    if files:
        return files[0]
    labelled = (folder / IMAGES).is_dir() and next((folder / LABELS).rglob("*.txt"), None)
    return folder if labelled else None


def read_yolo(path: Path, options: Options, problems: Problems) -> Source:
    """Read a description (`data.yaml`), or a folder with `images`, `labels` and `classes.txt`.

    The class numbers of an image's label file are its tags; an image without one bears none, as the format has it.
    Where every line of every file is an outline, they are the masks. The label file of `.../images/a.jpg` is
    `.../labels/a.txt`; where no folder is called `images`, it lies beside the image.

    Source: Ultralytics, "Instance Segmentation Datasets Overview".
    """
    if options.image_folder is not None:
        raise TagmaskError(f"image_folder: {path} says itself where its images are; remove the key")
    description = find_yolo(path) if path.is_dir() else path
    if description is None:
        raise TagmaskError(
            f"{path}: no .yaml with `names` in it, and no images and labels; name the description itself"
        )
    content = _load(description) if description.is_file() else {}
    root = description.parent if description.is_file() else description
    names, place = _class_names(content, description, root)
    images = list(_described(content, description, root) if content else _plain(root))
    if not images:
        raise TagmaskError(f"{description}: names no image; expected images in {root / IMAGES}")
    index = FileIndex()
    base = os.path.commonpath([os.path.dirname(image) for _, image in images])
    rows: list[Row] = []
    widths: set[int] = set()
    labelled = 0
    seen: dict[str, set[str]] = {}
    for split, image in images:
        splits = seen.setdefault(image, set())
        splits.add(split)
        if len(splits) > 1:
            continue
        label = _label_file(image)
        found = index.has(image)
        if not found:
            problems.add("missing image", str(description), missing_image(image, index))
        has_label = index.has(label)
        tags = _tags(Path(label), names, place, widths, problems) if has_label else ()
        labelled += has_label
        where = label if has_label else image
        rows.append(Row(where, record_name(image, [base]), Path(image) if found else None, tags, split=split))
    if not labelled:
        raise TagmaskError(
            f"{description}: no image has a label file; for {images[0][1]} expected {_label_file(images[0][1])}"
        )
    if "kpt_shape" not in content and _all_outlines(widths):
        rows = [row._replace(mask=YoloMask(Path(row.where))) if row.where.endswith(".txt") else row for row in rows]
    return Source(path, rows, names, place, "class numbers of the label files (YOLO)", groups=_groups(seen, base))


def _groups(splits: dict[str, set[str]], base: str) -> dict[str, frozenset[str]]:
    """Return the images of each split where splits overlap, as where `val` names the folder of `train`; else none."""
    if all(len(own) == 1 for own in splits.values()):
        return {}
    named = {record_name(image, [base]): own for image, own in splits.items()}
    return {split: frozenset(name for name in named if split in named[name]) for split in SPLITS}


def _describes(file: Path) -> bool:
    try:
        return file.is_file() and any(line.startswith(("names:", '"names":')) for line in read_text(file).splitlines())
    except TagmaskError:
        return False


def _load(file: Path) -> dict[str, Any]:
    try:
        content = load_yaml(read_text(file))
    except yaml.YAMLError as error:
        raise TagmaskError(f"{file}: is no YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise TagmaskError(f"{file}: key `names` is missing or no list; expected names: [cat, dog]")
    if not any(content.get(split) for split in SPLITS):
        raise TagmaskError(f"{file}: names no images; expected one of the keys {', '.join(SPLITS)}")
    return content


def _class_names(content: dict[str, Any], description: Path, root: Path) -> tuple[tuple[str, ...], str]:
    names = content.get("names")
    if isinstance(names, dict):
        if names.keys() != set(range(len(names))):
            numbers = str(list(names))[:80]
            raise TagmaskError(f"{description}, names: numbers are {numbers}; expected 0, 1, 2, ... without gaps")
        names = [names[number] for number in range(len(names))]
    if names is not None:
        return check_class_list(map(str, names), f"{description}, names", most=None), f"`names` of {description}"
    for file in (root / "classes.txt", root / LABELS / "classes.txt", root / "obj.names"):
        if file.is_file():
            return read_class_list(file), str(file)
    raise TagmaskError(
        f"{root}: nobody says the names of the class numbers; write {root / 'classes.txt'}, one name a line in the"
        " order of the numbers 0, 1, 2, ..."
    )


def _described(content: dict[str, Any], description: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield split and path of each image a description names."""
    roots = [root / str(content["path"]), root] if content.get("path") else [root]
    for split in SPLITS:
        entries = content.get(split) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list):
            raise TagmaskError(f"{description}, {split}: is {entries!r}; expected a folder, a list file or several")
        for entry in entries:
            place = _existing(str(entry), roots)
            if place is None:
                raise TagmaskError(
                    f"{description}, {split}: no folder or list {roots[0] / str(entry)}; correct the path"
                )
            images = map(os.path.normpath, image_files(place)) if place.is_dir() else _listed(place)
            yield from ((split, image) for image in images)


def _existing(entry: str, roots: list[Path]) -> Path | None:
    # Some exporters write `../train/images` and mean `train/images`.
    forms = [entry, entry[3:]] if entry.startswith("../") else [entry]
    return next((root / form for form in forms for root in roots if os.path.exists(root / form)), None)


def _listed(file: Path) -> Iterator[str]:
    for line in read_text(file).splitlines():
        if line.strip():
            yield os.path.normpath(file.parent / line.strip())


def _plain(root: Path) -> Iterator[tuple[str, str]]:
    folder = root / IMAGES
    for image in map(os.path.normpath, image_files(folder)):
        first = os.path.relpath(image, folder).split(os.sep)[0]
        yield (first if first.lower() in SPLIT_NAMES else ""), image


def _label_file(image: str) -> str:
    """Return the label file of an image: under `labels` in place of the last `images`, or beside it."""
    parts = os.path.splitext(image)[0].split(os.sep)
    if IMAGES in parts[:-1]:
        last = max(position for position, part in enumerate(parts[:-1]) if part == IMAGES)
        parts[last] = LABELS
    return os.sep.join(parts) + ".txt"


def _tags(label: Path, names: tuple[str, ...], place: str, widths: set[int], problems: Problems) -> tuple[str, ...]:
    """Return the names of the classes of a label file; the numbers of columns are added to `widths`."""
    try:
        objects = read_objects(label)
    except TagmaskError as error:
        problems.add("row", str(label), str(error).removeprefix(f"{label}: "))
        return ()
    widths.update(1 + len(values) for _, values in objects)
    numbers = dict.fromkeys(number for number, _ in objects)
    if beyond := [number for number in numbers if number >= len(names)]:
        problems.add(
            "unknown tag", str(label), f"class number {beyond[0]} is not in {place}, which ends at {len(names) - 1}"
        )
    return tuple(names[number] for number in numbers if number < len(names))


def _all_outlines(widths: set[int]) -> bool:
    """Tell whether the numbers of columns of all lines are those of outlines, not of boxes, upright or turned."""
    return (
        bool(widths)
        and widths != {TURNED_BOX}
        and all(width >= OUTLINE and width % 2 for width in widths)
        and BOX not in widths
    )
