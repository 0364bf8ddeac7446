"""Images a second from photographs on disk to masks on disk, beside the network's own forwards in the same run.

ViT-S/16 at 448, one scale and mirror, 20 classes and background, JPEGs of VOC size.

    make bench NAME=labelling                                # decoder, no refinement
    make bench NAME=labelling ARGS="--refine crf"
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import device_facts, write_results
from PIL import Image

from tagmask.data.label_maps import write_label_map
from tagmask.data.synthetic.contexts import smooth_noise
from tagmask.engine.device import resolve
from tagmask.engine.inference import Item, score, stream
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.recipes.load import Recipe, load_recipe

CLASSES, BATCH = 20, 8


def make_photographs(folder: Path, images: int) -> list[Item]:
    """JPEGs of 500 x 375 and 375 x 500, with as much detail as photographs."""
    generator = np.random.default_rng(0)
    items = []
    for index in range(images):
        planes = [sum(smooth_noise(generator, 500, cells, cells) for cells in (4, 32, 128)) for _ in range(3)]
        picture = (np.stack(planes, axis=-1) * 85).clip(0, 255).astype(np.uint8)[:, :375]
        path = folder / f"{index:04d}.jpg"
        Image.fromarray(picture if index % 3 else picture.transpose(1, 0, 2)).save(path, quality=92)
        items.append(Item(path.stem, path))
    return items


def make_method(recipe: Recipe, device: str) -> Method:
    torch.manual_seed(0)
    return build_method(recipe, CLASSES).eval().to(device)


def label_all(method: Method, items: list[Item], recipe: Recipe, output: Path) -> None:
    for prediction in stream(method, items, recipe.inference, batch=BATCH):
        write_label_map(output / f"{prediction.item.name}.png", prediction.labels)


@torch.inference_mode()
def forwards_alone(method: Method, images: int, recipe: Recipe, device: str) -> None:
    pixels = torch.randn(BATCH, 3, 448, 448, device=device)
    for start in range(0, images, BATCH):
        score(method, pixels[: min(BATCH, images - start)], recipe.inference, "decoder")
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--refine", default="none", choices=("none", "par", "crf"))
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = load_recipe(
        "seco/voc",
        [
            "backbone.name=vit_small_patch16_224",
            "backbone.weights=null",
            "inference.size=448",
            "inference.scales=[1.0]",
            "inference.flip=true",
            f"inference.refine={arguments.refine}",
            f"inference.precision={arguments.precision}",
        ],
    )
    method = make_method(recipe, device)
    whole, alone = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = make_photographs(folder, arguments.images)
        output = folder / "masks"
        output.mkdir()
        forwards_alone(method, BATCH, recipe, device)
        for _ in range(arguments.repeats):
            alone.append(seconds(lambda: forwards_alone(method, arguments.images, recipe, device)))
            whole.append(seconds(lambda: label_all(method, items, recipe, output)))
        written = sum(entry.stat().st_size for entry in os.scandir(output))
    result = {
        "images": arguments.images,
        "refine": arguments.refine,
        "images_per_second": round(arguments.images / statistics.median(whole), 2),
        "forwards_alone_images_per_second": round(arguments.images / statistics.median(alone), 2),
        "share_of_the_forward": round(statistics.median(alone) / statistics.median(whole), 3),
        "mask_bytes_an_image": round(written / arguments.images),
    }
    precision = resolve(arguments.precision, "cuda" if torch.cuda.is_available() else "cpu")
    parts = [arguments.refine] * (arguments.refine != "none") + ["bf16"] * (precision == "bf16-mixed")
    write_results("-".join(["labelling", *parts]), {**result, "precision": precision, **device_facts()})
