"""Small data sets the tests write, and the real ones that may lie beside the project."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROJECT = Path(__file__).parents[2]


def shared_data(name: str) -> Path:
    folder = Path(os.environ.get("TAGMASK_SHARED", PROJECT.parent / "shared")) / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no data set {name} beside the project; set TAGMASK_SHARED to the folder that holds data/{name}")
    return folder


def write_image(path: Path, size: tuple[int, int] = (8, 6), colour: tuple[int, int, int] = (10, 120, 230)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write_mask(path: Path, ids: np.ndarray | list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.asarray(ids, dtype=np.uint8))
    mask.putpalette([value for shade in range(256) for value in (shade, 255 - shade, 7)])
    mask.save(path)
    return path


def write_table(folder: Path, text: str, images: str = "a.jpg b.jpg", name: str = "tags.csv") -> Path:
    """A table in `folder` with 8 x 6 images in `folder/images`."""
    for image in images.split():
        write_image(folder / "images" / image)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def by_name(dataset) -> dict[str, tuple[str, ...]]:
    """Give the tags of each image, by its name."""
    return {record.name: tuple(dataset.classes[tag] for tag in record.tags) for record in dataset.records}
