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


def tagmask_says(*arguments: object, largest: int | None = None) -> str:
    """Return the last line of what a command that fails says; no file that it writes may be larger than `largest`."""
    command = [sys.executable, "-m", "tagmask", *map(str, arguments)]
    if largest is not None:
        code = (
            "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
            "runpy.run_module('tagmask', run_name='__main__', alter_sys=True)"
        )
        command[1:3] = ["-c", code.format(largest)]
    # No bytecode: Python would leave half of a file among the installed packages, and every later start would fail.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
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


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of files")
def test_bad_input_a_disk_that_takes_no_more(run: Path, cooccur: Path, tmp_path: Path) -> None:
    """As a full disk does, this fails in the middle of a file; and it needs no right to mount anything."""
    commands = {
        "set": (300, ("data", "make", "cooccur", "--images", 4, "--size", 64)),
        "run": (8_000, ("train", cooccur, "-r", run / "recipe.yaml")),
        "masks": (100, ("predict", run, cooccur / "images")),
        "refined": (100, ("label", run, cooccur, "--source", "cam")),
        "scores.json": (100, ("evaluate", run, cooccur)),
        "report.html": (8_000, ("report", run, cooccur)),
    }
    for name, (largest, arguments) in commands.items():
        said = tagmask_says(*arguments, "-o", tmp_path / name, largest=largest)
        assert "File too large" in said, said
        assert "that disk takes no file so large; choose another place" in said
        assert str(tmp_path / name) in said
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tagmask")]
    # Nothing that looks whole is left.
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "masks", "refined"}
    assert not [path for name in ("masks", "refined") for path in (tmp_path / name).rglob("*.png")]
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that cannot be written to, and what the system says of it; permissions do not bind root."""
    if os.name == "posix" and os.geteuid() != 0:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        yield folder, "Permission denied"
        folder.chmod(0o755)
    else:
        disk = request.getfixturevalue("small_disk")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk, "Read-only file system"


def test_bad_input_a_read_only_disk(run: Path, cooccur: Path, read_only: tuple[Path, str]) -> None:
    small_disk, reason = read_only
    predicts = ("predict", run, cooccur / "images", "-o", small_disk / "masks")
    makes = ("data", "make", "cooccur", "--images", 2, "-o", small_disk / "set")
    for arguments in (predicts, makes):
        said = tagmask_says(*arguments)
        assert reason in said
        assert "choose another place" in said
