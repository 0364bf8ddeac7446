"""A table of a million rows: seconds and memory of reading it, of a training's start, and of drawing its batches.

    make bench NAME=large_sets [ARGS="--rows 1000000 --classes 254"]

The images are hard links to sixteen or more small JPEGs, in folders of 10,000; making them is counted apart. What is
measured is `tagmask train` up to its first step, in a process of its own: reading the table; splits, checks, class
counts, digests, run folder and network; the first batch and those after it, from the real loader. The seconds of the
processor are those of the main process. A label map of 8 bits has ids for 254 classes, so a table has no more.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import device_facts, write_results
from PIL import Image

PARTS = ("read", "start", "first_batch", "batches")
LINKS = 60_000  # of one file; ext4 allows 65,000
A_FOLDER = 10_000

RECIPE = "cam/default"
SMALL = ("backbone.weights=null", "views.crop=32", "views.resize_long=[32,48]", "inference.size=32")


def measure(data: str, batches: int, batch: int, workers: int) -> None:
    """Start `tagmask train` and print seconds and memory of its parts; it ends in place of the first step."""
    import tagmask
    from tagmask.data.splits import open_data
    from tagmask.engine import loop
    from tagmask.errors import TagmaskError

    training = importlib.import_module("tagmask.api.train")
    found: dict[str, Any] = {"imported": {"peak_gib": peak_gib()}}
    clocks = time.perf_counter(), time.process_time()

    def note(part: str) -> None:
        nonlocal clocks
        now = time.perf_counter(), time.process_time()
        wall, processor = (round(after - before, 2) for before, after in zip(clocks, now, strict=True))
        found[part] = {"wall_s": wall, "processor_s": processor, "peak_gib": peak_gib()}
        clocks = now

    def read(*given: Any) -> Any:
        dataset = open_data(*given)
        found["records"] = len(dataset)
        note("read")
        return dataset

    def draw(*given: Any, **named: Any) -> Any:
        note("start")
        drawn = iter(make_loader(*given, **named))
        next(drawn)
        note("first_batch")
        for _ in range(batches - 1):
            next(drawn)
        note("batches")
        found["workers_private_gib"] = private_gib()
        print(json.dumps(found))
        raise TagmaskError("measured")

    make_loader, loop.training_loader, training.open_data = loop.training_loader, draw, read  # pyright: ignore
    settings = (*SMALL, f"training.batch={batch}", f"training.steps={batches + 100}", f"training.workers={workers}")
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(TagmaskError):
        tagmask.train(data, recipe=RECIPE, output=f"{name}/run", overrides=settings)


def peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def private_gib() -> float:
    """What the loader processes have in memory that the main one has not, together."""
    import multiprocessing

    kilobytes = 0
    for process in multiprocessing.active_children():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return round(kilobytes / 2**20, 3)


def measured(*arguments: object) -> dict[str, Any]:
    """Call `measure` in a process of its own."""
    words = [sys.executable, __file__, "--measure", *map(str, arguments)]
    found = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(found[-1])


def make_set(folder: Path, rows: int, classes: int) -> None:
    random = np.random.default_rng(0)
    originals = [folder / f"original{number}.jpg" for number in range(-(-rows // LINKS) + 15)]
    for path in originals:
        Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    drawn = random.integers(0, classes, (rows, 3))
    with (folder / "tags.csv").open("w") as table:
        table.write("image,tags,split\n")
        for row in range(rows):
            name = f"{row // A_FOLDER:04}/{row:07}.jpg"
            if row % A_FOLDER == 0:
                (folder / "images" / name).parent.mkdir(parents=True)
            os.link(originals[row % len(originals)], folder / "images" / name)
            given = ";".join(f"class{number}" for number in sorted(set(drawn[row])))
            table.write(f"{name},{given},{'val' if row % 100 == 0 else 'train'}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=254, help="at most 254")
    parser.add_argument("--batches", type=int, default=100, help="drawn from the loader")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="processes of the loader")
    options = parser.parse_args()
    results: dict[str, Any] = device_facts() | vars(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        make_set(folder, options.rows, options.classes)
        results["links_and_table_made_s"] = round(time.perf_counter() - start, 1)
        results |= measured(folder / "tags.csv", options.batches, options.batch, options.workers)
        for clock in ("wall_s", "processor_s"):
            results[f"total_{clock}"] = round(sum(results[part][clock] for part in PARTS), 2)
        write_results("large_sets", results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
