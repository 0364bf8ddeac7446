"""Which scales and which background powers make good masks of CAMs, and what can be seen of it without masks.

    make bench NAME=cam_scales ARGS="runs/folders/street-0/now runs/voc-animals/cam-0 --images 48"

Takes the classifiers of finished runs whose training images have ground truth. For each set of scales and each power it
scores what the dense CRFs of the power and of four times it agree on, tags given, and says how much of the pixels that
is; beside it, how much of the tags the classifier recognises in the masks alone, by which `refine.band: auto` chooses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, device_facts, write_results

from tagmask.api import open_data, training_split
from tagmask.data.splits import last_ids
from tagmask.engine.band import POWERS, recognised, with_band
from tagmask.engine.model import load_classifier
from tagmask.engine.refine_folder import refine_folder, write_cam_folder
from tagmask.engine.run import open_run
from tagmask.evaluation.stages import score_masks
from tagmask.recipes.stages import RefineConfig

SCALES = ((1.0,), (1.0, 1.5), (1.0, 1.5, 2.25))


def sweep(run: Path, data: Path | None, images: int, scales: tuple[float, ...]) -> dict[str, Any]:
    """Score the band of every power on some training images, spread over the set."""
    opened = open_run(run)
    recipe, classes = opened.recipe, opened.classes
    classifier = load_classifier(recipe, len(classes), run).eval()
    dataset = training_split(open_data(data, recipe.data, classes), recipe.data)
    records = [record for record in dataset.records if record.tags and record.mask is not None]
    dataset = replace(dataset, records=tuple(records[:: max(1, len(records) // images)][:images]))
    last, longest = last_ids(dataset, recipe.data), (recipe.refine or RefineConfig()).longest
    auto = RefineConfig(name="crf", band="auto", longest=longest)
    inference = recipe.inference.model_copy(update={"scales": scales})
    with tempfile.TemporaryDirectory() as name:
        cams = Path(name) / "cams"
        write_cam_folder(classifier, dataset.records, inference, cams)
        fractions = recognised(auto, cams, dataset.records, classifier, inference, last=last)
        chosen = with_band(auto, cams, dataset.records, classifier, inference, last=last).band
        rows = []
        for power, fraction in zip(POWERS, fractions.tolist(), strict=True):
            place = Path(name) / f"{power:g}"
            band = auto.model_copy(update={"band": (power, 4 * power)})
            refine_folder(cams, dataset.records, place, band, num_classes=len(classes), last=last)
            scores = score_masks(place, dataset, "masks", "masks").result.scores
            row = {"power": power, "miou": round(100 * scores.miou, 1), "coverage": round(scores.coverage, 2)}
            rows.append({**row, "recognised": round(fraction, 3)})
    return {"scales": scales, "images": len(dataset), "chosen": chosen, "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="the data of all runs; by default each run's own")
    parser.add_argument("--images", type=int, default=48)
    arguments = parser.parse_args()
    path = RESULTS / "cam_scales.json"
    for run in arguments.runs:
        for scales in SCALES:
            found = sweep(run, arguments.data, arguments.images, scales)
            kept = json.loads(path.read_text())["runs"] if path.exists() else {}
            key = f"{run.parent.name}/{run.name}, scales {', '.join(f'{scale:g}' for scale in scales)}"
            write_results("cam_scales", {"runs": {**kept, key: found}, **device_facts()})
            print(key, json.dumps(found), flush=True)
