"""What a run of stages says, and to whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tagmask.engine.progress import report_skipped

SCRIPT = """
import sys
from pathlib import Path
if sys.argv[2] == "command line":
    from tagmask.cli.apps import show_messages
    show_messages()
    show_messages()
from tagmask.engine.stage import Stage, run_stages
stage = Stage("one", lambda place: [], lambda place: (place / "product").touch())
run_stages(Path(sys.argv[1]), [stage])
run_stages(Path(sys.argv[1]), [stage])
"""


def said(folder: Path, user: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), user], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_the_command_line_shows_the_stages_and_a_program_does_not(tmp_path: Path) -> None:
    assert said(tmp_path / "program", "program") == []
    assert said(tmp_path / "command", "command line") == [
        "stage 1 of 1, one",
        "stage 1 of 1, one: 0 s, 0.0 MB",
        "stage 1 of 1, one: done before",
    ]


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (10, 10), (11, 11), (25, 11)])
def test_ten_skipped_images_are_named_and_more_are_counted(
    count: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    report_skipped([f"photo{number}.jpg: damaged" for number in range(count)])
    assert len(caplog.messages) == lines
    assert caplog.messages[:1] == ["skipped: photo0.jpg: damaged"][:count]
    if count > 10:
        assert caplog.messages[-1] == f"skipped: {count} images in all, of which the first 10 are named"
