"""Instances files of MS COCO: tags, and masks where there are outlines."""

from __future__ import annotations

import os
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tagmask.data.dataset import check_class_list
from tagmask.data.limits import parse_json
from tagmask.data.masks import Outline, PolygonMask
from tagmask.data.names import is_background
from tagmask.data.readers.problems import Problems, nearest
from tagmask.data.readers.source import FileIndex, Options, Row, Source, find_image
from tagmask.errors import TagmaskError

PREFIX = "instances_"
LABEL_STUDIO = "result.json"
"""What Label Studio calls its export as COCO; its images lie in images/ beside it."""
PROBED = 50
NO_LICENCE = [{"name": "", "id": 0, "url": ""}]
"""The licences in files that CVAT and Datumaro write, which call every region drawn by a brush a crowd."""
CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""The 80 things of MS COCO in the order of their ids."""


def find_coco(folder: Path) -> list[Path]:
    """Return the `instances_*.json` of a folder or of its folder `annotations`, sorted, else Label Studio's file."""
    for files in ((folder / "annotations").glob(f"{PREFIX}*.json"), folder.glob(f"{PREFIX}*.json")):
        if found := sorted(files):
            return found
    result = folder / LABEL_STUDIO
    return [result] if result.is_file() and (folder / "images").is_dir() else []


def split_of(file: Path) -> str:
    """Return the split a file stands for: `instances_train2017.json` is `train`."""
    return re.sub(r"(?<=\D)\d{4}$", "", _part(file))


def read_coco(path: Path, options: Options, problems: Problems) -> Source:
    """Read one instances file, or all of a folder, one split a file.

    Classes come in the order of the category ids. An image bears a class if any annotation says so, those of crowds
    included. An image whose every annotation has an outline has a mask; an image without annotations is all background.
    Run lengths of CVAT and Datumaro are regions and no crowds, whatever their `iscrowd` says.
    In a folder of PNG masks that is named, those called by split and number, `train/000000000042.png`, are found, too.
    """
    files = find_coco(path) if path.is_dir() else [path]
    if not files:
        raise TagmaskError(f"{path}: no {PREFIX}*.json in it or in its folder `annotations`; name the file itself")
    _check_splits(files)
    contents = {file: _load(file) for file in files}
    categories = _categories(files[0], contents[files[0]])
    for file in files[1:]:
        if _categories(file, contents[file]) != categories:
            raise TagmaskError(f"{file}: its categories differ from those of {files[0]}; read the files one by one")
    names = check_class_list(categories.values(), f"{files[0]}, categories", most=None)
    index = FileIndex()
    folders = {file: _image_folder(file, contents[file], options.image_folder, index) for file in files}
    base = os.path.commonpath(folders.values())
    rows: list[Row] = []
    for file in files:
        rows += _rows(file, contents.pop(file), folders[file], base, categories, index, problems)
    return Source(
        path=path,
        rows=rows,
        classes=names,
        classes_from=f"the categories of {files[0]}",
        tag_source=f"object annotations of {', '.join(file.name for file in files)}, crowds included",
    )


def _part(file: Path) -> str:
    return "" if file.name == LABEL_STUDIO else file.stem.removeprefix(PREFIX)


def _check_splits(files: list[Path]) -> None:
    first: dict[str, Path] = {}
    for file in files:
        other = first.setdefault(split_of(file), file)
        if other is not file:
            raise TagmaskError(f"{file}: stands for the split {split_of(file)!r} as {other.name} does; name one file")


def _load(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_bytes())
    except TagmaskError as error:
        raise TagmaskError(f"{file}: {error}; download or export it again") from error
    except OSError as error:
        raise TagmaskError(f"{file}: cannot be read ({error.strerror})") from error
    for key in ("images", "annotations", "categories"):
        items = content.get(key) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise TagmaskError(f"{file}: key {key!r} is missing or no list of objects; expected a COCO instances file")
    if not content["images"]:
        raise TagmaskError(f"{file}: names no image")
    return _without_background(content)


