"""Ten kills at random moments; `make bench NAME=kills` does the same to every verb, two hundred times."""

from __future__ import annotations

import os

import pytest

from benchmarks.kills import measure


@pytest.mark.skipif("TAGMASK_KILLS" not in os.environ, reason="takes minutes; set TAGMASK_KILLS=1 (and have SIGKILL)")
def test_killed_verbs_end_as_undisturbed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = measure(10, 0, ["predict", "export coco"])
    assert sum(result["kills"] for result in results.values()) == 10
    assert not [fault for result in results.values() for fault in result["faults"]]
