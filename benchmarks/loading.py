"""Training images a loader process makes ready: JPEG files of VOC's size to the views of `seco/voc`, on one core.

make bench NAME=loading
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import device_facts, write_results
from PIL import Image
from sklearn.datasets import load_sample_image

from tagmask.api import open_data
from tagmask.data.views import TrainingViews
from tagmask.recipes.load import DataConfig, load_recipe

WANTED = 140  # images a second: four in 30 ms, the aim of a step on a GPU, and some to spare


def make_photographs(folder: Path, count: int = 16) -> Path:
    """Photographs that come with scikit-learn, as JPEG files of 500 x 375, and their table of tags."""
    rows = ["image,tags"]
    for index in range(count):
        name = ("china.jpg", "flower.jpg")[index % 2]
        Image.fromarray(load_sample_image(name)).resize((500, 375)).save(folder / f"{index}.jpg", quality=90)
        rows.append(f"{index}.jpg,{name[:-4]}")
    table = folder / "tags.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def seconds_an_image(views: TrainingViews, rounds: int, images: int = 32) -> float:
    """Median over rounds of one core's seconds for an image."""
    taken = []
    for round_ in range(rounds + 1):
        start = time.process_time()
        for position in range(round_ * images, (round_ + 1) * images):
            views[position]
        taken.append((time.process_time() - start) / images)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe("seco/voc", ["backbone.weights=null"])
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_data(make_photographs(Path(folder)), DataConfig())
        each = seconds_an_image(TrainingViews(dataset, recipe.views, 0, contrast=True), arguments.repeats)
        plain = seconds_an_image(TrainingViews(dataset, recipe.views, 0), arguments.repeats)
    result = {
        "images_per_second_three_views": round(1 / each, 1),
        "images_per_second_one_view": round(1 / plain, 1),
        "workers_for_140_images_per_second": math.ceil(WANTED * each),
        "workers_of_the_recipe": recipe.training.workers,
    }
    write_results("loading", {**result, **device_facts()})
