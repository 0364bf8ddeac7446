"""What workers and an estimate make of images that lie inside tar archives, named by their places there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tagmask.api import open_data
from tagmask.data.members import is_member
from tagmask.engine.fleet.estimate import count_images
from tagmask.engine.fleet.sources import Piece
from tagmask.engine.fleet.work import Job, finish_opened, label_piece, open_piece, score_opened
from tagmask.engine.inference import Item
from tagmask.methods.registry import build_method
from tagmask.recipes.load import DataConfig
from tests.conftest import tiny_recipe
from tests.engine.fleet.test_sources import CLASSES, tar_of


@pytest.fixture
def contents(photo: Path) -> dict[str, bytes]:
    """A few images, of which one is larger than a tile."""
    found = {}
    for number, size in enumerate([(48, 48), (90, 70), (40, 30)]):
        with Image.open(photo) as image, io.BytesIO() as stream:
            image.resize(size).save(stream, "PNG")
            found[f"{number}.png"] = stream.getvalue()
    return found


@pytest.fixture
def piece(contents: dict[str, bytes], tmp_path: Path) -> Piece:
    """The list of the images of a data set of shards, as `label --engine ray` makes it."""
    tags = {f"{number}.json": json.dumps({"tags": [CLASSES[number % 2]]}).encode() for number in range(len(contents))}
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/00.tar").write_bytes(tar_of(dict(sorted((contents | tags).items()))))
    records = open_data(tmp_path / "shards", DataConfig()).records
    assert all(is_member(record.image) for record in records)
    return Piece("part", "files", "", tuple(Item(each.name, each.image.absolute(), each.tags) for each in records))


def test_three_steps_label_an_image_in_an_archive_that_is_larger_than_a_tile(piece: Piece, tmp_path: Path) -> None:
    recipe = tiny_recipe("cam", "inference.tile=64")
    method = build_method(recipe, len(CLASSES)).eval()
    job = Job(recipe.inference, "decoder", CLASSES, True, True, str(tmp_path / "one"), "png", 128, 10**6)
    assert [row["images"] for row in label_piece(job, method, piece)] == [3]
    job = replace(job, output=str(tmp_path / "three"))
    for opened in open_piece(job, piece):
        assert len(opened.large) == 1
        assert finish_opened(job, score_opened(job, method, opened))["images"] == 3
    one, three = (
        {path.name: path.read_bytes() for path in (tmp_path / way).rglob("*.png")} for way in ("one", "three")
    )
    assert one == three
    assert len(one) == 3


def test_bytes_of_images_in_archives_are_counted(
    piece: Piece, contents: dict[str, bytes], photo: Path, tmp_path: Path
) -> None:
    size = sum(map(len, contents.values()))
    assert count_images([piece]) == (3, size, True)
    beside = replace(piece, items=(Item("photo", photo), Item("gone", tmp_path / "gone.png")))
    assert count_images([piece, beside]) == (5, size + photo.stat().st_size, True)
