"""Ten kills at random moments; `make bench NAME=kills` does the same to every verb, two hundred times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_verbs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    # In a process of its own: this one may have threads, of which a fork has none.
    command = [sys.executable, kills.__file__, "--kills", "10", "--results", str(tmp_path / "kills.json"), "--verbs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "predict", "export coco"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "kills.json").read_text())
    assert sum(result["kills"] for result in results.values()) == 10
    assert all(result["outputs_compared"] for result in results.values())
    assert not [fault for result in results.values() for fault in result["faults"]]
