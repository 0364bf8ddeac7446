"""Peak memory of `tagmask predict` on large photographs: 40 of 24 megapixels, and twelve PNGs of 13,300 x 13,300.

    make bench NAME=large_photographs [ARGS="--refine crf --only '12 PNGs of 177 MP'"]

The photographs are noise blown up, made in a temporary folder; the network is a tiny ViT of 2 steps of training, so
that what is measured is the way of the pixels. Peak memory is that of the process that predicts, with its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import RESULTS, device_facts, write_results
from PIL import Image

TRAIN = (
    *("training.steps=2", "training.workers=0", "method.decoder_from=0", "inference.size=224"),
    "inference.scales=[1.0]",
)
SETS = {"40 JPEGs of 24 MP": (40, (6000, 4000), ".jpg"), "12 PNGs of 177 MP": (12, (13_300, 13_300), ".png")}


def tagmask(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tagmask", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path, run: Path, output: Path, refine: str) -> dict[str, float]:
    """Predict in a process of its own, and read its peak from the system."""
    code = (
        "import resource, sys, tagmask; done = tagmask.predict(*sys.argv[1:3], output=sys.argv[3], "
        "overrides=[f'inference.refine={sys.argv[4]}']); "
        "print(done.images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    begin = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-c", code, str(run), str(folder), str(output), refine],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return {
        "images": int(told[-2]),
        "peak_gib": round(int(told[-1]) / 2**20, 2),
        "seconds": round(time.monotonic() - begin),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refine", nargs="+", default=["none", "crf"], choices=("none", "par", "crf"))
    parser.add_argument("--only", choices=tuple(SETS), help="leave the other's results as they are")
    arguments = parser.parse_args()
    refinements, former = arguments.refine, RESULTS / "large_photographs.json"
    chosen = [arguments.only] if arguments.only else list(SETS)
    rows = json.loads(former.read_text())["rows"] if arguments.only and former.exists() else []
    rows = [
        row for row in rows if (row["photographs"], row["refine"]) not in {(a, b) for a in chosen for b in refinements}
    ]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        tagmask("data", "make", "cooccur", "-o", base / "data", "--images", 24, "--size", 48)
        settings = [argument for text in TRAIN for argument in ("--set", text)]
        tagmask("train", base / "data", "-r", "cam/demo", "-o", base / "run", *settings)
        for what in chosen:
            count, size, suffix = SETS[what]
            folder = base / what
            folder.mkdir()
            noise = np.random.default_rng(0).integers(0, 256, (size[1] // 50, size[0] // 50, 3), dtype=np.uint8)
            picture = Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)
            picture.save(folder / f"0{suffix}")
            for number in range(1, count):
                os.link(folder / f"0{suffix}", folder / f"{number}{suffix}")
            for refine in refinements:
                rows.append(
                    {
                        "photographs": what,
                        "refine": refine,
                        **measure(folder, base / "run", base / refine / what, refine),
                    }
                )
                print(rows[-1], file=sys.stderr)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_results("large_photographs", {"rows": rows, "this_process_kib": own, **device_facts()})
