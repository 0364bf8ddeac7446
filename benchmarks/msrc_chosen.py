"""MSRC-21 things by the recipe that `tagmask train` chooses on this machine, as a user gets it.

    make bench NAME=msrc_chosen ARGS="--seeds 0 1 2"

Learns from the tags of train + val and is scored on test without tags, without a dense CRF at the end and with one;
protocol `seco`. Needs the photographs and the MobileNetV2 weights in the folder named by TAGMASK_SHARED (default:
../shared). What is there already is measured, not made again: with --set, give another --output.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from common import RESULTS, device_facts, write_results
from msrc_stages import SHARED, figures, is_look

from tagmask.api import evaluate, train

THINGS = "cow, sheep, aeroplane, face, car, bicycle, flower, sign, bird, book, chair, cat, dog, body, boat"
SETTINGS = (
    f"backbone.weights={SHARED / 'weights' / 'mobilenetv2_100.coral_in1k.safetensors'}",
    f"data.classes=[{THINGS}]",
    "data.untagged=negative",
    "data.train=[train, val]",
    "data.evaluate=[test]",
    "training.precision=32-true",
)


def measure(seed: int, output: Path, overrides: list[str]) -> dict[str, Any]:
    data, folder = SHARED / "data" / "msrc21", output / f"seed-{seed}"
    looking = [each for each in overrides if is_look(each)]
    making = [each for each in overrides if not is_look(each)]
    start = time.perf_counter()
    train(data, output=folder, overrides=(*SETTINGS, f"training.seed={seed}", *making))
    row: dict[str, Any] = {"seed": seed, "seconds": round(time.perf_counter() - start)}
    row["segmenter"] = figures(evaluate(folder, data, overrides=["inference.refine=none", *looking])[0])
    row["segmenter_crf"] = figures(evaluate(folder, data, overrides=[*looking, "inference.refine=crf"])[0])
    row["stages"] = json.loads((folder / "stages.json").read_text())
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/msrc-chosen"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    path = RESULTS / "msrc_chosen.json"
    for number in arguments.seeds:
        row = measure(number, arguments.output, arguments.overrides)
        row["overrides"] = arguments.overrides
        same = number, arguments.overrides
        # Read as late as this: another process may have added its seeds meanwhile.
        rows = json.loads(path.read_text())["runs"] if path.exists() else []
        rows = [each for each in rows if (each["seed"], each["overrides"]) != same]
        write_results("msrc_chosen", {"runs": [*rows, row], **device_facts()})
