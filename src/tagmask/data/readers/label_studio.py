"""JSON exports of Label Studio: choices and the labels of regions as tags, brushes and polygons as masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tagmask.data.codes import BrushCode
from tagmask.data.images import is_image_name
from tagmask.data.limits import parse_json
from tagmask.data.masks import AgreedMask
from tagmask.data.readers.drawings import ClassIds, Drawing, polygon, with_masks
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import (
    FileIndex,
    Options,
    Row,
    Source,
    class_list_beside,
    find_image,
    read_text,
)
from tagmask.errors import TagmaskError

TASK_LIST = re.compile(r"\s*\[\s*\{")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
MAX_PARTS = 32  # of an address that are looked for: all ends of a long one together are of quadratic length


def is_task_list(file: Path) -> bool:
    """Tell whether a file holds a JSON list of objects, as an export does and a COCO file does not."""
    if not file.is_file():
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return TASK_LIST.match(stream.read(64)) is not None


def find_label_studio(folder: Path) -> Path | None:
    """Return the export in a folder; None where it has none.

    Raises:
        TagmaskError: there are several.
    """
    files = [file for file in sorted(folder.glob("*.json")) if is_task_list(file)]
    if len(files) > 1:
        raise TagmaskError(f"{folder}: holds several exports ({', '.join(file.name for file in files[:5])}); name one")
    return files[0] if files else None


def read_label_studio(path: Path, options: Options, problems: Problems) -> Source:
    """Read an export of the type JSON.

    An image's tags are the choices and region labels of its annotations. A tag that only some of several annotators
    gave is unknown; where nobody has annotated, or all skipped, nobody knows any. Predictions do not count. The classes
    are those of `classes.txt` beside the file, else the tags seen. Images are looked for by ever shorter ends of their
    address in `image_folder`, or in `images` beside the file, or beside it; without the eight digits that Label Studio
    puts before the name of an uploaded file, too.

    Brush regions and polygons are the ground truth, where everything that an annotator labelled in the image has one;
    later regions lie over earlier ones. Pixels on which several annotators differ are ignored.

    Source: Label Studio, "Label Studio JSON format of annotated tasks".
    """
    file = find_label_studio(path) if path.is_dir() else path
    if file is None:
        raise TagmaskError(f"{path}: no JSON export of Label Studio in it; name the file itself")
    bases = [options.image_folder] if options.image_folder else [file.parent / "images", file.parent]
    bases = [os.path.normpath(base) for base in bases]
    index = FileIndex()
    names = class_list_beside(file.parent)
    ids = ClassIds(names)
    rows: list[Row] = []
    for number, task in enumerate(_tasks(file), start=1):
        where = f"{file} task {task.get('id', number)}"
        try:
            rows.append(_row(where, task, ids, bases, index, problems))
        except TagmaskError as error:
            problems.add("row", where, str(error))
    rows, without = with_masks(rows, file)
    return Source(
        path=path,
        rows=rows,
        classes=names,
        classes_from=str(file.parent / "classes.txt"),
        tag_source=f"annotations of {file.name} (Label Studio)",
        skipped=without,
        mask_names=ids.names,
    )


def _tasks(file: Path) -> list[dict[str, Any]]:
    try:
        tasks = parse_json(read_text(file))
    except TagmaskError as error:
        raise TagmaskError(f"{file}: {str(error).removeprefix(f'{file}: ')}; export it again") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise TagmaskError(f"{file}: is no list of tasks; export from Label Studio as JSON")
    if not tasks:
        raise TagmaskError(f"{file}: names no task")
    if not any("data" in task for task in tasks):
        raise TagmaskError(f"{file}: its tasks have no `data`; export from Label Studio as JSON, not as JSON-MIN")
    return tasks


def _row(
    where: str, task: dict[str, Any], ids: ClassIds, bases: list[str], index: FileIndex, problems: Problems
) -> Row:
    address = _address(task.get("data"))
    name, image = find_image(where, _places(address, bases), bases, index, problems)
    annotations = _annotations(task)
    sets = [_labels(annotation) for annotation in annotations]
    tags = list(dict.fromkeys(tag for given in sets for tag in given))
    agreed = tuple(tag for tag in tags if all(tag in given for given in sets))
    unknown = tuple(tag for tag in tags if tag not in agreed) if sets else None
    masks = [
        _drawing(where, annotation.get("result") or [], ids).mask(given)
        for annotation, given in zip(annotations, sets, strict=True)
    ]
    whole = tuple(mask for mask in masks if mask is not None)
    mask = AgreedMask(whole) if whole and len(whole) == len(masks) else None
    return Row(where, name, image, agreed, unknown, mask=mask)


def _address(data: Any) -> str:
    """Return the one value of a task's data that names an image."""
    values = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    named = {key: value for key, value in values.items() if is_image_name(os.path.basename(_path(value)))}
    if "image" in named:
        return named["image"]
    if len(named) != 1:
        keys = ", ".join(named or values) or "none"
        raise TagmaskError(f"expected one image among its `data`, found {len(named)} (keys: {keys}); call it `image`")
    return next(iter(named.values()))


