"""What every benchmark says about where it ran, and how it leaves its numbers."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Timed = Callable[[], Any]
RESULTS = Path(__file__).parent / "results"


def device_facts() -> dict[str, Any]:
    """Device and versions, as they stand in every result."""
    import timm
    import torch

    model = (
        re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if os.path.exists("/proc/cpuinfo")
        else None
    )
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": cuda or (model.group(1) if model else platform.processor()),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def write_results(name: str, values: dict[str, Any]) -> None:
    """Write `results/NAME.json` and print the values as the last line."""
    RESULTS.mkdir(exist_ok=True)
    temporary = RESULTS / f"{name}.tmp"
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(RESULTS / f"{name}.json")
    print(json.dumps(values))


def medians(steps: dict[str, Timed], repeats: int, device: str, *, wall: bool = False) -> dict[str, float]:
    """Median seconds of each step, the steps taken in turn: of one core on a CPU, if not of the wall."""
    import torch

    clock = time.process_time if device == "cpu" and not wall else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            if round_:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
