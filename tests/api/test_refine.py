"""Refining CAMs by themselves: whose ids are they?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tagmask.cli import app
from tagmask.data.cam_files import write_cams
from tagmask.data.dataset import Record
from tagmask.engine.refine_folder import refine_folder
from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe
from tagmask.recipes.stages import RefineConfig


@pytest.fixture
def boat(tmp_path: Path) -> Path:
    """One photograph of a boat among classes cow and boat, and its CAM, made when boat was the first class."""
    data, cams = tmp_path / "data", tmp_path / "cams"
    data.mkdir()
    Image.new("RGB", (6, 4), (90, 90, 90)).save(data / "a.png")
    (data / "tags.csv").write_text("image,tags\na.png,boat\n")
    (data / "classes.txt").write_text("cow\nboat\n")
    write_cams(cams / "a.npz", torch.full((1, 4, 6), 0.8), [0])
    return tmp_path


def told(folder: Path, *more: str) -> list[str]:
    return ["refine", f"{folder}/cams", f"{folder}/data", "--with", "none", "-o", f"{folder}/masks", *more]


def test_the_list_beside_the_cams_says_what_their_ids_mean(boat: Path) -> None:
    refused = CliRunner().invoke(app, told(boat))
    assert "a CAM of label 1, which image 'a' does not bear" in str(refused.exception)
    (boat / "cams" / "classes.txt").write_text("boat\ncow\n")
    assert CliRunner().invoke(app, told(boat)).exit_code == 0
    assert np.unique(np.asarray(Image.open(boat / "masks" / "a.png"))).tolist() == [1]
    assert (boat / "masks" / "classes.txt").read_text() == "boat\ncow\n"


def test_another_list_in_the_recipe_is_refused(boat: Path) -> None:
    (boat / "cams" / "classes.txt").write_text("boat\ncow\n")
    refused = CliRunner().invoke(app, told(boat, "--set", "data.classes=[cow, boat]"))
    assert isinstance(refused.exception, TagmaskError)
    assert "leave data.classes out" in str(refused.exception)
    assert CliRunner().invoke(app, told(boat, "--set", "data.classes=[boat, cow]")).exit_code == 0


def test_tags_that_the_cams_do_not_know_lead_to_the_run_that_does(boat: Path) -> None:
    (boat / "cams" / "classes.txt").write_text("boat\n")
    (boat / "data" / "classes.txt").unlink()
    (boat / "data" / "tags.csv").write_text("image,tags\na.png,boat;water\n")
    refused = CliRunner().invoke(app, told(boat))
    assert "if a run wrote these CAMs, name it by --run, which knows its context classes" in str(refused.exception)
    (boat / "data" / "tags.csv").unlink()
    other = CliRunner().invoke(app, told(boat))
    assert isinstance(other.exception, TagmaskError)
    assert "--run" not in str(other.exception)


def test_masks_that_were_there_are_kept_and_said(boat: Path) -> None:
    (boat / "cams" / "classes.txt").write_text("boat\ncow\n")
    CliRunner().invoke(app, told(boat, "--set", "refine.background_score=0.1"))
    again = CliRunner().invoke(app, told(boat, "--set", "refine.background_score=0.9"))
    assert "1 of them were there before and stay as they were" in again.output
    assert np.unique(np.asarray(Image.open(boat / "masks" / "a.png"))).tolist() == [1]


def test_a_damaged_file_of_cams_is_left_out_and_the_rest_is_made(boat: Path) -> None:
    (boat / "cams" / "classes.txt").write_text("boat\ncow\n")
    Image.new("RGB", (6, 4)).save(boat / "data" / "b.png")
    (boat / "data" / "tags.csv").write_text("image,tags\na.png,boat\nb.png,cow\n")
    (boat / "cams" / "b.npz").write_bytes(b"no archive")
    done = CliRunner().invoke(app, told(boat))
    assert "b.npz: damaged or no file of CAMs" in done.output
    assert (boat / "masks" / "a.png").exists()


def test_the_power_of_fusion_is_rcas() -> None:
    assert RefineConfig(name="fusion").alpha == 4
    assert RefineConfig(name="fusion", alpha=7).alpha == 7
    assert RefineConfig(name="crf").alpha == 16
    assert load_recipe({"method": "rca", "refine": {"name": "fusion"}}).refine.alpha == 4  # pyright: ignore


def test_saliency_maps_are_pictures(tmp_path: Path) -> None:
    """White is salient in a map of one bit, of a palette or of colours; what has none is fused without."""
    names = ["bit", "palette", "colours", "none", "small"]
    for name in names:
        Image.new("RGB", (12, 8), (90, 90, 90)).save(tmp_path / f"{name}.png")
        cam = torch.zeros(1, 8, 12)
        cam[:, :, 6:] = 0.9
        write_cams(tmp_path / "cams" / f"{name}.npz", cam, [0])
    maps = tmp_path / "saliency"
    maps.mkdir()
    white = Image.new("L", (12, 8), 255)
    white.convert("1").save(maps / "bit.png")
    white.convert("P").save(maps / "palette.png")
    white.convert("RGB").save(maps / "colours.png")
    Image.new("L", (3, 2), 255).save(maps / "small.png")
    records = [Record(name, tmp_path / f"{name}.png", (0,)) for name in names]
    config = RefineConfig(name="fusion", saliency=maps)
    skipped = refine_folder(tmp_path / "cams", records, tmp_path / "masks", config)
    assert len(skipped) == 1
    assert "small.png: 3 x 2 pixels, and its image has 12 x 8" in skipped[0]
    found = {name: set(np.unique(np.asarray(Image.open(tmp_path / "masks" / f"{name}.png")))) for name in names[:4]}
    # Where all is salient, no pixel may be background.
    assert [0 in found[name] for name in names[:4]] == [False, False, False, True]
    elsewhere = config.model_copy(update={"saliency": tmp_path / "nowhere"})
    with pytest.raises(TagmaskError, match=r"no map of any image, such as bit\.png"):
        refine_folder(tmp_path / "cams", records, tmp_path / "other", elsewhere)
