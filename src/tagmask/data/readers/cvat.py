"""XML of CVAT ("CVAT for images"): tags and the labels of shapes as tags, polygons and masks as ground truth."""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from tagmask.data.codes import BoxRuns
from tagmask.data.dataset import check_class_list
from tagmask.data.limits import parse_xml
from tagmask.data.names import is_background
from tagmask.data.readers.drawings import ClassIds, Drawing, polygon, with_masks
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, find_image
from tagmask.errors import TagmaskError

FILE = "annotations.xml"
LABELS = "meta//labels/label/name"


def find_cvat(folder: Path) -> Path | None:
    """Return the `annotations.xml` of a folder, else its one XML file that begins as CVAT's do; None without any.

    Raises:
        TagmaskError: there are several of these.
    """
    if (folder / FILE).is_file():
        return folder / FILE
    files = [file for file in sorted(folder.glob("*.xml")) if file.is_file() and _is_cvat(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise TagmaskError(f"{folder}: holds several files of CVAT ({names}); name one of them")
    return files[0] if files else None


def _is_cvat(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return "<annotations>" in stream.read(256)


def read_cvat(path: Path, options: Options, problems: Problems) -> Source:
    """Read a file of the format "CVAT for images 1.1", or the folder it was unpacked to.

    Every `<tag>` and every shape of an image gives its label as a tag. The classes are the labels of the task or
    project, in its order. The split is the image's `subset`. Images are in `image_folder`, or in `images` beside the
    file, by their name or under their subset, or beside the file.

    Polygons and masks are the ground truth of an image in which nothing is boxed or tagged that is not outlined; what
    has the higher `z_order`, else what comes later, lies above.

    Source: CVAT manual, "XML annotation format", version 1.1.
    """
    file = (find_cvat(path) or path / FILE) if path.is_dir() else path
    root = _parsed(file)
    names = tuple(dict.fromkeys((label.text or "").strip() for label in root.iterfind(LABELS)))
    classes = tuple(name for name in names if not is_background(name))
    if classes:
        check_class_list(classes, f"{file}, labels", most=None)
    folders = [options.image_folder] if options.image_folder else [file.parent / "images", file.parent]
    bases = [os.path.normpath(folder) for folder in folders]
    index = FileIndex()
    ids = ClassIds(names)
    found = (_row(file, image, ids, bases, index, problems) for image in root.iter("image"))
    rows, without = with_masks([row for row in found if row is not None], file)
    if not rows and not problems.found:
        raise TagmaskError(f'{file}: names no image; export the task as "CVAT for images 1.1"')
    return Source(
        path=path,
        rows=rows,
        classes=classes or None,
        classes_from=f"the labels of {file}",
        tag_source=f"tags and shapes of {file.name} (CVAT)",
        skipped=without,
        mask_names=ids.names,
    )


def _parsed(file: Path) -> Element:
    root = parse_xml(file)
    if root.tag != "annotations":
        raise TagmaskError(f"{file}: begins with <{root.tag}>, expected <annotations> of CVAT; for VOC name its folder")
    if root.find("track") is not None:
        raise TagmaskError(f'{file}: holds tracks of "CVAT for video"; export the task as "CVAT for images 1.1"')
    return root


def _row(
    file: Path, image: Element, ids: ClassIds, bases: list[str], index: FileIndex, problems: Problems
) -> Row | None:
    given = (image.get("name") or "").strip().replace("\\", "/")
    where = f"{file} image {given or image.get('id')}"
    if not given:
        problems.add("row", where, "has no `name`; name the image file")
        return None
    subset = (image.get("subset") or "").strip()
    places = [os.path.normpath(os.path.join(base, given)) for base in bases]
    places += [os.path.normpath(os.path.join(base, subset, given)) for base in bases if subset]
    name, path = find_image(where, places, bases, index, problems)
    tags = tuple(dict.fromkeys(label for shape in image if (label := (shape.get("label") or "").strip())))
    try:
        mask = _drawing(where, image, ids).mask(tags)
    except (TypeError, ValueError, OverflowError) as error:
        problems.add("mask", where, f"a shape is damaged ({error}); export the task again")
        mask = None
    return Row(where, name, path, tags, split=subset, mask=mask)


def _drawing(where: str, image: Element, ids: ClassIds) -> Drawing:
    """Gather the regions of an image, the lowest first.

    Raises:
        TypeError, ValueError, OverflowError: a shape lacks a number, or what stands there is none.
    """
    size = image.get("height"), image.get("width")
    drawing = Drawing(where, (int(size[0]), int(size[1])) if size[0] and size[1] else None)
    groups = defaultdict[tuple[str | None, str | None], list[Element]](list)
    for shape in image:
        groups[shape.get("group_id"), shape.get("label")].append(shape)
    for shape in sorted(image, key=lambda shape: int(shape.get("z_order") or 0)):
        label = (shape.get("label") or "").strip()
        if not label or shape.tag == "tag":
            continue
        if shape.tag == "polygon":
            drawing.add([label], ids, polygons=polygon(_points(shape)))
        elif shape.tag == "mask":
            left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
            runs = array("l", map(int, (shape.get("rle") or "").split(",")))
            drawing.add([label], ids, code=BoxRuns(runs, left, top, width, height))
        elif not _outlined_too(shape, groups[shape.get("group_id"), shape.get("label")]):
            drawing.loose = True
    return drawing


def _outlined_too(shape: Element, group: Sequence[Element]) -> bool:
    """Whether a box is that of the one mask or polygon in its group, around which it lies; Datumaro writes both."""
    outlines = [other for other in group if other.tag in ("mask", "polygon")]
    if shape.tag != "box" or (shape.get("group_id") or "0") == "0" or len(group) != 2 or len(outlines) != 1:
        return False
    left, top, right, bottom = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
    (other,) = outlines
    if other.tag == "polygon":
        columns, rows = zip(*_points(other), strict=True)
        bounds = min(columns), min(rows), max(columns), max(rows)
    else:
        x, y, width, height = (int(other.get(key, "")) for key in ("left", "top", "width", "height"))
        bounds = x, y, x + width, y + height
    inside = left >= bounds[0] - 1, top >= bounds[1] - 1, right <= bounds[2] + 1, bottom <= bounds[3] + 1
    return all(inside)


def _points(shape: Element) -> list[tuple[float, float]]:
    """Read the corners (x, y) of a polygon, in pixels; ValueError where one is no pair of numbers."""
    pairs = (pair.split(",") for pair in (shape.get("points") or "").split(";"))
    return [(float(x), float(y)) for x, y in pairs]
