"""Feed damaged and strange inputs to everything that reads files of others: no exception but TagmaskError is right.

    python benchmarks/fuzz.py --inputs 100000 [--seconds 3600] [--readers table coco] [--seed 0]

Every reader starts from whole files and from the kept corpus (`tests/fuzz/corpus`), changes bytes or puts in what has
been found to hurt, and reads. Each input has a process's limits: over 5 seconds or over 1 GB more memory is a finding.
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
    with tempfile.TemporaryDirectory() as temporary:
        # In turns of a hundred, so that where time ends each target has had about the same number.
        for turn in range(0, arguments.inputs, 100):
            for name in arguments.targets:
                random_ = random.Random(f"{arguments.seed} {name} {turn}")
                for _ in range(min(100, arguments.inputs - turn)):
                    if time.monotonic() - begin > arguments.seconds:
                        break
                    content = mutated(name, random_)
                    finding, seconds = try_input(name, content, Path(temporary))
                    counts[name] += 1
                    slowest[name] = max(slowest.get(name, 0.0), seconds)
                    if finding is not None:
                        findings.append(finding)
                    if finding is not None and len(findings) <= MOST_KEPT:
                        (keep / f"{name}-{len(findings)}").write_bytes(content)
                        print(f"{name}: {finding.what} ({keep / f'{name}-{len(findings)}'})", file=sys.stderr)
    values: dict[str, Any] = {
        "benchmark": "fuzz",
        **device_facts(),
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - begin),
        "inputs": dict(sorted(counts.items())),
        "slowest_seconds": {name: round(seconds, 2) for name, seconds in sorted(slowest.items())},
        "findings": [f"{finding.target}: {finding.what}" for finding in findings],
    }
    write_results("fuzz", values)


if __name__ == "__main__":
    main()
