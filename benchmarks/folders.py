"""Folders as people have them: a tag in nearly every image, small things, rare classes, wrong tags.

    make bench NAME=folders ARGS="street --variants unenlarged 224 shuffled now full --seeds 0"

Things of eight classes lie on a figure before some context, as clothes do on a person. Each set is learnt by the recipe
that `tagmask train` chooses on a CPU, at its own length where `--steps` gives no other, and scored by class: the masks
that the segmenter learns from, on the training images with their tags, and the segmenter on the held-out ones without,
as it is and with a dense CRF after it.
Variants of a set and seed that train on crops of one size, in one order, share their classifier. Needs the MobileNetV2
weights in the folder named by TAGMASK_SHARED (default: ../shared). Rows measured before stay where they are not asked
for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, device_facts, write_results
from PIL import Image, ImageDraw

from tagmask.api import evaluate, open_data, train, training_split
from tagmask.api.choose import choose_recipe
from tagmask.data.csv_cells import csv_text
from tagmask.data.files import write_classes, write_text
from tagmask.data.synthetic.contexts import CONTEXTS
from tagmask.data.synthetic.objects import THINGS, draw
from tagmask.data.synthetic.scenes import expose, paste, tint
from tagmask.evaluation.stages import evaluate_stages
from tagmask.recipes.load import load_recipe

Array = np.ndarray
SHARED = Path(os.environ.get("TAGMASK_SHARED") or Path(__file__).parents[2] / "shared")
IMAGES, HELD_OUT, SIZE = 200, 60, 128
UNENLARGED = "views.crop=128"
"""Photographs as large as they are, as the choice was before they were enlarged."""
SHUFFLED = "training.order=shuffled"
"""Every image equally often, as the choice was before rare classes came more often."""
APART = "refine.alike=false"
"""Masks of each image's own CAMs, as the choice is for small things, and was for all before."""
BEFORE = (UNENLARGED, SHUFFLED, APART, "inference.cam_scales=null", "refine.band=[1,3]", "data.last=[]")
"""The first choice."""
FULL = (SHUFFLED, "method={name: full, decoder: skip, paste: 0.5}", "refine=null", "segmenter=null")
VARIANTS: dict[str, tuple[str, ...]] = {
    "before": BEFORE,
    "last": BEFORE[:5],
    "finer": (UNENLARGED, SHUFFLED, APART, BEFORE[5]),
    "unenlarged": (UNENLARGED, SHUFFLED, APART),
    "224": ("views.crop=224", SHUFFLED, APART),
    "shuffled": (SHUFFLED, APART),
    "balanced segmenter": (SHUFFLED, APART, "segmenter.training.order=balanced"),
    "now": (),
    "full 224": ("views.crop=224", *FULL),
    "full": FULL,
}
CARRIER = ((0.5, 0.10, 0.07, 0.08), (0.5, 0.38, 0.15, 0.22), (0.43, 0.75, 0.06, 0.22), (0.57, 0.75, 0.06, 0.22))
"""Head, trunk and legs of the figure that things lie on: centre and half axes of ellipses, x and y, in image sides."""
PLACES = ((0.44, 0.93), (0.5, 0.10), (0.5, 0.30), (0.36, 0.45), (0.64, 0.45), (0.5, 0.52), (0.45, 0.75), (0.57, 0.72))
"""Where on the figure the things of each class lie, x and y in image sides; the first is the ever-present one's."""


@dataclass(frozen=True)
class Folder:
    """What a set is made of.

    Attributes:
        ever: the fraction of the images that bear the first class.
        tags: the mean number of tags an image.
        ratio: how many times as frequent the most frequent of the other classes is as the rarest.
        areas: of the things, from the smallest to the largest, as fractions of the image; drawn evenly in logarithms.
        wrong: the fraction of the training tags that name another class than the one that is there.
    """

    ever: float = 0.5
    tags: float = 4.0
    ratio: float = 2.0
    areas: tuple[float, float] = (0.005, 0.05)
    wrong: float = 0.0

    def frequencies(self) -> Array:
        """Return the fraction of the images that bears each class."""
        others = len(THINGS) - 1
        steps = self.ratio ** -np.linspace(0.0, 1.0, others)
        wanted = self.tags - self.ever
        low, high = 0.0, 100.0  # no class but the first may be in more than 85 % of the images
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(middle * steps, 0.85).sum() < wanted else (low, middle)
        return np.concatenate([[self.ever], np.minimum(low * steps, 0.85)])


