"""A run that was not trained: what a report shows of it can be checked all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tagmask.engine.checkpoint import save_model
from tagmask.engine.run import create_run
from tagmask.methods.full import FullConfig
from tagmask.methods.registry import build_method
from tagmask.recipes.load import load_recipe
from tests.conftest import tiny_recipe

METRICS = [
    {"step": 2, "cls": 0.7, "loss": 0.7, "lr": 1e-3, "images_per_second": 4.0},
    {"step": 4, "cls": 0.6, "loss": 0.8, "lr": 5e-4, "images_per_second": 8.0},
    {"step": 4, "eval/decoder_miou": 12.5},
]


def staged_run(folder: Path, data: Path, *, segmenter: bool) -> Path:
    """A run of SC-CAM, one round, with the weights it began with."""
    torch.manual_seed(4)
    values = tiny_recipe("cam", f"data.path={data}").model_dump(mode="json")
    values |= {"method": {"name": "sccam", "rounds": 1, "subclasses": 2}}
    values |= {"segmenter": {"start": "classifier"}} if segmenter else {}
    recipe = load_recipe(values)
    run = create_run(folder, recipe, tuple((data / "classes.txt").read_text().splitlines()))
    models = {"round1": recipe}
    if segmenter:
        models["segmenter"] = recipe.model_copy(update={"method": FullConfig()})
    for name, own in models.items():
        (folder / name).mkdir()
        save_model(folder / name, build_method(own, len(run.classes)).network)
    return folder


@pytest.fixture(scope="session")
def untrained(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of plain CAM on the synthetic set, with the weights it began with and a few logged lines."""
    torch.manual_seed(3)
    recipe = tiny_recipe("cam", f"data.path={cooccur}")
    classes = tuple((cooccur / "classes.txt").read_text().splitlines())
    run = create_run(tmp_path_factory.mktemp("runs") / "untrained", recipe, classes)
    save_model(run.folder, build_method(recipe, len(classes)).network)
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    return run.folder
