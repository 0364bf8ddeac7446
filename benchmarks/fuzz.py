"""Feed damaged and strange inputs to everything that reads files of others: no exception but TagmaskError is right.

    python benchmarks/fuzz.py --inputs 100000 [--jobs 2] [--seconds 3600] [--targets table coco] [--seed 0]

Every reader starts from whole files and from the kept corpus (`tests/fuzz/corpus`), changes bytes or puts in what has
been found to hurt, and reads. Over 5 seconds of the processor or over 1 GB more memory is a finding, too. Each reader
has a process of its own, and where `--seconds` are given an equal part of them.
New findings are written to `--keep` (by default a folder of the system for temporary files).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import device_facts, write_results
from tests.fuzz.targets import TARGETS, mutated, try_input

MOST_KEPT = 20
"""Inputs of one reader that are kept: thousands of one fault say no more than the first."""


class Outcome(NamedTuple):
    """What one reader did with its inputs; seconds are of the processor."""

    name: str
    inputs: int
    seconds: float
    slowest: float
    findings: list[str]


def fuzz(name: str, inputs: int, seconds: float, seed: int, keep: Path) -> Outcome:
    """Feed one reader until the inputs or the seconds (of the processor) are used up."""
    draw = random.Random(f"{seed} {name}")
    tried, slowest, findings = 0, 0.0, []
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        while tried < inputs and time.process_time() - begin < seconds:
            content = mutated(name, draw)
            finding, taken = try_input(name, content, Path(temporary))
            tried, slowest = tried + 1, max(slowest, taken)
            if finding is None:
                continue
            findings.append(finding.what)
            if len(findings) <= MOST_KEPT:
                path = keep / f"{name}-{len(findings)}"
                path.write_bytes(content)
                print(f"{name}: {finding.what} ({path})", file=sys.stderr)
    return Outcome(name, tried, time.process_time() - begin, slowest, findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="for each target")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="of the processor, for all targets together"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="readers at work at the same time")
    parser.add_argument("--targets", nargs="*", default=sorted(TARGETS), choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that are findings")
    arguments = parser.parse_args()

    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="tagmask-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    part = arguments.seconds / len(arguments.targets)
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(arguments.jobs, max_tasks_per_child=1) as pool:
        jobs = [pool.submit(fuzz, name, arguments.inputs, part, arguments.seed, keep) for name in arguments.targets]
        for job in as_completed(jobs):
            outcomes.append(job.result())
            print(*outcomes[-1][:4], len(outcomes[-1].findings), "findings", file=sys.stderr, flush=True)
    outcomes.sort()
    values: dict[str, Any] = {
        "benchmark": "fuzz",
        **device_facts(),
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - begin),
        "all_inputs": sum(outcome.inputs for outcome in outcomes),
        "inputs": {outcome.name: outcome.inputs for outcome in outcomes},
        "processor_seconds": {outcome.name: round(outcome.seconds, 1) for outcome in outcomes},
        "slowest_seconds": {outcome.name: round(outcome.slowest, 2) for outcome in outcomes},
        "findings": [f"{outcome.name}: {what}" for outcome in outcomes for what in outcome.findings],
    }
    write_results("fuzz", values)


if __name__ == "__main__":
    main()