SETS = {
    "plain": Folder(),
    "ever 90 %": Folder(ever=0.90),
    "ever 97 %": Folder(ever=0.97, tags=5.0),
    "ever 100 %": Folder(ever=1.0),
    "six tags": Folder(ever=0.8, tags=6.0),
    "small": Folder(areas=(0.001, 0.01)),
    "rare": Folder(tags=2.5, ratio=100.0),
    "wrong": Folder(wrong=0.1),
    "street": Folder(ever=0.97, tags=4.5, ratio=30.0, areas=(0.002, 0.04), wrong=0.05),
}


def make_folder(target: Path, folder: Folder, *, images: int, held_out: int, size: int, seed: int) -> Path:
    """Write `images/`, `masks/`, `tags.csv` and `classes.txt`; what is there already is kept."""
    if (target / "classes.txt").exists():
        return target
    (target / "images").mkdir(parents=True, exist_ok=True)
    (target / "masks").mkdir(exist_ok=True)
    names = [thing.name for thing in THINGS]
    rows = [("image", "tags", "split")]
    for index in range(images + held_out):
        generator = np.random.default_rng([seed, index])
        picture, mask = scene(folder, size, generator)
        shown = set((np.unique(mask[mask > 0]) - 1).tolist())
        split = "train" if index < images else "test"
        tags = mistaken(shown, folder.wrong, len(names), generator) if split == "train" else shown
        Image.fromarray(picture).save(target / "images" / f"{index:04d}.png", compress_level=1)
        Image.fromarray(mask).save(target / "masks" / f"{index:04d}.png")
        rows.append((f"{index:04d}.png", ";".join(names[tag] for tag in sorted(tags)), split))
    write_text(target / "tags.csv", csv_text(rows))
    write_classes(target, names)
    return target


