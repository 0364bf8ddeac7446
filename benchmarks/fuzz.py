"""Feed damaged and strange inputs to everything that reads files of others: no exception but TagmaskError is right.

    python benchmarks/fuzz.py --inputs 100000 [--seconds 3600] [--targets table coco] [--seed 0]

Every reader starts from whole files and from the kept corpus (`tests/fuzz/corpus`), changes bytes or puts in what has
been found to hurt, and reads. Over 5 seconds of the processor or over 1 GB more memory is a finding, too. Where
`--seconds` end before the inputs do, each reader has had an equal part of them.
New findings are written to `--keep` (by default a folder of the system for temporary files).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import device_facts, write_results
from tests.fuzz.targets import TARGETS, Finding, mutated, try_input

MOST_KEPT = 200
TURN = 0.5
"""Seconds of the processor that a target has before the next one's turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="for each target")
    parser.add_argument("--seconds", type=float, default=1e9, help="for all targets together")
    parser.add_argument("--targets", nargs="*", default=sorted(TARGETS), choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that are findings")
    arguments = parser.parse_args()

    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="tagmask-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    slowest: dict[str, float] = {}
    begin = time.monotonic()
    draws = {name: random.Random(f"{arguments.seed} {name}") for name in arguments.targets}
    spent: dict[str, float] = dict.fromkeys(arguments.targets, 0.0)
    left = list(arguments.targets)
    with tempfile.TemporaryDirectory() as temporary:
        # In turns of half a second of the processor, so that where time ends each target has had as much of it.
        while left:
            for name in tuple(left):
                turn = time.process_time()
                while time.process_time() - turn < TURN and counts[name] < arguments.inputs:
                    content = mutated(name, draws[name])
                    finding, seconds = try_input(name, content, Path(temporary))
                    counts[name] += 1
                    slowest[name] = max(slowest.get(name, 0.0), seconds)
                    if finding is not None:
                        findings.append(finding)
                    if finding is not None and len(findings) <= MOST_KEPT:
                        (keep / f"{name}-{len(findings)}").write_bytes(content)
                        print(f"{name}: {finding.what} ({keep / f'{name}-{len(findings)}'})", file=sys.stderr)
                spent[name] += time.process_time() - turn
                if counts[name] >= arguments.inputs:
                    left.remove(name)
            if time.monotonic() - begin > arguments.seconds:
                break
    values: dict[str, Any] = {
        "benchmark": "fuzz",
        **device_facts(),
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - begin),
        "all_inputs": sum(counts.values()),
        "inputs": dict(sorted(counts.items())),
        "processor_seconds": {name: round(seconds, 1) for name, seconds in sorted(spent.items())},
        "slowest_seconds": {name: round(seconds, 2) for name, seconds in sorted(slowest.items())},
        "findings": [f"{finding.target}: {finding.what}" for finding in findings],
    }
    write_results("fuzz", values)


if __name__ == "__main__":
    main()
