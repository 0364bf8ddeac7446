"""Two writers at one folder: the second is refused and told who the first is; a dead one bars nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tagmask.data.lock import LOCK, locked
from tagmask.errors import TagmaskError

HOLDER = """
import sys, time
from pathlib import Path
from tagmask.data.lock import locked
with locked(Path(sys.argv[1]), replaced=sys.argv[2] == "replaced"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *, replaced: bool = False) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", HOLDER, str(folder), "replaced" if replaced else "kept"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("replaced", [False, True])
def test_a_second_process_is_refused_and_a_dead_one_is_followed(tmp_path: Path, replaced: bool) -> None:
    folder = tmp_path / "out"
    first = holder(folder, replaced=replaced)
    try:
        with (
            pytest.raises(TagmaskError, match=rf"out: process {first.pid} on .* has been writing there since 20"),
            locked(folder, replaced=replaced),
        ):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    place = tmp_path if replaced else folder
    assert [path.name for path in place.iterdir() if path.is_file()], "the dead one's lock file is still there"
    with locked(folder, replaced=replaced):
        pass
    assert not [path.name for path in place.iterdir()] if place.exists() else True


def test_a_second_thread_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            with locked(tmp_path):
                pass
        except TagmaskError as error:
            refused.append(str(error))

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused[0].startswith(f"{tmp_path}: process {os.getpid()} on ")
    with locked(tmp_path):  # and afterwards the folder is free again
        pass


def test_a_second_thread_that_is_refused_leaves_the_lock_where_it_is(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(TagmaskError, match=f"process {os.getpid()} on "), locked(tmp_path):
            pass
        other = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path), "kept"],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert other.returncode == 1
        assert f"process {os.getpid()} on " in other.stderr.splitlines()[-1]


def test_of_threads_that_come_at_once_one_has_the_folder(tmp_path: Path) -> None:
    together, inside, most = threading.Barrier(8), [0], [0]

    def work() -> None:
        together.wait()
        for _ in range(50):
            try:
                with locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except TagmaskError:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not list(tmp_path.iterdir())


def test_what_was_written_stays_and_an_empty_folder_goes(tmp_path: Path) -> None:
    with locked(tmp_path / "empty"):
        pass
    with locked(tmp_path / "full"):
        (tmp_path / "full" / "mask").touch()
    assert not (tmp_path / "empty").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mask"]


def test_workers_that_outlive_a_killed_process_hold_no_lock(tmp_path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from tagmask.data.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL, check=False)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
