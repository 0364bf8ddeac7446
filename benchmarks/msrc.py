"""MSRC-21, 15 things against background: train on the tags of train + val, measure on test.

    make bench NAME=msrc ARGS="cam seco full --seeds 0"
    make bench NAME=msrc ARGS="seco --seeds 0 --set refine=null --set segmenter=null --output runs/msrc-single"

Needs the photographs and the MobileNetV2 weights in the folder named by TAGMASK_SHARED (default: ../shared). A run that
is there already is measured, not trained again; one that was killed goes on.
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
from tagmask.evaluation.tables import to_json

SHARED = Path(os.environ.get("TAGMASK_SHARED") or Path(__file__).parents[2] / "shared")


def measure(method: str, seed: int, output: Path, overrides: list[str]) -> dict[str, Any]:
    weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
    start = time.perf_counter()
    run = train(
        SHARED / "data" / "msrc21",
        recipe=f"{method}/msrc-things",
        output=output / f"{method}-{seed}",
        overrides=[f"backbone.weights={weights}", f"training.seed={seed}", *overrides],
    )
    seconds = time.perf_counter() - start
    # A run that was there before keeps its recipe: how it is looked at now is said here.
    looking = [each for each in overrides if each.startswith("inference.")]
    decoder, _ = evaluate(run, split=["test"], overrides=looking)
    refined, _ = evaluate(run, split=["test"], overrides=[*looking, "inference.refine=crf"])
    told, _ = evaluate(run, split=["test"], tags=True, overrides=looking)
    row = {
        "method": method,
        "seed": seed,
        "overrides": overrides,
        "training_seconds": round(seconds),
        "decoder_no_tags": to_json(decoder),
        "decoder_no_tags_crf": to_json(refined),
        "decoder_tags_given": to_json(told),
    }
    if method == "full":  # learns from masks, its CAMs are of no interest
        return row
    cams, sweep = evaluate(run, split=["test"], source="cam", overrides=looking)
    assert sweep is not None
    return row | {
        "cam_tags_given": to_json(cams),
        "cam_best_miou": sweep.best.miou,
        "cam_best_threshold": float(sweep.best_threshold),
    }


def settings_of(row: dict[str, Any]) -> tuple[str, int, list[str]]:
    return row["method"], row["seed"], row.get("overrides", [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/msrc"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    path = RESULTS / "msrc.json"
    measured = {}
    for name in arguments.methods:
        for number in arguments.seeds:
            row = measure(name, number, arguments.output, arguments.overrides)
            # Read as late as this: another process may have added its seeds meanwhile.
            rows = json.loads(path.read_text())["runs"] if path.exists() else []
            rows = [old for old in rows if settings_of(old) != settings_of(row)] + [row]
            write_results("msrc", {"runs": rows, **device_facts()})
            measured[f"{name}-{number}"] = round(100 * row["decoder_no_tags"]["miou"], 2)
    print(json.dumps(measured))
