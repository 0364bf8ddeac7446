"""A table of a million rows: seconds and peak memory of reading it, and of what a training asks of it at its start.

    make bench NAME=large_sets [ARGS="--rows 1000000 --classes 254"]

The images are hard links to sixteen or more small JPEGs, in folders of 10,000; making them is counted apart. What is
measured runs in a process of its own. A label map of 8 bits has ids for 254 classes, so a table has no more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import device_facts, write_results
from PIL import Image

LINKS = 60_000  # of one file; ext4 allows 65,000
A_FOLDER = 10_000

READ = """
import resource, sys, time
start = time.perf_counter()
from tagmask.data.readers import read_dataset
imported = time.perf_counter()
chosen = [f"class{number}" for number in range(int(sys.argv[2]))]
data = read_dataset(sys.argv[1], classes=chosen, untagged="negative")
read = time.perf_counter()
print("import_s", imported - start, "read_s", read - imported, "records", len(data))
"""
PEAK = """
print("peak_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
DIGEST = """
data.digest()
digest = time.perf_counter()
data.split("train").tag_matrix()
print("digest_s", digest - read, "split_and_matrix_s", time.perf_counter() - digest)
"""


def measure(*arguments: str) -> dict[str, Any]:
    words = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout.split()
    return {name: round(float(value), 3) for name, value in zip(words[::2], words[1::2], strict=True)}


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=254, help="at most 254")
    options = parser.parse_args()
    results: dict[str, Any] = device_facts() | vars(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        make_set(folder, options.rows, options.classes)
        results["links_and_table_made_s"] = round(time.perf_counter() - start, 1)
        table, classes = str(folder / "tags.csv"), str(options.classes)
        results["read"] = measure("-c", READ + DIGEST + PEAK, table, classes)
        print(results, flush=True)
    write_results("large_sets", results)
