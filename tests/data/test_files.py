from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tagmask.data import files
from tagmask.data.files import inside, replacing, write_text
from tagmask.errors import TagmaskError

DEAD = 2**22 + 1  # Linux numbers processes up to 2**22


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_there_only_when_the_block_ended_well(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_text(target, "old")
    with contextlib.suppress(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError
    assert names(target.parent) == ["a.txt"]
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("new")
    assert (target.read_text(), names(target.parent)) == ("new", ["a.txt"])


@pytest.mark.parametrize("before", ["nothing", "empty", "full"])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, before: str) -> None:
    target = tmp_path / "out"
    if before != "nothing":
        target.mkdir()
    if before == "full":
        (target / "old.txt").touch()
    with replacing(target) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").touch()
    assert (names(tmp_path), names(target)) == (["out"], ["new.txt"])


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").touch()
    move = os.replace

    def fails_once(source: Path, place: Path) -> None:
        if place == target and (source / "new.txt").exists():
            raise OSError(28, "No space left on device")
        move(source, place)

    monkeypatch.setattr(os, "replace", fails_once)

    def write() -> None:
        with replacing(target) as temporary:
            temporary.mkdir()
            (temporary / "new.txt").touch()

    with pytest.raises(TagmaskError, match=r"out: cannot be written \(No space left on device\); make room"):
        write()
    assert (names(tmp_path), names(target)) == (["out"], ["old.txt"])


def test_what_killed_processes_left_is_cleared_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    stale = tmp_path / f".tagmask-{DEAD}-0123abcd.tmp"
    stale.mkdir()
    (stale / "half.png").touch()
    (tmp_path / f".tagmask-{DEAD}-00000000.tmp").touch()
    own = tmp_path / f".tagmask-{os.getpid()}-00000000.tmp"  # of a process that had this one's number
    own.touch()
    living = tmp_path / f".tagmask-{os.getppid()}-00000000.tmp"
    living.touch()
    foreign = tmp_path / f".tagmask-{DEAD}-mine.tmp"
    foreign.touch()
    elsewhere = tmp_path / f".tagmask-{DEAD}-0123abcd-ffffffff.tmp"  # of another machine, which sees the folder too
    elsewhere.touch()
    (tmp_path / f".tagmask-{DEAD}-0123abcd-{files._MACHINE}.tmp").touch()
    with replacing(tmp_path / "outer.txt") as temporary:
        temporary.touch()
        write_text(tmp_path / "inner.txt", "")
        assert temporary.exists()
    assert names(tmp_path) == sorted([living.name, foreign.name, elsewhere.name, "inner.txt", "outer.txt"])


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_start_clears_up(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    script = f"""
        import os, signal
        from pathlib import Path
        from tagmask.data.files import replacing
        with replacing(Path({str(target)!r})) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -9
    assert target.read_text() == "old"
    assert len(names(tmp_path)) == 2
    files._swept.clear()  # as in a new process
    write_text(tmp_path / "b.txt", "")
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_no_name_too_long_by_the_temporary_one(tmp_path: Path) -> None:
    longest = "a" * 255
    write_text(tmp_path / longest, "whole")
    assert names(tmp_path) == [longest]
    with (
        pytest.raises(TagmaskError, match=r"cannot be written \(File name too long\); shorten the names"),
        replacing(tmp_path / (longest + "a")),
    ):
        pytest.fail("said only after the work")


@pytest.mark.parametrize("name", [".", "..", "/", "a\0b"])
def test_bad_input_paths_without_a_name(name: str) -> None:
    with pytest.raises(TagmaskError, match="names no file or folder of its own"), replacing(Path(name)):
        pytest.fail("was begun")


def test_bad_input_full_disk_and_others_are_said_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut short, among the installed packages
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            TagmaskError, match=r"a\.txt: cannot be written \(File too large\); that disk takes no file"
        ):
            write_text(tmp_path / "a.txt", "a" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / "file").touch()
    with pytest.raises(TagmaskError, match=r"file/b\.txt: cannot be written .*a file stands where a folder is needed"):
        write_text(tmp_path / "file" / "b.txt", "")
    gone = re.escape(str(tmp_path / "gone"))
    with (
        pytest.raises(TagmaskError, match=rf"c\.txt: cannot be written \(No such file or directory: {gone}\)"),
        replacing(tmp_path / "c.txt"),
    ):
        (tmp_path / "gone").read_bytes()
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["../a", "a/../../b", "a/../b", "/etc/passwd", "..", ".", "", "a\0"])
def test_bad_input_names_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(TagmaskError, match=r"image .*: leads out of the folder it is written to; rename it"):
        inside(tmp_path / "out", name, "image")


def test_names_inside_may_have_folders_and_dots(tmp_path: Path) -> None:
    for name in ("a", "sub/..a.png", "..."):
        assert inside(tmp_path, name) == tmp_path / name
    (tmp_path / "link").symlink_to(tmp_path.parent)
    with pytest.raises(TagmaskError, match="leads out"):
        inside(tmp_path, "link/a")
