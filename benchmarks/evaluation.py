"""Compare 1,449 label maps of 500 x 375 (the size of VOC val) with their truth, and sweep CAMs over 60 thresholds.

make bench NAME=evaluation
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import device_facts, write_results
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.label_maps import voc_palette
from tagmask.data.masks import PngMask
from tagmask.evaluation.folder import evaluate_folder
from tagmask.evaluation.sweep import ThresholdSweep

IMAGES, HEIGHT, WIDTH, CLASSES = 1449, 375, 500, 20


def label_map(generator: np.random.Generator) -> np.ndarray:
    """Two blobs with ragged edges and an ignored rim, about as hard to pack as a real mask."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for label in generator.integers(1, CLASSES + 1, 2):
        centre_y, centre_x = generator.uniform(80, HEIGHT - 80), generator.uniform(80, WIDTH - 80)
        angle = np.arctan2(y - centre_y, x - centre_x)
        radius = 70 + 20 * np.sin(5 * angle + generator.uniform(0, 6)) + 4 * np.sin(31 * angle)
        distance = np.hypot(y - centre_y, x - centre_x) - radius
        labels[distance < 3] = 255
        labels[distance < 0] = label
    return labels


def write(path: Path, labels: np.ndarray) -> None:
    image = Image.fromarray(labels)
    image.putpalette(voc_palette().ravel().tolist())
    image.save(path)


def make_folder(folder: Path) -> Dataset:
    """64 different pairs, the rest links to them: decoding is repeated, the disk's share is not."""
    generator = np.random.default_rng(0)
    records = []
    for place in ("truth", "predictions"):
        (folder / place).mkdir()
    for index in range(IMAGES):
        ground_truth, prediction = folder / "truth" / f"{index}.png", folder / "predictions" / f"{index}.png"
        if index < 64:
            labels = label_map(generator)
            write(ground_truth, labels)
            moved = np.roll(labels, 9, axis=1)
            write(prediction, np.where(moved == 255, np.uint8(0), moved))
        else:
            os.link(folder / "truth" / f"{index % 64}.png", ground_truth)
            os.link(folder / "predictions" / f"{index % 64}.png", prediction)
        records.append(Record(str(index), ground_truth, (0,), split="val", mask=PngMask(ground_truth)))
    return Dataset(tuple(records), tuple(f"class {index}" for index in range(CLASSES)))


def seconds(call, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = make_folder(folder)
        result = evaluate_folder(folder / "predictions", dataset)
        whole = {
            f"folder_{workers}_workers_s": round(
                seconds(lambda workers=workers: evaluate_folder(folder / "predictions", dataset, workers=workers), 3), 2
            )
            for workers in (1, 2)
        }
    generator = np.random.default_rng(1)
    cams, ground_truth = generator.random((CLASSES, HEIGHT, WIDTH), dtype=np.float32), label_map(generator)
    sweep = ThresholdSweep(CLASSES)
    image = seconds(lambda: sweep.add(cams, ground_truth), 9)
    scoring = seconds(sweep.result, 3)
    facts = {
        "images": result.images,
        **whole,
        "sweep_image_ms": round(1e3 * image, 1),
        "sweep_scores_ms": round(1e3 * scoring, 1),
        "miou": round(result.scores.miou, 4),
    }
    write_results("evaluation", {**facts, **device_facts()})


if __name__ == "__main__":
    main()
