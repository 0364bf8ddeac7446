"""Time and peak memory against number of images, classes and image size; each point in a process of its own.

make bench NAME=growth        # also draws docs/images/growth.png
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import device_facts, write_results

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
SWEEPS = {
    "open_images": ("images in the table", [1000, 4000, 16000]),
    "step_classes": ("classes", [20, 80, 320, 1000]),
    "label_side": ("side of the image, pixels", [256, 512, 1024, 2048]),
    "crf_side": ("side of the image, pixels", [128, 256, 512, 1024]),
}
# Of the quantity the work should be proportional to at worst: pixels are the square of a side.
POWER = {"open_images": 1, "step_classes": 1, "label_side": 2, "crf_side": 2}


def open_images(count: int) -> Callable[[], object]:
    from PIL import Image

    from tagmask.api import open_data
    from tagmask.recipes.load import DataConfig

    folder = Path(tempfile.mkdtemp())
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "0.png")
    rows = ["image,tags,split", "0.png,cow,train"]
    for index in range(1, count):
        (folder / "images" / f"{index}.png").hardlink_to(folder / "images" / "0.png")
        rows.append(f"{index}.png,cow;boat,train")
    (folder / "tags.csv").write_text("\n".join(rows))
    return lambda: open_data(folder, DataConfig())


def step_classes(classes: int) -> Callable[[], object]:
    import torch

    from tagmask.data.batch import Batch
    from tagmask.methods.registry import build_method
    from tagmask.recipes.load import load_recipe

    images, side = 8, 64
    recipe = load_recipe("seco/demo", ["method.queue=4608"])
    torch.manual_seed(0)
    method = build_method(recipe, classes).train()
    tags = torch.zeros(images, classes)
    tags[torch.arange(images), torch.arange(images) % 5] = 1
    tags[:, 7] = 1
    batch = Batch(
        images=torch.randn(images, 3, side, side),
        tags=tags,
        known=torch.ones_like(tags),
        boxes=torch.tensor([[0, side, 0, side]] * images),
        indices=torch.arange(images),
        most_tags=2,
        weak=torch.randn(images, 3, side, side),
        strong=torch.randn(images, 3, side, side),
        strong_flipped=torch.zeros(images, dtype=torch.bool),
    )
    return lambda: method(batch, recipe.training.steps)["loss"].backward()


def label_side(side: int, refine: str = "none") -> Callable[[], object]:
    import numpy as np
    import torch
    from PIL import Image

    from tagmask.engine.device import keep_freed_memory
    from tagmask.engine.inference import predict_pictures
    from tagmask.methods.registry import build_method
    from tagmask.recipes.load import load_recipe

    keep_freed_memory()  # as `label` and `predict` do
    recipe = load_recipe("seco/demo", ["inference.size=64", f"inference.refine={refine}"])
    torch.manual_seed(0)
    method = build_method(recipe, 20).eval()
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return lambda: predict_pictures(method, [image], None, recipe.inference)


def crf_side(side: int) -> Callable[[], object]:
    return label_side(side, refine="crf")


WORK: dict[str, Callable[[int], Callable[[], object]]] = {
    "open_images": open_images,
    "step_classes": step_classes,
    "label_side": label_side,
    "crf_side": crf_side,
}


def measure(sweep: str, size: int, repeats: int) -> dict[str, float]:
    """In this process: median seconds, and the largest memory it ever held."""
    call = WORK[sweep](size)
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"size": size, "s": float(f"{statistics.median(times):.3g}"), "peak_mib": round(peak)}


def draw(results: dict[str, list[dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(results), figsize=(3.4 * len(results), 5.6), layout="constrained")
    for column, (sweep, rows) in enumerate(results.items()):
        sizes = [row["size"] for row in rows]
        for axis, key, unit in zip(axes[:, column], ("s", "peak_mib"), ("seconds", "peak memory, MiB"), strict=True):
            axis.plot(sizes, [row[key] for row in rows], "o-", label="measured")
            if key == "s":
                last = rows[-1]
                axis.plot(
                    sizes, [last["s"] * (size / last["size"]) ** POWER[sweep] for size in sizes], ":", label="linear"
                )
                axis.set_title(sweep.replace("_", ", by "))
                axis.set_yscale("log")
                axis.legend(frameon=False)
            else:
                axis.set_ylim(bottom=0)
            axis.set_xscale("log")
            axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel(SWEEPS[sweep][0])
            axis.set_ylabel(unit)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("SWEEP", "SIZE"), help="a single point, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.repeats)))
        sys.exit()
    results: dict[str, list[dict[str, float]]] = {}
    for sweep, (_, sizes) in SWEEPS.items():
        for size in sizes:
            command = [sys.executable, __file__, "--repeats", str(arguments.repeats), "--one", sweep, str(size)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
            results.setdefault(sweep, []).append(json.loads(line))
    # The exponent between the two largest sizes, in units of the work: 1 is linear.
    exponents = {
        sweep: round(math.log(rows[-1]["s"] / rows[-2]["s"]) / math.log(rows[-1]["size"] / rows[-2]["size"]) / power, 2)
        for (sweep, rows), power in zip(results.items(), POWER.values(), strict=True)
    }
    draw(results)
    write_results("growth", {"exponents": exponents, "points": results, **device_facts()})