def scene(folder: Folder, size: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Paint things on a figure before some context: (size, size, 3) uint8 and the mask (size, size) uint8."""
    shown = generator.random(len(THINGS)) < folder.frequencies()
    if not shown.any():
        shown[generator.integers(1, len(THINGS))] = True
    context = list(CONTEXTS.values())[generator.integers(len(CONTEXTS))]
    picture = tint(context(generator, size), generator)
    # The figure: bigger or smaller, somewhere about the middle, and the things on it.
    scale = size * generator.uniform(0.75, 1.0)
    left, top = generator.uniform(0.0, size - scale, 2)
    cover = Image.new("L", (size, size))
    brush = ImageDraw.Draw(cover)
    for x, y, width, height in CARRIER:
        box = (x - width, y - height, x + width, y + height)
        brush.ellipse(tuple((left, top)[i % 2] + scale * value for i, value in enumerate(box)), fill=255)
    skin = generator.uniform(0.2, 0.9, 3).astype(np.float32)
    amount = (np.asarray(cover) / 255.0).astype(np.float32)[..., None]
    picture = picture * (1 - amount) + skin * amount
    mask = np.zeros((size, size), dtype=np.uint8)
    for thing in generator.permutation(np.flatnonzero(shown)):
        area = size**2 * np.exp(generator.uniform(*np.log(folder.areas)))
        sprite = draw(THINGS[thing], generator, area, (size / 2, size / 2))
        x, y = (start + scale * place for start, place in zip((left, top), PLACES[thing], strict=True))
        spans = [
            (np.clip(centre - side / 2 + shift, 0, size - side), np.clip(centre + side / 2 + shift + 1, side, size))
            for centre, side, shift in zip((y, x), sprite.coverage.shape, generator.uniform(-4, 4, 2), strict=True)
        ]
        paste(picture, mask, sprite, tuple(spans), int(thing) + 1, generator)
    return expose(picture, generator), mask


def mistaken(tags: set[int], wrong: float, classes: int, generator: np.random.Generator) -> set[int]:
    """Replace each tag by an absent one with the chance `wrong`."""
    given = set(tags)
    for tag in sorted(tags):
        absent = sorted(set(range(classes)) - tags - given)
        if absent and generator.random() < wrong:
            given = (given - {tag}) | {int(generator.choice(absent))}
    return given


def measure(name: str, variant: str, seed: int, output: Path, steps: int | None) -> dict[str, Any]:
    """Train the chosen recipe on a set, with the variant's overrides, and score what its stages left."""
    place = output / f"{name.replace(' ', '_').replace('%', 'percent')}-{seed}"
    data = make_folder(place / "data", SETS[name], images=IMAGES, held_out=HELD_OUT, size=SIZE, seed=seed)
    weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
    backbone = (f"backbone.weights={weights}", "backbone.mean=[.5,.5,.5]", "backbone.std=[.5,.5,.5]")
    training = (f"training.seed={seed}", "training.workers=0", *([f"training.steps={steps}"] if steps else []))
    own = (*backbone, *training, *VARIANTS[variant])
    dataset = training_split(open_data(data, load_recipe({"method": "cam"}).data), load_recipe({"method": "cam"}).data)
    recipe = choose_recipe(dataset, own, forward_seconds=lambda config, side: 0.0).recipe
    start = time.perf_counter()
    # The first variant that trains on crops of a size, in an order, trains the classifier of all that do.
    run, order = place / variant.replace(" ", "-"), recipe.training.order
    first = place / f"classifier-{recipe.views.crop}{'' if order == 'shuffled' else f'-{order}'}"
    copied = recipe.staged and first.exists() and not run.exists()
    if copied:
        shutil.copytree(first, run)
    train(data, recipe=recipe, output=run, from_stage="cams" if copied else None)
    if recipe.staged and not first.exists():
        shutil.copytree(run, first, ignore=shutil.ignore_patterns("cams", "alike", "refine", "segmenter"))
    row: dict[str, Any] = {"set": name, "variant": variant, "seed": seed, "steps": recipe.training.steps}
    row |= {"images": IMAGES, "size": SIZE, "seconds": round(time.perf_counter() - start)}
    stages = evaluate_stages(run) if recipe.staged else []
    results = {score.stage: score.result for score in stages}
    for stage, refine in (("segmenter", "none"), ("segmenter_crf", "crf")):
        results[stage] = evaluate(run, data, split=["test"], overrides=[f"inference.refine={refine}"])[0]
    for stage, result in results.items():
        scores = result.scores
        row[stage] = {
            "miou": round(100 * scores.miou, 2),
            "confusion_ratio": round(scores.mean_confusion_ratio, 3),
            "coverage": round(scores.coverage, 3),
            "iou": {each: round(100 * float(iou), 1) for each, iou in zip(result.classes, scores.iou, strict=True)},
        }
    row["tagged"] = {
        each: round(float(part), 3) for each, part in zip(dataset.classes, dataset.tag_matrix().mean(0), strict=True)
    }
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=tuple(SETS))
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=["unenlarged", "now"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="of the classifier and of the segmenter; default: as they are chosen")
    parser.add_argument("--output", type=Path, default=Path("runs/folders"), help="another one for another --steps")
    arguments = parser.parse_args()
    path = RESULTS / "folders.json"
    for seed in arguments.seeds:
        for name in arguments.sets:
            for variant in arguments.variants:
                row = measure(name, variant, seed, arguments.output, arguments.steps)
                same = name, variant, seed, row["steps"]
                rows = json.loads(path.read_text())["rows"] if path.exists() else []
                rows = [old for old in rows if (old["set"], old["variant"], old["seed"], old["steps"]) != same] + [row]
                write_results("folders", {"rows": rows, **device_facts()})
