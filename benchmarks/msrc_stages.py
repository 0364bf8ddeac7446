"""MSRC-21 things through all stages: CAMs, + CRF, + random walk, + segmenter, for CAM, SC-CAM by round, RCA and SeCo.

    make bench NAME=msrc_stages ARGS="cam sccam rca seco --seeds 0"

CAMs and masks are scored on the training images (train + val) with their tags, the segmenter on test without tags, as
it is and with a dense CRF after it, and CAMs with tags on test too; protocol `seco`, or `eps` where masks leave pixels
undecided. Needs the photographs and the MobileNetV2 weights in the folder named by TAGMASK_SHARED (default: ../shared).
What is there already is measured, not made again: with --set, give another --output.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, device_facts, write_results

from tagmask.api import evaluate, open_data, train, training_split
from tagmask.engine.model import load_classifier
from tagmask.engine.refine_folder import refine_folder, write_cam_folder
from tagmask.engine.run import CAMS
from tagmask.evaluation.folder import Result
from tagmask.evaluation.stages import evaluate_stages, score_cams, score_masks
from tagmask.methods.sccam import SccamConfig
from tagmask.recipes.load import load_recipe
from tagmask.recipes.stages import RefineConfig

SHARED = Path(os.environ.get("TAGMASK_SHARED") or Path(__file__).parents[2] / "shared")
BACKBONE = "{name: mobilenetv2_100, weights: %s, options: {pad_type: same}, mean: [.5, .5, .5], std: [.5, .5, .5]%s}"
EACH = "batch: 8, workers: 1, log_every: 20, checkpoint_every: 100, precision: 32-true"
SETTINGS = (
    "training.steps=300",
    "views.crop=224",
    "inference.scales=[1.0,1.5]",
    "refine.name=affinity",
    "refine.alpha=2",
    "refine.band=[1.5,6]",
    "refine.affinity.low=1.5",
    "refine.affinity.high=6",
    "refine.affinity.views={crop: 224, scale: [0.6, 1.2]}",
    f"refine.affinity.training={{steps: 150, {EACH}}}",
    "segmenter.start=weights",
    "segmenter.method={name: full, decoder: skip, paste: 0.5}",
    "segmenter.views={crop: 320, scale: [1.0, 2.0]}",
    f"segmenter.training={{steps: 400, {EACH}}}",
)
OWN = {
    "cam": ("views.scale=[0.6,1.2]", "method.decoder_from=1000000"),  # the decoder is the segmenter's business here
    # Its CAMs are tighter, so that background must be weaker to leave enough of them.
    "sccam": ("refine.alpha=3", "refine.band=[3,12]", "refine.affinity.low=3", "refine.affinity.high=12"),
    # The 54 million weights of its heads on 1,280 channels are worth bf16, which a MobileNet is not.
    "rca": (
        "training.precision=bf16-mixed",
        "refine.alpha=3",
        "refine.band=[2,8]",
        "refine.affinity.low=2",
        "refine.affinity.high=8",
    ),
    # The phases of its single-stage recipe, decoder and all: the CAMs are no worse for it.
    "seco": (
        "training.steps=500",
        "inference.cam_scales=[1.0,1.5]",
        "refine.alpha=3",
        "refine.band=[3,12]",
        "refine.affinity.low=3",
        "refine.affinity.high=12",
    ),
}


def is_look(override: str) -> bool:
    """Say whether a setting says how a trained run is looked at; it is then no part of the run's recipe."""
    return override.startswith(("inference.scales=", "inference.tag_weight=", "inference.refine="))


def figures(result: Result) -> dict[str, float | None]:
    return {
        "miou": round(100 * result.scores.miou, 2),
        "pixel_accuracy": round(100 * result.scores.pixel_accuracy, 2),
        "mean_class_accuracy": round(100 * result.scores.mean_class_accuracy, 2),
        "confusion_ratio": round(result.scores.mean_confusion_ratio, 3),
        "coverage": round(result.scores.coverage, 4),
        "background_score": (score := result.conditions.background_score) and round(score, 2),
    }


def measure(method: str, seed: int, output: Path, overrides: list[str]) -> dict[str, Any]:
    weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
    settings = [
        f"backbone.weights={weights}",
        f"refine.affinity.backbone={BACKBONE % (weights, ', output_stride: 8')}",
        f"training.seed={seed}",
        *SETTINGS,
        *OWN[method],
        *(each for each in overrides if not is_look(each)),
    ]
    data, folder = SHARED / "data" / "msrc21", output / f"{method}-{seed}"
    recipe = load_recipe(f"{method}/msrc-things", settings)
    start = time.perf_counter()
    train(data, recipe=recipe, output=folder)
    row: dict[str, Any] = {"method": method, "seed": seed, "seconds": round(time.perf_counter() - start)}
    dataset = training_split(open_data(data, recipe.data), recipe.data)
    with tempfile.TemporaryDirectory() as name:
        if isinstance(recipe.method, SccamConfig):
            inference = recipe.inference.model_copy(update={"scales": recipe.method.scales})
            for number in range(recipe.method.rounds):
                place = Path(name) / f"round{number}"
                classifier = load_classifier(recipe, len(dataset.classes), folder, number)
                write_cam_folder(classifier, dataset.with_context().records, inference, place)
                row[f"cams_round{number}"] = figures(score_cams(place, dataset).result)
        place = Path(name) / "crf"
        assert recipe.refine is not None
        crf = RefineConfig(name="crf", alpha=recipe.refine.alpha)
        own = {"background": recipe.data.background, "num_classes": len(dataset.classes)}
        refine_folder(folder / CAMS, dataset.records, place, crf, **own)
        row["crf"] = figures(score_masks(place, dataset, "crf", "dense CRF").result)
    for score in evaluate_stages(folder, data):
        row[score.stage] = figures(score.result)
    looking = [each for each in overrides if is_look(each)]
    if looking:
        row["segmenter"] = figures(evaluate(folder, data, split=["test"], overrides=looking)[0])
    refined = [*looking, "inference.refine=crf"]
    row["segmenter_crf"] = figures(evaluate(folder, data, split=["test"], overrides=refined)[0])
    held_out, sweep = evaluate(folder, data, split=["test"], source="cam", overrides=looking)
    row["cams_test"] = figures(held_out)
    if sweep is not None:
        best = {"best_miou": round(100 * sweep.best.miou, 2)}
        row["cams_test"] |= best | {"best_background_score": round(float(sweep.best_threshold), 2)}
    costs = folder / "stages.json"
    row["stages"] = json.loads(costs.read_text()) if costs.exists() else None
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=tuple(OWN))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/msrc-stages"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    path = RESULTS / "msrc_stages.json"
    for name in arguments.methods:
        for number in arguments.seeds:
            row = measure(name, number, arguments.output, arguments.overrides)
            if arguments.overrides:
                row["overrides"] = arguments.overrides
            same = name, number, arguments.overrides
            # Read as late as this: another process may have added its seeds meanwhile.
            rows = json.loads(path.read_text())["runs"] if path.exists() else []
            rows = [old for old in rows if (old["method"], old["seed"], old.get("overrides", [])) != same] + [row]
            write_results("msrc_stages", {"runs": rows, **device_facts()})
