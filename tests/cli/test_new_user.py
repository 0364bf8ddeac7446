"""A new user's path: a folder of tagged photographs, three commands, masks, then the report. No YAML is written."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SHORT = ("training.steps=6", "training.batch=2", "training.workers=0")


def tagmask(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "empty-cache")}
    command = [sys.executable, "-m", "tagmask", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_three_commands_from_folder_to_masks(cooccur: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copytree(cooccur / "images", photos / "images")
    shutil.copy(cooccur / "tags.csv", photos)

    settings = [text for setting in SHORT for text in ("--set", setting)]
    for command in (
        ("data", "check", "photos/"),
        ("train", "photos/", "-o", "run", *settings),
        ("predict", "run", "photos", "-o", "masks"),
        ("report", "run"),
    ):
        done = tagmask(*command, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        if command[0] == "train":
            assert "recipe chosen for this data and machine" in done.stderr
            assert "NO PRETRAINED WEIGHTS" in done.stderr, "learning from scratch is not kept silent"
            assert "expected to take" in done.stderr

    images = sorted((photos / "images").iterdir())
    classes = (tmp_path / "masks" / "classes.txt").read_text().splitlines()
    for image in images:
        labels = np.asarray(Image.open(tmp_path / "masks" / "images" / f"{image.stem}.png"))
        assert labels.shape == Image.open(image).size[::-1]
        assert labels.max() <= len(classes)
    rows = list(csv.DictReader((tmp_path / "masks" / "confidence.csv").open()))
    assert len(rows) == len(images) == 24
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(name in report for name in classes[1:])
    assert not [path for path in tmp_path.rglob("*.y*ml") if "run" not in path.parts]
