"""What the command line says of errors of the system, and that names are shown as they are."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import tagmask
from tagmask import cli
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command line, which has to end with status 2 and one line."""
    monkeypatch.setattr(sys, "argv", ["tagmask", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("tagmask: ")
    return last


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "m/a.png"), "m/a.png: Permission denied; change the"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "m/a.png"), "m/a.png: No space left on device; make room"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "masks"), "masks: Read-only file system; the disk"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "a.jpg"), "a.jpg: Input/output error"),
        (OSError("the hub does not answer"), "tagmask: the hub does not answer"),
        (MemoryError(), "not enough memory: set inference.long_side"),
        (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory: set inference.long_side"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ValueError("embedded null byte"), "holds the character NUL"),
        (TagmaskError("tags.csv row 3: no such image; correct the row"), "tagmask: tags.csv row 3: no such image"),
    ],
)
def test_what_ends_a_command_is_one_line_with_the_mend(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert message in said(monkeypatch, capsys)


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main()


@pytest.fixture(scope="module")
def marked(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its data whose folder and classes are called as the markup of rich is written."""
    data = Path(shutil.copytree(cooccur, tmp_path_factory.mktemp("marked") / "[old]" / "[red]set"))
    first = (data / "classes.txt").read_text().splitlines()[0]
    for file in (data / "classes.txt", data / "tags.csv"):
        file.write_text(file.read_text().replace(first, "a[/b] :cow:"))
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0", "training.evaluate_every=1")
    return tagmask.train(data, recipe=recipe, output=data.parent / "[/b]run"), data


def test_names_are_shown_as_they_are(marked: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = marked
    photo = sorted((data / "images").iterdir())[0]
    photo.write_bytes(photo.read_bytes()[:60])
    verbs: list[list[object]] = [
        ["evaluate", run, data, "--split", "train", "--split", "val", "--split", "test"],
        ["label", run, data, "-o", tmp_path / "[/x]", "--source", "cam"],
        ["data", "check", data],
    ]
    outputs = []
    for verb in verbs:
        done = CliRunner().invoke(app, [str(part) for part in verb], env={"COLUMNS": "200"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        outputs.append(done.output)
    assert "a[/b] :cow:" in outputs[0]
    assert f"skipped: {photo}" in outputs[0]
    assert f"skipped: {photo}" in outputs[1]
    assert "a[/b] :cow:" in outputs[2]


def test_a_name_too_long_is_said_so(
    marked: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = marked
    long = tmp_path / ("x" * 300)
    assert "too long" in said(monkeypatch, capsys, "predict", run, data / "images", "-o", long).lower()
