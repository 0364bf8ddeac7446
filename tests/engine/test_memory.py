"""Freed memory stays with the process, so that large blocks are not paged in anew; once a minute it is given back."""

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


GIVING = """
from pathlib import Path
from tagmask.engine import device
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
def touched_and_freed():
    blocks = [bytearray(b"1") * (1 << 20) for _ in range(128)]
    kept = bytearray(b"1") * (1 << 20)  # above them, so that they are a gap, and not the end of the heap
    del blocks
    return kept
device.keep_freed_memory()
before, kept = resident(), touched_and_freed()
full = resident()
device.give_back_freed_memory()
early = resident()
device._given_back -= device.GIVEN_BACK_EVERY
device.give_back_freed_memory()
print(full - before, early - before, resident() - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library of this machine is not glibc")
def test_freed_memory_is_given_back_once_a_minute() -> None:
    said = subprocess.run([sys.executable, "-c", GIVING], check=True, capture_output=True, text=True).stdout
    full, early, late = map(int, said.split())
    assert full > 120
    assert early > 120
    assert late < 20
