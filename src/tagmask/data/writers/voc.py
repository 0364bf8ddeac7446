"""PASCAL VOC trees: photographs, palette masks, boxes and lists of names."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from tagmask.data.files import inside, write_classes, write_text
from tagmask.data.label_maps import label_colours, write_label_map
from tagmask.data.members import copy_image
from tagmask.data.writers.labelled import LabelledImage
from tagmask.data.writers.output import Targets
from tagmask.data.writers.regions import regions
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

DEFAULT = "train"


def write_voc(folder: Path, images: Iterable[LabelledImage], classes: Sequence[str]) -> list[str]:
    """Write JPEGImages, SegmentationClass, Annotations, ImageSets/Segmentation/SPLIT.txt, classes.txt and labelmap.txt.

    Photographs are copied as they are. VOC knows no folders inside these and its lists no spaces: `summer trip/a.jpg`
    becomes `summer_trip__a.jpg`. An object of the XML files is a region; masks keep ignored pixels as 255. The split is
    `train` where there is none.

    Returns:
        Notes for whoever reads the data set by another tool.

    Raises:
        TagmaskError: two photographs would have the same name.

    Source: "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 6 and 7.
    """
    targets = Targets()
    lists: dict[str, list[str]] = defaultdict(list)
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    ignored = False
    for image in images:
        stem, suffix = os.path.splitext(image.file_name)
        name = targets.claim(re.sub(r"\s", "_", stem.replace("/", "__")), image.file_name)
        copy_image(image.image, inside(folder, f"JPEGImages/{name}{suffix}", "image"))
        write_label_map(folder / "SegmentationClass" / f"{name}.png", image.labels)
        tree = ElementTree(_annotation(image, f"{name}{suffix}", classes))
        indent(tree)
        tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")
        ignored |= bool((image.labels == IGNORE).any())
        lists[image.split or DEFAULT].append(name)
    for split, names in lists.items():
        path = inside(folder, f"ImageSets/Segmentation/{split}.txt", "split")
        write_text(path, "".join(f"{name}\n" for name in names))
    write_classes(folder, classes)
    try:
        write_text(folder / "labelmap.txt", label_colours(classes, ignored=ignored))
    except TagmaskError as error:
        return [f"no labelmap.txt, without which CVAT and Datumaro take the masks for VOC's 20 classes: {error}"]
    return []


def _annotation(image: LabelledImage, file_name: str, classes: Sequence[str]) -> Element:
    """Make the XML of an image, an object with its box for each region."""
    height, width = image.labels.shape
    root = Element("annotation")
    _add(root, filename=file_name)
    _add(SubElement(root, "source"), image=image.file_name)
    _add(SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=1)
    for region in regions(image.labels, len(classes)):
        left, top, columns, rows = region.box
        item = SubElement(root, "object")
        _add(item, name=classes[region.label - 1], truncated=0, difficult=0)
        # VOC counts pixels from 1, and a box ends at its last pixel.
        _add(SubElement(item, "bndbox"), xmin=left + 1, ymin=top + 1, xmax=left + columns, ymax=top + rows)
    return root


def _add(parent: Element, **values: object) -> None:
    for key, value in values.items():
        SubElement(parent, key).text = str(value)