def _without_background(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out a category `background`, which segmentation formats bring along when they are converted."""
    ground = [category.get("id") for category in content["categories"] if is_background(category.get("name"))]
    if not ground:
        return content
    return content | {
        "categories": [category for category in content["categories"] if category.get("id") not in ground],
        "annotations": [item for item in content["annotations"] if item.get("category_id") not in ground],
    }


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return the category names by id, in the order of the ids."""
    named: dict[int, str] = {}
    for category in content["categories"]:
        number, name = category.get("id"), category.get("name")
        if not isinstance(number, int) or not isinstance(name, str):
            raise TagmaskError(f"{file}: category {category!r} needs an `id` (whole number) and a `name`")
        if number in named:
            raise TagmaskError(f"{file}: categories {named[number]!r} and {name!r} both have the id {number}")
        named[number] = name.strip()
    return dict(sorted(named.items()))


def _image_folder(file: Path, content: dict[str, Any], given: Path | None, index: FileIndex) -> str:
    part = _part(file)
    roots = [given] if given else [file.parent.parent, file.parent]
    places = [str(root / inner) for root in roots for inner in (part, f"images/{part}", "images", ".")]
    probes = [str(image.get("file_name")) for image in content["images"][:PROBED]]
    for place in map(os.path.normpath, places):
        if any(index.has(os.path.join(place, probe)) for probe in probes):
            return place
    looked = ", ".join(dict.fromkeys(map(os.path.normpath, places)))
    raise TagmaskError(
        f"{file}: its images (the first is {probes[0]}) are in none of {looked}; name their folder (image_folder), or"
        " read another instances file by its own path"
    )


def _rows(
    file: Path,
    content: dict[str, Any],
    folder: str,
    base: str,
    categories: dict[int, str],
    index: FileIndex,
    problems: Problems,
) -> Iterable[Row]:
    labels = {number: position for position, number in enumerate(categories, start=1)}
    outlined = any(annotation.get("segmentation") for annotation in content["annotations"])
    crowds = content.get("licenses") != NO_LICENCE
    annotations = _by_image(file, content, labels, problems)
    for where, image in _well_formed(file, content["images"], problems):
        path = os.path.normpath(os.path.join(folder, image["file_name"]))
        name, found = find_image(where, [path], [base], index, problems)
        own = annotations.get(image["id"], [])
        height, width = image.get("height"), image.get("width")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        outlines = _outlines(where, own, labels, crowds, problems) if outlined else None
        yield Row(
            where=where,
            name=name,
            image=found,
            tags=tuple(dict.fromkeys(categories[annotation["category_id"]] for annotation in own)),
            split=split_of(file),
            mask=None if outlines is None else PolygonMask(where, outlines, size),
            mask_name=_mask_name(split_of(file), image["id"]),
        )


def _mask_name(split: str, number: int | str) -> str:
    """Return the name of an image's PNG mask in the trees of AFA, ToCo and SeCo: `train/000000000042`."""
    return f"{split}/{number:012d}" if isinstance(number, int) else ""


def _well_formed(file: Path, images: list[dict[str, Any]], problems: Problems) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the images that have an `id` and a `file_name`, each with its place for messages."""
    seen: set[int | str] = set()
    for image in images:
        number, given = image.get("id"), image.get("file_name")
        where = f"{file} image {number}"
        if not isinstance(number, int | str):
            problems.add("row", where, "has no `id`; number the images")
        elif number in seen:
            problems.add("duplicate name", where, "the id stands twice; give every image its own")
        elif not isinstance(given, str) or not given:
            problems.add("row", where, "names no `file_name`")
        else:
            seen.add(number)
            yield where, image


def _by_image(
    file: Path, content: dict[str, Any], labels: dict[int, int], problems: Problems
) -> dict[Any, list[dict[str, Any]]]:
    known = {number for image in content["images"] if isinstance(number := image.get("id"), int | str)}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        where = f"{file} annotation {annotation.get('id')}"
        category, image = annotation.get("category_id"), annotation.get("image_id")
        if not isinstance(category, int) or category not in labels:
            hint = nearest(str(category), map(str, labels))
            problems.add("unknown tag", where, f"category_id {category} is not among the categories; {hint}")
        elif not isinstance(image, int | str) or image not in known:
            problems.add("row", where, f"image_id {image} is not among the images; remove the annotation")
        else:
            found[image].append(annotation)
    return found


def _outlines(
    where: str, annotations: list[dict[str, Any]], labels: dict[int, int], crowds: bool, problems: Problems
) -> tuple[Outline, ...] | None:
    """Return an image's outlines; None where an object has none, for its pixels would be taken for background."""
    try:
        outlines = [_outline(annotation, labels[annotation["category_id"]], crowds) for annotation in annotations]
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        problems.add("mask", where, f"an outline is damaged ({error}); expected polygons [[x, y, ...]] or run lengths")
        return None
    return None if any(outline is None for outline in outlines) else tuple(filter(None, outlines))


def _outline(annotation: dict[str, Any], label: int, crowds: bool) -> Outline | None:
    crowd = crowds and bool(annotation.get("iscrowd"))
    code = annotation.get("segmentation")
    if isinstance(code, dict):
        runs = code["counts"] if isinstance(code["counts"], str) else tuple(map(int, code["counts"]))
        height, width = map(int, code["size"])
        return Outline(label, crowd, runs=runs, size=(height, width))
    if any(len(polygon) % 2 for polygon in code or ()):
        raise ValueError("a polygon has an odd number of coordinates")
    # Fewer than three points enclose nothing, and pycocotools would take four numbers for a box.
    polygons = tuple(array("d", polygon) for polygon in code or () if len(polygon) >= 6)
    return Outline(label, crowd, polygons) if polygons else None
