"""What `train` looks at and tells before it trains: its output, the weights, and what is left out of the data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import tagmask
from tagmask.api import choose
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(autouse=True)
def nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> float:
        raise AssertionError("a network was timed")

    monkeypatch.setattr(choose, "time_forward", slow)


@pytest.mark.parametrize("recipe", ["auto", tiny_recipe("cam")])
def test_the_output_is_looked_at_first(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    no_data = tmp_path / "gone"  # would be told next
    with pytest.raises(TagmaskError, match="not empty and no run folder; choose another output"):
        tagmask.train(no_data, recipe=recipe, output=tmp_path)
    with pytest.raises(TagmaskError, match=r"letter\.txt is a file, not a folder"):
        tagmask.train(no_data, recipe=recipe, output=tmp_path / "letter.txt")
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    with pytest.raises(TagmaskError, match=r"runs/mine: cannot be written \(Permission denied\); change the folder's"):
        tagmask.train(no_data, recipe=recipe, output=tmp_path / "runs/mine")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("recipe", ["auto", "cam/default"])
def test_the_weights_are_looked_at_first(recipe: str, cooccur: Path, tmp_path: Path) -> None:
    run, weights = tmp_path / "run", tmp_path / "weights"

    def told() -> str:
        with pytest.raises(TagmaskError) as raised:
            tagmask.train(cooccur, recipe=recipe, output=run, overrides=(f"backbone.weights={weights}",))
        assert not run.exists()
        return str(raised.value)

    assert f"backbone.weights {weights}: no such file; put it at {weights}" in told()
    weights.mkdir()
    fault = f"backbone.weights {weights}: is a folder, not a file of weights; "
    assert f"{fault}name the file of weights" in told()
    (weights / "model.safetensors").touch()
    assert f"{fault}did you mean {weights / 'model.safetensors'}?" in told()


def test_what_is_left_out_of_the_data_and_doubtful_splits_are_told(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(cooccur, photos)
    table = (photos / "tags.csv").read_text().replace(",val", ",vall").splitlines()
    image, _, split = table[1].split(",")
    (photos / "tags.csv").write_text("\n".join([table[0], f"{image},,{split}", *table[2:]]) + "\n")
    tagmask.train(photos, recipe=tiny_recipe("cam", "training.steps=1"), output=tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("left out: ")] == [
        f"left out: {photos / 'tags.csv'} row 2: image {Path(image).stem!r} has no tags"
    ]
    assert any(line.startswith("split 'vall': spelt nearly as 'val'") for line in said)
