"""A path at which nothing is: the error names the nearest one there is, or the folder that was looked in."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tagmask import errors
from tagmask.cli import app
from tagmask.errors import no_such


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("photos/imges", "did you mean photos/images?"),
        ("PHOTO/Imges", "did you mean photos/images?"),  # several parts, capitals
        ("photos/tag.csv", "did you mean photos/tags.csv?"),
        ("./photos/../photoz", "did you mean photos/../photos?"),
        ("photos/xyz", "correct the path (looked in {place}/photos)"),
        ("photoz/xyz", "correct the path (looked in {place}/photos)"),
        ("xyz", "correct the path (looked in {place})"),
        ("photos/tags.csv/a", "correct the path (looked in {place}/photos/tags.csv)"),  # a file in place of a folder
        ("{place}/run/mien", "did you mean {place}/runs/mine?"),
    ],
)
def test_bad_input_a_path_that_is_not_there_is_met_by_the_nearest(place: Path, given: str, hint: str) -> None:
    given, hint = given.format(place=place), hint.format(place=place)
    assert str(no_such(given)) == f"{given}: no such file or folder; {hint}"


def test_bad_input_a_link_to_nothing_is_not_its_own_mend(place: Path) -> None:
    (place / "photos" / "link").symlink_to(place / "gone")
    assert str(no_such("photos/link", "folder")) == (
        f"photos/link: no such folder; correct the path (looked in {place}/photos)"
    )


def test_bad_input_a_file_where_a_folder_is_wanted_is_called_so() -> None:
    assert str(no_such("photos/tags.csv", "folder", "give the masks")) == (
        "photos/tags.csv: is a file, not a folder; give the masks"
    )


def test_of_a_folder_of_millions_the_first_names_alone_are_compared(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_LOOKED_AT", 0)
    assert str(no_such("photos/imges")).endswith(f"correct the path (looked in {place}/photos)")


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("train photoz -o runs/x", "photos?"),
        ("train photos -o runs/x -r recip.yaml", "recipe.yaml?"),
        ("train photos -o runs/x --set data.image_folder=photos/image", "photos/images?"),
        ("train photos -o runs/x --set data.masks=photos/image", "photos/images?"),
        ("data check photos/tag.csv", "photos/tags.csv?"),
        ("label runs/mien photos -o x", "runs/mine?"),
        ("predict runs/mien photos -o x", "runs/mine?"),
        ("predict runs photos -o x", "runs/mine?"),  # a level too high
        ("predict runs/mine/segmenter photos -o x", "runs/mine?"),  # a level too low
        ("refine cam photos -o x", "cams?"),
        ("suggest runs/mien photos", "runs/mine?"),
        ("evaluate mask folders", "masks?"),
        ("evaluate masks folder", "folders?"),
        ("report run/mine", "runs/mine?"),
        ("serve runs/mien", "runs/mine?"),
        ("export masks mask -f coco -o x --images photos", "masks?"),
        ("export masks masks -f coco -o x --images photo", "photos?"),
        ("export onnx runs/mien -o x.onnx", "runs/mine?"),
        ("push runs/mien me/mine", "runs/mine?"),
        ("tags photoz --classes cow", "photos?"),
        ("tags folders --classes clases.txt", "classes.txt?"),
        ("import seco ckpt.pth -o x", "ckpts.pth?"),
        ("data unpack shard.parquet -o x", "shards.parquet?"),
    ],
)
def test_bad_input_every_verb_that_takes_a_path_says_so(place: Path, command: str, hint: str) -> None:
    for folder in ("cams", "masks"):
        (place / folder).mkdir()
    for image in ("folders/cat/a.jpg", "folders/dog/b.jpg", "photos/images/a.jpg", "masks/a.png"):
        (place / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(place / image)
    (place / "masks" / "classes.txt").write_text("cat\ndog\n")
    (place / "recipe.yaml").write_text("method: cam\n")
    (place / "classes.txt").write_text("cow\n")
    (place / "runs" / "mine" / "segmenter").mkdir()
    (place / "runs" / "mine" / "run.json").touch()
    (place / "ckpts.pth").touch()
    (place / "shards.parquet").touch()
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code != 0
    said = str(result.exception) if result.exception else result.output
    assert f"did you mean {hint}" in said + result.output, said + result.output
