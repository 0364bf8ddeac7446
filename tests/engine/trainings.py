"""Trainings of twenty steps, one a method and kind of network, that one process and two have to do alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from tagmask.data.dataset import Dataset
from tagmask.engine import loop
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import Recipe, load_recipe
from tests.conftest import staged_recipe, tiny_recipe

STEPS = 20
COMMON = (
    f"training.steps={STEPS}",
    "training.batch=8",
    "training.log_every=1",
    "training.precision=32-true",
    "optimizer.lr=1e-4",
)


class Training(NamedTuple):
    """A training.

    Attributes:
        recipe: of the method.
        build: makes the method.
        clusters: sub-categories a class, for methods that learn them.
    """

    recipe: Recipe
    build: Callable[[Recipe, int], Method] = build_method
    clusters: int | None = None


def changed(recipe: Recipe, *overrides: str) -> Recipe:
    return load_recipe(recipe.model_dump(mode="json"), (*COMMON, *overrides))


def trainings() -> dict[str, Training]:
    thin = "backbone={name: resnet38, freeze_norm: true, options: {width: 0.0625}}"
    norms = "backbone={name: resnet10t.c3_in1k, options: {channels: [8, 8, 16, 16], stem_width: 8}}"
    sccam, rca = staged_recipe("sccam"), staged_recipe("rca")
    return {
        "cam": Training(changed(tiny_recipe("cam"), "views.crop=32")),
        "seco": Training(changed(tiny_recipe("seco"), "method.patches=2")),
        "full": Training(changed(tiny_recipe("full"), "views.crop=32", "backbone.options.drop_path_rate=0.2")),
        "segmenter": Training(changed(tiny_recipe("full"), "method.copies=[0.5]", "views.crop=32")),
        "sccam-first": Training(changed(sccam), build=lambda recipe, k: build_method(recipe, k, number=0)),
        "sccam-clusters": Training(changed(sccam), clusters=2),
        "rca": Training(
            changed(rca, "method.memory=16", "method.contrast_weight=0.1", "optimizer={name: poly_sgd, lr: 0.01}")
        ),
        "affinitynet": Training(
            # SGD, as published: Adam divides by what is next to nothing where a gradient is rounding alone.
            changed(tiny_recipe("full"), "views.crop=96", "optimizer={name: poly_sgd, lr: 0.01}"),
            build=lambda recipe, k: Affinity(Backbone(recipe.backbone), k),
        ),
        "batch-norm": Training(changed(tiny_recipe("cam"), norms, "views.crop=32")),
        "dropped-channels": Training(changed(sccam, thin), clusters=2),
    }


def train(training: Training, dataset: Dataset, folder: Path, devices: int, stop: int = STEPS) -> Method:
    recipe = load_recipe(
        training.recipe.model_dump(mode="json"), (f"training.devices={devices}", f"training.stop={stop}")
    )
    folder.mkdir(exist_ok=True)
    clusters = None
    if training.clusters is not None:
        tags = torch.from_numpy(dataset.tag_matrix()).long()
        clusters = torch.where(tags > 0, torch.arange(len(tags))[:, None] % training.clusters, -1)
    return loop.train(
        recipe, dataset, folder, clusters=clusters, build=lambda: training.build(recipe, len(dataset.classes))
    )
