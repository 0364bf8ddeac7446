"""Archives that CVAT imports as "Segmentation mask 1.1"."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from PIL import Image

from tagmask.data.files import inside
from tagmask.data.label_maps import label_colours, voc_palette
from tagmask.data.writers.labelled import LabelledImage
from tagmask.data.writers.regions import regions
from tagmask.ops.label_ids import IGNORE

ARCHIVE = "segmentation_mask_1.1.zip"
DEFAULT = "default"
MOST_REGIONS = 255


def write_cvat(folder: Path, images: Iterable[LabelledImage], classes: Sequence[str]) -> None:
    """Write an archive of labelmap.txt, ImageSets/Segmentation/SPLIT.txt, SegmentationClass and SegmentationObject.

    Pixels are the colours that labelmap.txt gives the classes. A region is an object of its own; where an image has
    more than the 255 that the palette can tell apart, each class is one object. CVAT has no ignored pixels: they are
    written as background.

    Raises:
        TagmaskError: a class has a name that labelmap.txt cannot hold.

    Source: CVAT manual, "Segmentation Mask".
    """
    lists: dict[str, list[str]] = defaultdict(list)
    with ZipFile(folder / ARCHIVE, "w", ZIP_DEFLATED) as archive:
        archive.writestr("labelmap.txt", label_colours(classes))
        for image in images:
            known = np.where(image.labels == IGNORE, 0, image.labels).astype(np.uint8)
            inside(folder, image.name, "image")
            inside(folder, image.split or DEFAULT, "split")
            archive.writestr(f"SegmentationClass/{image.name}.png", _png(known))
            archive.writestr(f"SegmentationObject/{image.name}.png", _png(_objects(known, len(classes))))
            lists[image.split or DEFAULT].append(image.name)
        for split, names in lists.items():
            archive.writestr(f"ImageSets/Segmentation/{split}.txt", "".join(f"{name}\n" for name in names))


def _objects(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Number the regions of a label map from 1; of too many regions, each class is one object."""
    objects = np.zeros_like(labels)
    for number, region in enumerate(regions(labels, num_classes), start=1):
        if number > MOST_REGIONS:
            return labels
        left, top, width, height = region.box
        objects[top : top + height, left : left + width][region.inside] = number
    return objects


def _png(ids: np.ndarray) -> bytes:
    """Encode ids (h, w) as a PNG of the palette's colours."""
    stream = io.BytesIO()
    Image.fromarray(voc_palette()[ids]).save(stream, format="PNG")
    return stream.getvalue()
