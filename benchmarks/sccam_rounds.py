"""What a round of SC-CAM brings and why: its CAMs by clusters and weight, and what the clusters follow.

    make bench NAME=sccam_rounds ARGS="demo"
    make bench NAME=sccam_rounds ARGS="msrc"     # needs the photographs and weights, as msrc_stages does

Every variant trains a first classifier (the same, for the seed is), clusters, and a second one. CAMs are scored at
their best background score on training images with their tags, every fifth of the synthetic set, every fourth tagged
one of MSRC; there also the best of dense CRFs at several powers. What clusters follow is said in mutual information,
normalised and adjusted for chance, a mean over the classes: with the number of an image's tags, with its other tags
(on MSRC those of surroundings too) and, on the synthetic set, with the contexts of its things.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import device_facts, write_results
from msrc_stages import SETTINGS, SHARED
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from tagmask.api import demo as demonstration
from tagmask.api import open_data, train, training_split
from tagmask.data.dataset import Dataset
from tagmask.data.synthetic import make_cooccur
from tagmask.engine.clusters import read_clusters
from tagmask.engine.model import load_classifier
from tagmask.engine.refine_folder import refine_folder, write_cam_folder
from tagmask.evaluation.stages import score_cams, score_masks
from tagmask.methods.sccam import SccamConfig
from tagmask.recipes.load import Recipe, load_recipe
from tagmask.recipes.stages import RefineConfig

POWERS = (2, 3, 4, 6)
VARIANTS = {
    "msrc": {"3 clusters x 5": (3, 5), "1 cluster x 5": (1, 5), "3 clusters x 1": (3, 1)},
    "demo": {
        "1 cluster x 5": (1, 5),
        "2 clusters x 5": (2, 5),
        "6 clusters x 5": (6, 5),
        "2 clusters x 0.5": (2, 0.5),
    },
}


def recipe_of(data: str, clusters: int, weight: float) -> Recipe:
    overrides = [f"method.subclasses={clusters}", f"method.sub_weight={weight}"]
    if data == "msrc":
        weights = SHARED / "weights" / "mobilenetv2_100.coral_in1k.safetensors"
        own = [text for text in SETTINGS if not text.startswith(("refine.", "segmenter."))]
        overrides += [f"backbone.weights={weights}", *own]
        name = "sccam/msrc-things"
    else:
        name = "sccam/demo"
    return load_recipe(name, overrides).model_copy(update={"refine": None, "segmenter": None})


def place_of(data: str, output: Path) -> Path:
    if data == "msrc":
        return SHARED / "data" / "msrc21"
    folder = output / "demo-data"
    if not (folder / "tags.csv").exists():
        images, size, meet, alone = (getattr(demonstration, k) for k in ("IMAGES", "SIZE", "MEET", "ALONE"))
        make_cooccur(folder, images=images, size=size, meet=meet, alone=alone, seed=0)
    return folder


def score_round(recipe: Recipe, run: Path, dataset: Dataset, number: int, crf: bool) -> dict[str, Any]:
    assert isinstance(recipe.method, SccamConfig)
    classifier = load_classifier(recipe, len(dataset.classes), run, number)
    inference = recipe.inference.model_copy(update={"scales": recipe.method.scales})
    with tempfile.TemporaryDirectory() as name:
        cams = Path(name) / "cams"
        write_cam_folder(classifier, dataset.records, inference, cams)
        scores = score_cams(cams, dataset).result.scores
        row = {"cam_miou": round(100 * scores.miou, 2), "cam_ratio": round(scores.mean_confusion_ratio, 3)}
        found = {}
        for power in POWERS if crf else ():
            masks = Path(name) / f"{power}"
            refine_folder(cams, dataset.records, masks, RefineConfig(name="crf", alpha=power))
            found[power] = round(100 * score_masks(masks, dataset, "crf", "dense CRF").result.scores.miou, 2)
    return row | ({"crf_miou": max(found.values()), "crf_by_power": found} if found else {})


def what_clusters_follow(run: Path, dataset: Dataset, said: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """Means over the classes of both informations with each thing said of images."""
    clusters = read_clusters(run / "clusters1", dataset).numpy()
    found: dict[str, Any] = {}
    for what, values in said.items():
        pairs = []
        for index, name in enumerate(dataset.classes):
            rows = [row for row in range(len(dataset)) if clusters[row, index] >= 0]
            own = clusters[rows, index]
            # The class's own tag is in all of them and says nothing.
            other = [str(values[dataset.records[row].name]).replace(name, "") for row in rows]
            pairs.append((normalized_mutual_info_score(other, own), adjusted_mutual_info_score(other, own)))
        normalised, adjusted = (statistics.mean(column) for column in zip(*pairs, strict=True))
        found[what] = {"normalised": round(normalised, 3), "adjusted": round(adjusted, 3)}
    return found


def said_of(data: str, place: Path, dataset: Dataset) -> dict[str, dict[str, object]]:
    with (place / "tags.csv").open() as file:
        tags = {Path(row["image"]).stem: sorted(row["tags"].split(";")) for row in csv.DictReader(file)}
    said: dict[str, dict[str, object]] = {
        "number of tags": {record.name: len(record.tags) for record in dataset.records},
        "other tags": {record.name: tags[Path(record.name).name] for record in dataset.records},
    }
    if data == "demo":
        with (place / "scenes.csv").open() as file:
            said["contexts"] = {Path(row["image"]).stem: row["contexts"] for row in csv.DictReader(file)}
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=Path("runs/sccam-rounds"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    place, rows = place_of(arguments.data, arguments.output), []
    for variant, (clusters, weight) in VARIANTS[arguments.data].items():
        recipe = recipe_of(arguments.data, clusters, weight)
        run = train(place, recipe=recipe, output=arguments.output / f"{arguments.data} {variant}".replace(" ", "-"))
        dataset = training_split(open_data(place, recipe.data), recipe.data)
        every = 4 if arguments.data == "msrc" else 5
        tagged = tuple(record for record in dataset.records if record.tags)[::every]
        part, crf = replace(dataset, records=tagged), arguments.data == "msrc"
        if not rows:
            rows.append({"variant": "first classifier", **score_round(recipe, run, part, 0, crf)})
        row: dict[str, Any] = {"variant": variant, **score_round(recipe, run, part, 1, crf)}
        rows.append(
            row | {"clusters_follow": what_clusters_follow(run, dataset, said_of(arguments.data, place, dataset))}
        )
        write_results(f"sccam_rounds-{arguments.data}", {"rows": rows, **device_facts()})
