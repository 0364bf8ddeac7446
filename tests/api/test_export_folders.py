"""Which folder of photographs an export takes where it is given that of the whole data set, or one too deep."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tagmask.api.export import export_masks
from tagmask.data.label_maps import write_label_map
from tagmask.errors import TagmaskError
from tests.data.trees import write_image


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Masks of a.jpg and sub/b.jpg, which lie in data/images beside a table that nobody can read as it is."""
    folder = tmp_path / "masks"
    for name in ("a", "sub/b"):
        write_label_map(folder / f"{name}.png", np.ones((4, 6), dtype=np.uint8))
        write_image(tmp_path / f"data/images/{name}.jpg", (6, 4))
    (folder / "classes.txt").write_text("cow\n")
    (tmp_path / "data/tags.csv").write_text("image;tags\na.jpg;cow\n")
    return folder


def exported(masks: Path, data: Path, output: Path) -> set[str]:
    assert export_masks(masks, data, output, format="coco").images == 2
    texts = [file.read_text() for file in output.rglob("instances*.json")]
    return {each["file_name"] for text in texts for each in json.loads(text)["images"]}


def test_the_folder_of_a_data_set_stands_for_the_photographs_in_it(masks: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = exported(masks, data / "images", tmp_path / "first")
    assert exported(masks, data, tmp_path / "second") == expected
    (data / "tags.csv").unlink()
    shutil.copytree(data / "images", data / "copies")
    assert exported(masks, data, tmp_path / "third") == expected, "images/ goes before other folders"
    (data / "images").rename(data / "some")
    with pytest.raises(TagmaskError, match=r"called after photographs of .*data/copies, .*data/some; give the one"):
        export_masks(masks, data, tmp_path / "fourth", format="coco")
    shutil.rmtree(data / "copies")
    assert exported(masks, data, tmp_path / "fifth") == expected


def test_a_folder_too_deep_is_told_with_the_one_above(masks: Path, tmp_path: Path) -> None:
    shutil.rmtree(masks / "sub")
    (masks / "images").mkdir()
    (masks / "a.png").rename(masks / "images" / "a.png")
    data = tmp_path / "data"
    with pytest.raises(TagmaskError) as raised:
        export_masks(masks, data / "images", tmp_path / "out", format="coco")
    assert str(raised.value).endswith(f"expected images/a.jpg or the like in it; did you mean {data}?")
