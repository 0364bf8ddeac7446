"""JSON files of LabelMe and X-AnyLabeling, one an image: labels and flags as tags, polygons and masks as masks."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagmask.data.codes import PngCode
from tagmask.data.limits import parse_json
from tagmask.data.readers.drawings import ClassIds, Drawing, polygon, with_masks
from tagmask.data.readers.folders import SPLIT_NAMES
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, class_list_beside, find_image, read_text
from tagmask.data.walk import files_below
from tagmask.errors import TagmaskError

BEGINNING = re.compile(r'\s*\{.*"shapes"\s*:', re.DOTALL)
DEPTH = 3
"""How many folders down the JSON files may lie."""


def is_labelme(file: Path) -> bool:
    """Tell whether a file begins as one of LabelMe does, whose `shapes` come before the image's own bytes."""
    if not file.is_file():
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return BEGINNING.match(stream.read(4096)) is not None


def find_labelme(folder: Path) -> Path | None:
    """Return a JSON file of LabelMe in a folder or below it; None where the first of each folder is none."""
    for place, folders, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        first = next((name for name in sorted(names) if name.lower().endswith(".json")), None)
        if first is not None and is_labelme(Path(place, first)):
            return Path(place, first)
    return None


def read_labelme(path: Path, options: Options, problems: Problems) -> Source:
    """Read a JSON file of LabelMe or X-AnyLabeling, or all of a folder.

    An image's tags are the labels of its shapes and the flags that are set for it. Polygons and masks are the ground
    truth, where nothing else is marked; later shapes lie over earlier ones. The image is the file's `imagePath`, looked
    for in `image_folder` or beside the file, or bears the file's name. The split is the folder that has a split's name.
    Images without a JSON file are left out, for nobody has looked at them.

    Source: LabelMe, `labelme/label_file.py`, version 5.
    """
    files = sorted(_files(path)) if path.is_dir() else [path]
    if not files:
        raise TagmaskError(f"{path}: no JSON file of LabelMe in it; name the folder that holds them")
    root = path if path.is_dir() else path.parent
    names = class_list_beside(root)
    ids = ClassIds(names)
    index = FileIndex()
    rows: list[Row] = []
    for file in files:
        try:
            rows.append(_row(file, root, ids, options, index, problems))
        except TagmaskError as error:
            problems.add("row", str(file), str(error).removeprefix(f"{file}: "))
    rows, without = with_masks(rows, path)
    return Source(
        path=path,
        rows=rows,
        classes=names,
        classes_from=str(root / "classes.txt"),
        tag_source="labels and flags of LabelMe's JSON files",
        skipped=without,
        mask_names=ids.names,
    )


def _files(folder: Path) -> Iterator[Path]:
    for file, regular in files_below(folder):
        if regular and file.lower().endswith(".json") and is_labelme(Path(file)):
            yield Path(file)


def _row(file: Path, root: Path, ids: ClassIds, options: Options, index: FileIndex, problems: Problems) -> Row:
    content = parse_json(read_text(file))
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise TagmaskError("its `shapes` are no list of objects; save it again in LabelMe")
    given = content.get("imagePath")
    given = given.replace("\\", "/") if isinstance(given, str) and given else f"{file.stem}.jpg"
    inner = file.parent.relative_to(root)
    folders = [options.image_folder / inner, options.image_folder] if options.image_folder else [file.parent]
    # Files are moved and renamed together with their images; what the path said then may be gone.
    ends = (given, os.path.basename(given), file.stem + os.path.splitext(given)[1])
    places = [os.path.normpath(os.path.join(folder, end)) for folder in folders for end in ends]
    top = os.path.normpath(options.image_folder or root)
    name, image = find_image(str(file), places, [top], index, problems)
    flags = content.get("flags")
    flagged = [flag for flag, is_set in flags.items() if is_set is True] if isinstance(flags, dict) else []
    labels = [str(shape.get("label") or "").strip() for shape in shapes]
    if not all(labels):
        raise TagmaskError("a shape has no label, so nobody knows what it is; name it in LabelMe, or remove it")
    tags = tuple(dict.fromkeys((*labels, *flagged)))
    split = next((part for part in inner.parts if part.lower() in SPLIT_NAMES), "")
    return Row(str(file), name, image, tags, split=split, mask=_drawing(file, content, ids).mask(tags))


def _drawing(file: Path, content: dict[str, Any], ids: ClassIds) -> Drawing:
    """Gather the regions of an image, in the order of the file.

    Raises:
        TagmaskError: a polygon or a mask is damaged.
    """
    height, width = content.get("imageHeight"), content.get("imageWidth")
    drawing = Drawing(str(file), (height, width) if isinstance(height, int) and isinstance(width, int) else None)
    for shape in content["shapes"]:
        kind, label = shape.get("shape_type") or "polygon", str(shape["label"]).strip()
        try:
            if kind == "polygon":
                drawing.add([label], ids, polygons=polygon(shape.get("points")))
            elif kind == "mask":
                left, top = (int(value) for value in shape["points"][0])
                drawing.add([label], ids, code=PngCode(base64.b64decode(shape["mask"], validate=True), left, top))
            else:
                drawing.loose = True
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise TagmaskError(f"the {kind} of {label!r} is damaged ({error}); draw it again") from error
    return drawing
