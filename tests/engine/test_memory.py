"""Freed memory stays with the process: large blocks are then not paged in anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tagmask.engine.device import keep_freed_memory

PROBE = """
import resource, sys
from tagmask.engine.device import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def touch():
    block = bytearray(b"1") * (1 << 26)
for _ in range(3):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(which: str) -> int:
    """Pages brought in while ten blocks of 64 MiB come and go."""
    return int(subprocess.run([sys.executable, "-c", PROBE, which], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library of this machine is not glibc")
def test_blocks_that_come_and_go_are_paged_in_once() -> None:
    assert faults("kept") < faults("given back") / 10
