"""YOLO segmentation data sets: photographs, and beside them a text file each with an outline a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from tagmask.data.files import inside, write_text
from tagmask.data.members import copy_image
from tagmask.data.writers.labelled import LabelledImage
from tagmask.data.writers.output import Targets
from tagmask.data.writers.regions import regions

SPLITS = {
    **dict.fromkeys(("", "train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def write_yolo(folder: Path, images: Iterable[LabelledImage], classes: Sequence[str]) -> list[str]:
    """Write a data set for YOLO: `images/SPLIT/NAME.jpg`, `labels/SPLIT/NAME.txt` and `dataset.yaml`.

    Photographs are copied. A line of a label file is a region: its class number from 0, then x and y of each corner as
    fractions of width and height. Corners are those of pixels; holes are reached through cuts of no width.

    Returns:
        Notes for whoever trains on the data set.

    Raises:
        TagmaskError: two photographs would have the same label file.

    Source: Ultralytics, "Instance Segmentation Datasets Overview".
    """
    targets = Targets()
    splits: dict[str, None] = {}
    for image in images:
        split = SPLITS.get(image.split.lower(), image.split)
        splits[split] = None
        label = targets.claim(f"labels/{split}/{os.path.splitext(image.file_name)[0]}.txt", image.file_name)
        photograph = inside(folder, f"images/{split}/{image.file_name}", "image")
        photograph.parent.mkdir(parents=True, exist_ok=True)
        copy_image(image.image, photograph)
        write_text(inside(folder, label, "image"), _lines(image, len(classes)))
    named = {split: f"images/{split}" for split in splits}
    first = next(iter(named.values()), "images/train")
    content = {"train": first, "val": first} | named | {"names": dict(enumerate(classes))}
    write_text(folder / "dataset.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    missing = [split for split in ("train", "val") if split not in named]
    return [f"dataset.yaml: there is no split {split}, which YOLO asks for; it names {first}" for split in missing]


def _lines(image: LabelledImage, num_classes: int) -> str:
    """The text of an image's label file, a line a region."""
    height, width = image.labels.shape
    lines = []
    for region in regions(image.labels, num_classes):
        fractions = (region.polygon() / (width, height)).ravel()
        lines.append(f"{region.label - 1} {' '.join(f'{value:.6f}' for value in fractions)}\n")
    return "".join(lines)