def _path(address: str) -> str:
    """Return the path in an address: of a local file, an uploaded one, a bucket or a web page."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError as error:
        raise TagmaskError(f"its address {address[:80]!r} is none ({error}); correct it") from error
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _places(address: str, bases: list[str]) -> Iterator[str]:
    parts = [part for part in _path(address).split("/") if part not in ("", ".", "..")][-MAX_PARTS:]
    for start in range(len(parts)):
        for base in bases:
            yield os.path.normpath(os.path.join(base, *parts[start:]))
        if UPLOADED.match(parts[-1]):
            for base in bases:
                yield os.path.normpath(os.path.join(base, *parts[start:-1], UPLOADED.sub("", parts[-1])))


def _annotations(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what annotators have handed in; older versions of Label Studio call it completions."""
    found = task.get("annotations", task.get("completions")) or []
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise TagmaskError("its `annotations` are no list of objects; export from Label Studio as JSON")
    return [annotation for annotation in found if not annotation.get("was_cancelled")]


def _labels(annotation: dict[str, Any]) -> tuple[str, ...]:
    labels: dict[str, None] = {}
    results = annotation.get("result") or []
    if not isinstance(results, list):
        raise TagmaskError("the `result` of an annotation is no list; export from Label Studio as JSON")
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict | None):
            raise TagmaskError("the `value` of a result is no object; export from Label Studio as JSON")
        labels.update(dict.fromkeys(_names(value or {}, "choices", "labels")))
    return tuple(labels)


def _names(value: dict[str, Any], *ends: str) -> tuple[str, ...]:
    """Return the names that a result's value gives under keys of these ends, such as brushlabels, polygonlabels."""
    lists = (names for key, names in value.items() if key.endswith(ends) and isinstance(names, list))
    return tuple(dict.fromkeys(str(name).strip() for names in lists for name in names))


def _drawing(where: str, results: list[dict[str, Any]], ids: ClassIds) -> Drawing:
    """Gather the regions of one annotation, in the order of the results.

    Raises:
        TagmaskError: a polygon or the bytes of a brush are damaged.
    """
    drawing = Drawing(where)
    for result in results:
        value = (result.get("value") if isinstance(result, dict) else None) or {}
        names = _names(value, "labels")
        if not names:  # a choice, a text, or a region whose labels stand in a result of their own
            continue
        height, width = result.get("original_height"), result.get("original_width")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        try:
            if size is None or result.get("image_rotation"):
                drawing.loose = True
            elif value.get("rle"):
                drawing.add(names, ids, code=BrushCode(bytes(iter(value["rle"]))))  # bytes(5) would be five zeros
            elif value.get("points"):
                points = ((x * size[1] / 100, y * size[0] / 100) for x, y in value["points"])  # percent of the sides
                drawing.add(names, ids, polygons=polygon(points))
            else:
                drawing.loose = True
        except (TypeError, ValueError) as error:
            raise TagmaskError(f"the region of {names[0]!r} is damaged ({error}); export again") from error
        drawing.size = drawing.size or size
    return drawing
