"""COCO instances files, with run-length codes or polygons."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.files import inside, write_text
from tagmask.data.writers.labelled import LabelledImage
from tagmask.data.writers.regions import Region, regions
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

DEFAULT = "default"


def write_coco(
    folder: Path, images: Iterable[LabelledImage], classes: Sequence[str], *, polygons: bool = False
) -> None:
    """Write `annotations/instances_SPLIT.json`, an annotation a region; SPLIT is `default` where there are no splits.

    Category ids are the ids of the label maps. Both codes give back every pixel: run lengths by definition, polygons
    because they run along the edges of pixels and reach holes through cuts.

    Raises:
        TagmaskError: pycocotools is missing.

    Source: COCO, "Data format", object detection.
    """
    files: dict[str, dict[str, Any]] = defaultdict(lambda: _empty(classes))
    for image in images:
        content = files[image.split or DEFAULT]
        height, width = image.labels.shape
        number = len(content["images"]) + 1
        content["images"].append({"id": number, "file_name": image.file_name, "width": width, "height": height})
        for region in regions(image.labels, len(classes)):
            left, top, right, bottom = region.box
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": region.label,
                    "bbox": [left, top, right, bottom],
                    "area": region.area,
                    "iscrowd": 0,
                    "segmentation": _polygons(region) if polygons else _runs(region, height, width),
                }
            )
    for split, content in files.items():
        path = inside(folder, f"annotations/instances_{split}.json", "split")
        write_text(path, json.dumps(content, ensure_ascii=False))


def _empty(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "info": {"description": "masks of tagmask"},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1) if label != IGNORE],
    }


def _polygons(region: Region) -> list[list[float]]:
    return [region.polygon().ravel().tolist()]


def _runs(region: Region, height: int, width: int) -> dict[str, Any]:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise TagmaskError("COCO files need pycocotools; pip install 'tagmask[coco]'") from error
    # Its type stubs know the compressed code only.
    plain: Any = {"size": [height, width], "counts": region.runs(height, width)}
    code = mask.frPyObjects(plain, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
