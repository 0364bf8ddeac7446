"""GlaS as OEEM uses it: patches with tags, and the patches' masks joined to those of whole images.

Source: Li et al., Online Easy Example Mining for Weakly-supervised Gland Segmentation, MICCAI 2022, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.api.reproduce.trees import glas_images, glas_mask
from tagmask.data.csv_cells import csv_text
from tagmask.data.files import write_classes, write_text
from tagmask.data.images import open_image
from tagmask.data.label_maps import write_png
from tagmask.data.masks import PngMask

CLASSES = ("gland", "rest")
SIDE, STRIDE = 112, 56
LEAST = 0.05
"""A patch bears the tag of what covers more of it than this."""


def write_patches(root: Path, folder: Path) -> None:
    """Cut the training images into tagged patches, `images/train_1@56_112.png` and `tags.csv`.

    A second start goes on. The table comes last: where it is, all patches are.
    """
    if (folder / "tags.csv").exists():
        return
    rows: list[tuple[str, str]] = []
    for image in glas_images(root, "train"):
        pixels, labels = np.asarray(open_image(image)), _labels(image)
        for top, left in places(*labels.shape):
            cut = np.s_[top : top + SIDE, left : left + SIDE]
            name = f"{image.stem}@{top}_{left}.png"
            covered = [(labels[cut] == label).mean() > LEAST for label in (1, 2)]
            if not (folder / "images" / name).exists():
                write_png(folder / "images" / name, Image.fromarray(pixels[cut]))
            rows.append((name, ";".join(tag for tag, there in zip(CLASSES, covered, strict=True) if there)))
    write_classes(folder, CLASSES)
    write_text(folder / "tags.csv", csv_text([("image", "tags"), *rows]))


def join_patches(root: Path, masks: Path, folder: Path) -> None:
    """Write whole training images, labelled by a vote of their patches, and the test images with their ground truth.

    Args:
        root: of GlaS.
        masks: folder of the patches' masks, as the stage `refine` leaves them: `train_1@56_112.png`.
        folder: gets `images/`, `masks/`, `tags.csv` and `classes.txt`; the table comes last.
    """
    if (folder / "tags.csv").exists():
        return
    rows = []
    for split in ("train", "test"):
        for image in glas_images(root, split):
            labels = _labels(image)
            if split == "train":
                votes = np.zeros((len(CLASSES), *labels.shape), np.int32)
                for top, left in places(*labels.shape):
                    cut = PngMask(masks / f"{image.stem}@{top}_{left}.png").ids()
                    for index in range(len(CLASSES)):
                        votes[index, top : top + SIDE, left : left + SIDE] += cut == index + 1
                labels = (votes.argmax(axis=0) + 1).astype(np.uint8)
            write_png(folder / "images" / f"{image.stem}.png", open_image(image))
            write_png(folder / "masks" / f"{image.stem}.png", Image.fromarray(labels))
            rows.append((f"{image.stem}.png", ";".join(CLASSES), split))
    write_classes(folder, CLASSES)
    write_text(folder / "tags.csv", csv_text([("image", "tags", "split"), *rows]))


def places(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield top and left of the patches of an image: every `STRIDE` pixels, and flush with the far sides."""
    for top in _starts(height):
        for left in _starts(width):
            yield top, left


def _starts(length: int) -> list[int]:
    starts = list(range(0, max(length - SIDE, 0) + 1, STRIDE))
    return starts if starts[-1] + SIDE >= length else [*starts, length - SIDE]


def _labels(image: Path) -> np.ndarray:
    """Return the (H, W) uint8 label map of a photograph: 1 gland, 2 rest."""
    return np.where(PngMask(glas_mask(image)).ids() > 0, 1, 2).astype(np.uint8)
