"""Refining CAMs by themselves: whose ids are they?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tagmask.cam.files import write_cams
from tagmask.cli import app
from tagmask.errors import TagmaskError


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
