"""Whole optimiser steps of SC-CAM's released training loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.engine.optim import build_optimizer
from tagmask.methods.base import TrainingSet
from tagmask.methods.registry import build_method
from tagmask.methods.sccam import Sccam
from tagmask.models.published import resnet38 as published_resnet38
from tagmask.recipes.load import load_recipe
from tests.golden_checks import Vectors, check, tensor
from tests.golden_checks.release_state import (
    Places,
    Tolerance,
    assert_learnt,
    assert_moved,
    assert_near,
    make_batch,
    norm_of,
    release_state,
    sccam_value,
    update,
)

TOLERANCES = Tolerance(1e-6, 1e-3, 1e-2, 1e-3, 1e-2, 0.0), Tolerance(1e-5, 1e-3, 1e-2, 1e-3, 1e-2, 0.0)


@check("sccam_training_step")
def sccam_step(vectors: Vectors) -> None:
    method, places = _make_sccam(vectors)
    config = load_recipe("sccam/voc").optimizer
    optimizer = build_optimizer(method.train(), config)
    steps, images = int(vectors["param_steps"]), vectors["in_image"]
    dropout, calls = _dropout(vectors)
    outputs = []
    method.network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", dropout)
        patch.setattr(F, "dropout2d", dropout)
        for row, pictures in enumerate(images):
            own = range(row * len(pictures), (row + 1) * len(pictures))
            batch = make_batch(method, pictures, vectors["in_tags"][own.start : own.stop], own)
            losses = update(method, batch, optimizer, row, steps, config)
            tolerance = TOLERANCES[min(row, 1)]
            for ours, theirs in (("loss", "total"), ("parent", "class"), ("sub", "sub")):
                assert_near(losses[ours], vectors[f"out_loss_{theirs}"][row], tolerance.loss, f"step {row}: {theirs}")
            parent, sub, features = outputs[-1]
            columns = vectors["out_feature_values"].shape[-1]
            for name, value in (
                ("logits_class", parent),
                ("logits_sub", sub),
                ("feature_values", features[:, :columns]),
            ):
                assert_near(value, vectors[f"out_{name}"][row], 1e-4, f"step {row}: {name}")
            _compare_groups(vectors, row, optimizer)
            assert_learnt(vectors, places, row, tolerance)
            for name in vectors["param_watched"].tolist():
                buffer = optimizer.state[places.parameter(name)]["momentum_buffer"]
                expected = vectors[f"out_momentum_norm_{name}"][row]
                assert_near(norm_of(buffer), expected, tolerance.gradient_norm, f"step {row}: momentum of {name}")
            for name in vectors["param_frozen"].tolist():
                assert_moved(vectors, places, name, row, 0.0, 0.0)
    assert len(calls) == len(vectors["out_dropout_channels"])


def _make_sccam(vectors: Vectors) -> tuple[Sccam, Places]:
    """A later round of SC-CAM with the file's weights and clusters."""
    state = release_state(vectors, sccam_value)
    heads = published_resnet38.LATER_ROUNDS
    renamed = published_resnet38.network_state(state, heads, "vector")
    renamed = {f"network.{name}": value for name, value in renamed.items()}
    recipe = load_recipe(
        "sccam/voc",
        [
            "backbone.weights=null",
            "backbone.freeze_norm=true",
            f"backbone.mean={vectors['param_mean'].tolist()}",
            f"backbone.std={vectors['param_std'].tolist()}",
            f"method.subclasses={int(vectors['param_subclasses'])}",
        ],
    )
    method = build_method(recipe, vectors["in_tags"].shape[1])
    assert isinstance(method, Sccam)
    method.load_state_dict(renamed)
    tags = tensor(vectors["in_tags"]).float()
    clusters = tensor(vectors["in_clusters"])
    steps, side = int(vectors["param_steps"]), vectors["in_image"].shape[-1]
    method.start_training(TrainingSet(tags, vectors["in_image"].shape[1], steps, side, clusters))
    return method, Places(method, renamed, state)


def _dropout(vectors: Vectors) -> tuple[Callable[..., Tensor], list[int]]:
    """Dropout that draws by the description's formula, and the list of the calls it had."""
    calls: list[int] = []

    def dropout(features: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert training
        call = len(calls)
        calls.append(call)
        shape = tuple(features.shape[:2])
        assert (p, shape[1]) == (vectors["out_dropout_probability"][call], vectors["out_dropout_channels"][call])
        drawn = np.random.default_rng([int(vectors["param_seed"]), 77, call]).uniform(size=shape)
        factor = torch.from_numpy(((drawn >= p) / (1 - p)).astype(np.float32))
        return features * factor.view(*shape, *[1] * (features.dim() - 2))

    return dropout, calls


def _compare_groups(vectors: Vectors, row: int, optimizer: torch.optim.Optimizer) -> None:
    """Rates, decay and momentum of the groups that have parameters."""
    filled = vectors["out_group_sizes"][row] > 0
    for key, name in (("lr", "lr"), ("weight_decay", "weight_decay"), ("momentum", "momentum")):
        ours = [group[key] for group in optimizer.param_groups]
        assert ours == pytest.approx(vectors[f"out_{name}"][row][filled].tolist(), rel=1e-9), f"step {row}: {name}"
