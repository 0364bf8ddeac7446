"""Real photographs of PASCAL VOC 2012 in the official layout: all five methods through stages, three hours of one core.

    make bench NAME=voc_animals ARGS="full cam sccam seco rca --seeds 0"

Recipes METHOD/voc-animals: eight classes are learnt from the tags of train_aug (`full`: from its masks), the mean is
over the background and six of them, on val, no tags given. CAMs and masks are scored on the training images with their
tags. Needs the photographs and the MobileNetV2 weights in the folder named by TAGMASK_SHARED (default: ../shared). A
run that is there already is measured, not trained again; one that was killed goes on. `--set` changes the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from common import RESULTS, device_facts, write_results

from tagmask.api import evaluate, train
from tagmask.engine.stage import read_costs
from tagmask.evaluation.stages import evaluate_stages
from tagmask.evaluation.tables import to_json
from tagmask.recipes.load import load_recipe

SHARED = Path(os.environ.get("TAGMASK_SHARED") or Path(__file__).parents[2] / "shared")


def measure(method: str, seed: int, output: Path, overrides: list[str]) -> dict[str, Any]:
    weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
    own = [f"backbone.weights={weights}", f"training.seed={seed}", "training.workers=0", *overrides]
    recipe = load_recipe(f"{method}/voc-animals", own)
    data, folder = SHARED / "data" / "voc12_animals", output / f"{method}-{seed}"
    start = time.perf_counter()
    train(data, recipe=recipe, output=folder)
    row: dict[str, Any] = {"method": method, "seed": seed, "overrides": overrides}
    row["seconds"] = round(time.perf_counter() - start)
    if not recipe.staged:
        return row | {"segmenter": to_json(evaluate(folder, data)[0])}
    row |= {score.stage: to_json(score.result) for score in evaluate_stages(folder, data)}
    return row | {"stages": read_costs(folder)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=("full", "cam", "sccam", "seco", "rca"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/voc-animals"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="needs an --output of its own")
    arguments = parser.parse_args()
    path = RESULTS / "voc_animals.json"
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    for number in arguments.seeds:
        for name in arguments.methods:
            row = measure(name, number, arguments.output, arguments.overrides)
            same = name, number, arguments.overrides
            rows = [old for old in rows if (old["method"], old["seed"], old.get("overrides", [])) != same] + [row]
            write_results("voc_animals", {"runs": rows, **device_facts()})
    said = [(" ".join([f"{row['method']}-{row['seed']}", *row.get("overrides", [])]), row["segmenter"]) for row in rows]
    print(json.dumps({name: round(100 * result["miou"], 2) for name, result in said}))
