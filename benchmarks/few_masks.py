"""Masks for a few images: mIoU over the number of masks given, for images that `suggest` names and for random ones.

    make bench NAME=few_masks ARGS="--counts 0 8 16 32 64 277 --seeds 0"

MSRC-21 things. One run of plain CAM learns from the tags of train + val alone: its classifier and CAMs are the same in
all rows of a seed. For each row the masks (dense CRF) are made anew with what the ground truth of that many images
teaches (`data.use_masks`, `refine.pixel_classifier`), that ground truth takes the place of those images' own, and a
segmenter is trained on them and scored on test without tags: at one scale, at scales 1 and 1.5, and at these with a
dense CRF. Random images are tagged ones. `--from segmenter` leaves the other images' masks as tags alone made them.
Needs the photographs and the MobileNetV2 weights in the folder named by TAGMASK_SHARED (default: ../shared). A row that
is there already is not made again. At the end docs/images/few_masks.png is drawn of all rows; `--counts` without
numbers does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, device_facts, write_results

from tagmask.api import evaluate, open_data, train, training_split
from tagmask.api.suggest import suggest
from tagmask.recipes.load import load_recipe

SHARED = Path(os.environ.get("TAGMASK_SHARED") or Path(__file__).parents[2] / "shared")
SETTINGS = (
    "training.steps=300",
    "views.crop=224",
    "views.scale=[0.6,1.2]",
    "method.decoder_from=1000000",
    "inference.scales=[1.0,1.5]",
    "refine.name=crf",
    "refine.band=auto",
    "segmenter.start=weights",
    "segmenter.method={name: full, decoder: skip, paste: 0.5}",
    "segmenter.views={crop: 192, scale: [0.7, 1.4]}",
    "segmenter.training={steps: 240, batch: 8, workers: 0, log_every: 20, checkpoint_every: 60, precision: 32-true}",
    "data.use_masks=true",
)
TAGGED = 277  # photographs of train and val that bear one of the 15 tags
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "few_masks.png"
DRAWN = ["inference.tag_weight=0"]  # the rows of the picture
LINES = {"suggested": ("#0072b2", "o-"), "random": ("#e69f00", "s--")}
NOT_COPIED = {
    "refine": ("refine", "segmenter", "notes.json", ".tagmask.lock"),
    "segmenter": ("segmenter", "notes.json", ".tagmask.lock"),
}


def folder_with_masks(target: Path, names: Iterable[str], held_out: Iterable[str]) -> Path:
    """Link MSRC-21 anew, with the ground truth of the named training images and of the test images alone."""
    source = SHARED / "data" / "msrc21"
    shutil.rmtree(target, ignore_errors=True)
    (target / "masks").mkdir(parents=True)
    (target / "images").symlink_to(source / "images")
    for file in ("tags.csv", "classes.txt"):
        (target / file).symlink_to(source / file)
    for name in (*names, *held_out):
        (target / "masks" / f"{name}.png").symlink_to(source / "masks" / f"{name}.png")
    return target


def measure(count: int, chosen_by: str, seed: int, start: str, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Make the row's masks, if `start` says so, train its segmenter on them and score it on test."""
    weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
    own = (f"backbone.weights={weights}", f"training.seed={seed}", *SETTINGS, *overrides)
    recipe = load_recipe("cam/msrc-things", own)
    source = SHARED / "data" / "msrc21"
    config = recipe.data
    test = [record.name for record in open_data(source, config).records]
    learnt = training_split(open_data(source, config), config).records
    held_out = sorted(set(test) - {record.name for record in learnt})
    tagged = [record.name for record in learnt if record.tags]
    base, place = output / f"tags-{seed}", output / f"{chosen_by}-{count}-{seed}-{start}"
    if not (base / "segmenter" / "done.json").exists():
        none = recipe.model_copy(update={"data": recipe.data.model_copy(update={"use_masks": False})})
        train(folder_with_masks(output / f"data-tags-{seed}", (), held_out), recipe=none, output=base)
    if count == 0:
        masked: list[str] = []
        place = base
    elif chosen_by == "suggested":
        data = output / f"data-tags-{seed}"
        masked = [each.name for each in suggest(base, data, count=count)]
    else:
        masked = np.random.default_rng(seed).permutation(tagged)[:count].tolist()
    begin = time.perf_counter()
    data = folder_with_masks(output / f"data-{place.name}", masked, held_out)
    if count:
        if not place.exists():
            shutil.copytree(base, place, ignore=shutil.ignore_patterns(*NOT_COPIED[start]))
        train(data, recipe=recipe, output=place, from_stage=start)
    result = evaluate(place, data, split=["test"], overrides=["inference.scales=[1.0]"])[0].scores
    finer, smoothed = (
        evaluate(place, data, split=["test"], overrides=own)[0].scores for own in ([], ["inference.refine=crf"])
    )
    names = ("background", *(config.classes or ()))
    iou = {each: round(100 * float(value), 1) for each, value in zip(names, result.iou, strict=True)}
    return {
        "masks": count,
        "chosen_by": chosen_by if count else "",
        "seed": seed,
        "from": start if count else "",
        "overrides": overrides,
        "miou": round(100 * result.miou, 2),
        "two_scales": round(100 * finer.miou, 2),
        "crf": round(100 * smoothed.miou, 2),
        "confusion_ratio": round(result.mean_confusion_ratio, 3),
        "iou": iou,
        "seconds": round(time.perf_counter() - begin),
    }


def draw(rows: Sequence[dict[str, Any]]) -> None:
    """Draw mIoU over the number of masks: a dot a seed, and lines through the means of suggested and random images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["from"] != "segmenter" and row["overrides"] == DRAWN]
    counts = sorted({row["masks"] for row in rows})
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for chosen_by, (colour, style) in LINES.items():
        # No masks and all masks are the same images however they were chosen: both lines end there.
        own = [row for row in rows if row["chosen_by"] == chosen_by or not 0 < row["masks"] < TAGGED]
        found = {count: [row["miou"] for row in own if row["masks"] == count] for count in counts}
        found = {counts.index(count): scores for count, scores in found.items() if scores}
        means = [float(np.mean(scores)) for scores in found.values()]
        axis.plot(list(found), means, style, color=colour, label=f"{chosen_by} images")
        for place, scores in found.items():
            axis.plot([place] * len(scores), scores, ".", color=colour, alpha=0.6)
    axis.set_xticks(range(len(counts)), [f"all {TAGGED}" if count >= TAGGED else str(count) for count in counts])
    axis.set_xlabel(f"photographs with a drawn mask, of {TAGGED}")
    axis.set_ylabel("mIoU on test, %")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 8, 16, 32, 64, TAGGED])
    parser.add_argument("--by", nargs="+", choices=("suggested", "random"), default=["suggested", "random"])
    parser.add_argument("--from", choices=("refine", "segmenter"), default="refine", dest="start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/few-masks"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    path = RESULTS / "few_masks.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    keys = ("masks", "chosen_by", "seed", "from", "overrides")
    for number in arguments.seeds:
        for count in arguments.counts:
            for chosen_by in arguments.by if count else [""]:
                start = arguments.start if count else ""
                wanted = count, chosen_by, number, start, arguments.overrides
                if any(tuple(row[key] for key in keys) == wanted for row in rows):
                    continue
                rows.append(measure(count, chosen_by, number, start, arguments.output, arguments.overrides))
                write_results("few_masks", {"runs": rows, **device_facts()})
                print(json.dumps(rows[-1]), flush=True)
    draw(rows)
