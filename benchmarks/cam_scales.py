"""At which scales to make the CAMs that become masks, and which band of the background to leave undecided.

    make bench NAME=cam_scales ARGS="runs/folders/street-0/now runs/voc --images 24"

Takes the classifiers of finished runs whose training images have ground truth. For each set of scales and each pair of
background powers it scores what two dense CRFs agree on, tags given, and how much of the image that is. Classes of
`data.last` are left out of masks and ground truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, device_facts, write_results
from PIL import Image

from tagmask.api import open_data, training_split
from tagmask.data.images import open_image
from tagmask.engine.model import load_classifier
from tagmask.engine.run import open_run
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import score
from tagmask.ops.crf import crf_on_cams
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.resize import resize

SCALES = ((1.0, 1.5), (1.0, 1.5, 2.25), (1.5, 2.25))
BANDS = ((1, 3), (1, 6), (2, 6), (2, 8), (2, 12), (3, 8), (3, 12), (4, 12))
SIDE = 224  # long side in pixels at which the CRFs run and masks are compared


@torch.inference_mode()
def sweep(run: Path, images: int) -> list[dict[str, Any]]:
    """Score every set of scales with every band on some training images, spread over the set."""
    opened = open_run(run)
    recipe, classes = opened.recipe, opened.classes
    method = load_classifier(recipe, len(classes), run)
    records = list(training_split(open_data(None, recipe.data, classes), recipe.data).records)
    records = [record for record in records if record.tags and record.mask is not None]
    records = records[:: max(1, len(records) // images)][:images]
    long_side = recipe.inference.long_side or SIDE
    powers = sorted({power for band in BANDS for power in band})
    left_out = [classes.index(name) for name in recipe.data.last]
    found = {(scales, band): ConfusionMatrix(len(classes), background=True) for scales in SCALES for band in BANDS}
    for record in records:
        tags = [tag for tag in record.tags if tag not in left_out]
        image = open_image(record.image)
        assert record.mask is not None
        truth = record.mask.load(image.height, image.width)
        truth = np.where(np.isin(truth, [tag + 1 for tag in left_out]), 0, truth)
        small, net = (_fitted(image, side) for side in (SIDE, long_side))
        ground_truth = np.asarray(Image.fromarray(truth).resize(small.size, Image.Resampling.NEAREST))
        pixels = torch.from_numpy(np.array(net)).permute(2, 0, 1)[None] / 255
        for scales in SCALES if tags else ():
            cams = method.cams(method.network.backbone.normalise(pixels), scales)[0][tags]
            cams = resize(cams[None], (small.height, small.width))[0]
            planes = crf_on_cams(torch.from_numpy(np.array(small)), cams, *powers)
            labels = np.array([0, *(tag + 1 for tag in tags)])[planes.argmax(dim=1).numpy()]
            for band in BANDS:
                strong, weak = (labels[powers.index(power)] for power in band)
                decided = np.where(strong == weak, strong, IGNORE).astype(np.uint8)
                found[scales, band].add(ground_truth, decided)
    rows = []
    for (scales, band), matrix in found.items():
        scores = score(matrix, "eps")
        row = {"scales": scales, "band": band, "miou": round(100 * scores.miou, 1)}
        rows.append({**row, "coverage": round(scores.coverage, 3)})
    return rows


def _fitted(image: Image.Image, side: int) -> Image.Image:
    factor = side / max(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=24)
    arguments = parser.parse_args()
    path = RESULTS / "cam_scales.json"
    for run in arguments.runs:
        name = f"{run.parent.name}/{run.name}"
        kept = json.loads(path.read_text())["runs"] if path.exists() else {}
        rows = {**kept, name: {"images": arguments.images, "rows": sweep(run, arguments.images)}}
        write_results("cam_scales", {"runs": rows, **device_facts()})
