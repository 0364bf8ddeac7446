"""Seconds until `tagmask --help` has printed and until `import tagmask` is done, beside an empty Python.

make bench NAME=startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import device_facts, write_results

COMMANDS = {
    "empty_python_s": ["-c", "pass"],
    "import_s": ["-c", "import tagmask"],
    "help_s": ["-m", "tagmask", "--help"],
    "verb_help_s": ["-m", "tagmask", "train", "--help"],
}
REPEATS = 15


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    # In turns, so that other work on the machine falls on all of them alike; the first round fills the file cache.
    rounds = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(REPEATS + 1)][1:]
    medians = {name: round(statistics.median(times[name] for times in rounds), 3) for name in COMMANDS}
    script = "import sys, tagmask; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    write_results("startup", {**medians, "import_loads_torch": loaded == "True", **device_facts()})
