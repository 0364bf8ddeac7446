"""Whole optimiser steps of RCA's released training loop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tagmask.engine.optim import build_optimizer
from tagmask.methods import rca, rca_memory
from tagmask.methods.base import TrainingSet
from tagmask.methods.rca_network import Mixing
from tagmask.methods.registry import build_method
from tagmask.models.published import rca as published_rca
from tagmask.recipes.load import load_recipe
from tests.golden_checks import Vectors, check, tensor
from tests.golden_checks.release_state import (
    Places,
    Tolerance,
    assert_learnt,
    assert_moved,
    assert_near,
    assert_same,
    make_batch,
    rca_value,
    release_state,
    update,
)

TOLERANCES = Tolerance(1e-6, 1e-3, 1e-2, 1e-3, 5e-2, 1e-6), Tolerance(1e-3, 1e-2, 5e-2, 1e-3, 5e-2, 1e-6)
LOSSES = {"loss": "total", "cls": "fine", "coarse": "coarse", "contrast": "contrast"}
DIFFERING_PIXELS = 0.02


@check("rca_training_step")
def rca_step(vectors: Vectors) -> None:
    method, places = _make_rca(vectors)
    images, tags = vectors["in_image"], vectors["in_tags"]
    # The file's epochs have a batch each; the schedule itself is pinned by `rca_lr_schedule`.
    lr = float(vectors["out_lr"][0, 0])
    config = load_recipe("rca/voc").optimizer.model_copy(update={"lr": lr, "milestones": (), "power": 0.0})
    optimizer = build_optimizer(method.train(), config)
    maps = []
    method.network.heads.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    centres = _centres(places, tags.shape[1])
    clusterings = count()

    def kmeans(entries: np.ndarray, clusters: int, *, seed: int) -> tuple[None, np.ndarray]:
        next(clusterings)
        return None, next(centres)

    for row, step in enumerate(vectors["param_epoch"].tolist()):
        batch = make_batch(method, images, tags, range(len(images)))
        mixing = Mixing(*(tensor(vectors[f"in_{name}"][row]) for name in ("partner_image", "partner_class", "share")))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rca, "draw_mixing", lambda *_, mixing=mixing, **__: mixing)
            patch.setattr(rca_memory, "kmeans", kmeans)
            losses = update(method, batch, optimizer, step, int(vectors["param_epochs"]), config)
        tolerance = TOLERANCES[min(row, 1)]
        for ours, theirs in LOSSES.items():
            assert_near(losses[ours], vectors[f"out_loss_{theirs}"][row], tolerance.loss, f"step {row}: {theirs}")
        for name, own in (("fine", maps[-1].fine), ("coarse", maps[-1].coarse)):
            expected = vectors[f"out_logits_{name}"][row]
            assert_near(own.mean(dim=(2, 3)), expected, max(tolerance.loss, 1e-4), f"step {row}: logits {name}")
        for key in ("lr", "momentum"):
            ours = [group[key] for group in optimizer.param_groups]
            assert ours == pytest.approx(vectors[f"out_{key}"][row].tolist(), rel=1e-9), f"step {row}: {key}"
        _compare_memory(vectors, row, method, places, tolerance.remembered)
        _compare_attention(vectors, row, method, tags)
        assert_learnt(vectors, places, row, tolerance)
        for name in vectors["param_statistics"].tolist():
            assert_moved(vectors, places, name, row, tolerance.moved_norm, tolerance.moved)
    assert next(clusterings) == int(vectors["param_clusterings"])


def _make_rca(vectors: Vectors) -> tuple[rca.Rca, Places]:
    """RCA as released, with the file's weights, and a training set of the file's images."""
    state = release_state(vectors, rca_value)
    renamed = {f"network.{name}": value for name, value in published_rca.network_state(state, "vector").items()}
    classes, (entries, _) = vectors["in_tags"].shape[1], state["queue0"].shape
    recipe = load_recipe(
        "rca/voc",
        [
            "backbone.weights=null",
            f"backbone.mean={vectors['param_mean'].tolist()}",
            f"backbone.std={vectors['param_std'].tolist()}",
            f"method.quirks=[{','.join(get_args(rca.Quirk))}]",
            f"method.memory={entries}",
            f"method.prototypes={len(state['cluter0'])}",
        ],
    )
    method = build_method(recipe, classes)
    assert isinstance(method, rca.Rca)
    method.load_state_dict(renamed)
    tags = tensor(vectors["in_tags"]).float()
    method.start_training(TrainingSet(tags, len(tags), int(vectors["param_epochs"]), vectors["in_image"].shape[-1]))
    return method, Places(method, renamed, state)


def _centres(places: Places, classes: int) -> Iterator[np.ndarray]:
    """The prototypes that k-means returns, class after class and over again."""
    while True:
        for index in range(classes):
            yield places.state[f"cluter{index}"].numpy()


def _compare_memory(vectors: Vectors, row: int, method: rca.Rca, places: Places, tolerance: float) -> None:
    """Pointers and entries; those that were not written are what they were."""
    memory, expected = method.network.memory, vectors["out_memory_first"][row]
    assert_same(memory.pointer, vectors["out_memory_pointer"][row], f"step {row}: pointers")
    entries, columns = expected.shape[1:]
    assert_near(memory.queue[:, :entries, :columns], expected, tolerance, f"step {row}: memory")
    norms = memory.queue[:, :entries].norm(dim=2)
    assert_near(norms, vectors["out_memory_norms"][row], tolerance, f"step {row}: norms of the memory")
    start = torch.stack([places.state[f"queue{index}"] for index in range(len(memory.queue))])
    changed = (memory.queue != start).any(dim=2).sum(dim=1)
    assert_same(changed, vectors["out_memory_changed"][row], f"step {row}: written entries")


def _compare_attention(vectors: Vectors, row: int, method: rca.Rca, tags: np.ndarray) -> None:
    """The gathered maps, pairs in order of image and class: a grey level apart in a fiftieth of the pixels at most."""
    assert method.gathered is not None
    maps, written = method.gathered.maps[:-1], method.gathered.written[:-1]
    assert len(maps) == int(tags.sum())
    assert_same(written, vectors["out_attention_written"][row], f"step {row}: which maps are written")
    apart: Tensor = (maps.int() - tensor(vectors["out_attention"][row]).int()).abs()
    assert int(apart.max()) <= 1
    assert float((apart > 0).float().mean()) <= DIFFERING_PIXELS
