"""A full disk and a read-only one end a command with one line that names the file and the mend, and nothing half."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tagmask
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("full") / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB; skipped where nobody may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def tagmask_says(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tagmask", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_bad_input_a_full_disk(run: Path, cooccur: Path, small_disk: Path) -> None:
    makes = ("data", "make", "cooccur", "--images", 40, "--size", 64, "-o", small_disk / "set")
    trains = ("train", cooccur, "-r", run / "recipe.yaml", "-o", small_disk / "run")
    for arguments in (makes, trains):
        assert "No space left on device" in (said := tagmask_says(*arguments))
        assert "make room on that disk, or choose another place" in said
    assert not (small_disk / "set").exists()
    assert not [path for path in small_disk.rglob("*") if path.name.startswith(".tagmask")]
    assert not (small_disk / "run" / "model.safetensors").exists()


def test_bad_input_a_read_only_disk(run: Path, cooccur: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    predicts = ("predict", run, cooccur / "images", "-o", small_disk / "masks")
    makes = ("data", "make", "cooccur", "--images", 2, "-o", small_disk / "set")
    for arguments in (predicts, makes):
        said = tagmask_says(*arguments)
        assert "Read-only file system" in said
        assert "choose another place" in said
