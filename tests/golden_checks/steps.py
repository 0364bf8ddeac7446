"""Whole optimiser steps of the released training loops, run through the method's class and the loop's optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.engine.optim import build_optimizer
from tagmask.methods import seco
from tagmask.methods.registry import build_method
from tagmask.models.published import seco as published_seco
from tagmask.recipes.load import load_recipe
from tests.golden_checks import Vectors, check, tensor
from tests.golden_checks.release_state import (
    TEACHERS,
    Places,
    Tolerance,
    assert_learnt,
    assert_moved,
    assert_near,
    assert_same,
    make_batch,
    release_state,
    seco_value,
    update,
)

PROJECTION = (("proj_head.mlp.", "projection.layers."), ("proj_head_t.mlp.", "teacher.projection.layers."))


@contextmanager
def recorded(module: Any, *names: str) -> Iterator[dict[str, list[Any]]]:
    """Note what the named functions of a module return, each in the order of its calls."""
    results: dict[str, list[Any]] = {name: [] for name in names}

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            results[name].append(function(*args, **kwargs))
            return results[name][-1]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(module, name, recording(name, getattr(module, name)))
        yield results


@check("seco_training_steps")
def seco_steps(vectors: Vectors) -> None:
    first, later = Tolerance(1e-6, 1e-5, 1e-5, 1e-5, 1e-3, 1e-6), Tolerance(1e-4, 1e-4, 1e-3, 1e-4, 1e-3, 1e-4)
    _run_seco(vectors, lambda row: later if row else first)


@check("seco_training_start")
def seco_start(vectors: Vectors) -> None:
    _run_seco(vectors, lambda row: Tolerance(1e-4, 1e-3, 1e-3, 1e-3, 1e-2, 1e-4))


def _run_seco(vectors: Vectors, tolerance_of: Callable[[int], Tolerance]) -> None:
    method, places = _make_seco(vectors)
    config = load_recipe("seco/voc").optimizer.model_copy(
        update={"lr": float(vectors["param_lr_base"]), "warmup": int(vectors["param_warmup"])}
    )
    optimizer = build_optimizer(method.train(), config)
    names = ("multiscale_cams", "region_map", "to_labels", "tag_views", "local_contrast", "refined_pseudo_masks")
    for row, step in enumerate(vectors["param_iteration"].tolist()):
        number = int(vectors["in_batch"][row])
        images = vectors["in_image"][number]
        batch = make_batch(
            method,
            images,
            vectors["in_tags"][number],
            range(len(images)),
            boxes=vectors["in_boxes"][number],
            weak=vectors["in_weak"][number],
            strong=vectors["in_strong"][number],
            strong_flipped=torch.arange(len(images)) % 2 == 1,
        )
        corners = tensor(vectors["in_corners_image"][row])
        assert np.array_equal(vectors["in_corners_image"][row], vectors["in_corners_strong"][row])
        with pytest.MonkeyPatch.context() as patch, recorded(seco, *names) as seen:
            patch.setattr(seco, "draw_corners", lambda *_, corners=corners: corners)
            losses = update(method, batch, optimizer, step, int(vectors["param_steps"]), config)
        tolerance = tolerance_of(row)
        _compare_seco_labels(vectors, row, batch.tags, seen)
        for name, value in losses.items():
            expected = vectors["out_loss_total" if name == "loss" else f"out_loss_{name}"][row]
            assert_near(value, expected, tolerance.loss, f"step {row}: loss {name}")
        _compare_seco_state(vectors, row, method, optimizer, places, tolerance.remembered)
        assert_learnt(vectors, places, row, tolerance)
        for name in vectors["param_watched_teacher"].tolist():
            assert_moved(vectors, places, name, row, 1e-3, 5e-3)


def _make_seco(vectors: Vectors) -> tuple[seco.Seco, Places]:
    """SeCo as released, with the file's weights."""
    state = release_state(vectors, seco_value)
    student = published_seco.network_state(state, "vector")
    renamed = {f"network.{name}": value for name, value in student.items()}
    teacher = {name.replace(*TEACHERS[0]): value for name, value in state.items() if name.startswith(TEACHERS[0][0])}
    heads = {name: value for name, value in state.items() if name.startswith(("classifier", "aux_", "decoder"))}
    for name, value in published_seco.network_state({**heads, **teacher}, "vector").items():
        if name.startswith("backbone."):
            renamed[f"teacher.{name}"] = value
    for theirs, ours in PROJECTION:
        renamed |= {name.replace(theirs, ours): value for name, value in state.items() if name.startswith(theirs)}
    buffers = {
        "prototypes": state["prototypes"],
        "queue": state["queue"],
        "queue_tags": tensor(vectors["in_queue_tags"]).long(),
        "queue_position": torch.tensor(0),
    }
    options = published_seco.vit_options(student, "vector")
    assert options["depth"] == int(vectors["param_depth"])
    recipe = load_recipe(
        "seco/voc",
        [
            "backbone.weights=null",
            f"backbone.options={options}",
            f"backbone.mean={vectors['param_mean'].tolist()}",
            f"backbone.std={vectors['param_std'].tolist()}",
            f"method.quirks=[{','.join(get_args(seco.Quirk))}]",
            "method.reg_weight=0",
            f"method.queue={int(vectors['param_queue'])}",
            f"method.patch_size={int(vectors['param_patch'])}",
            f"method.patches={vectors['in_corners_image'].shape[2]}",
            f"method.projection_hidden={len(state['proj_head.mlp.0.bias'])}",
        ],
    )
    method = build_method(recipe, vectors["in_tags"].shape[-1])
    assert isinstance(method, seco.Seco)
    method.load_state_dict({**renamed, **buffers})
    return method, Places(method, renamed, state)


def _compare_seco_labels(vectors: Vectors, row: int, tags: Tensor, seen: dict[str, list[Any]]) -> None:
    """CAMs of the present classes, and every label that the step made of them."""
    cells = vectors["out_cam_last"].shape[-2:]
    for cams, name in zip(*seen["multiscale_cams"], ("cam_last", "cam_aux"), strict=True):
        channels, ids = seco.present_tags(tags, cams.shape[1])
        expected = tensor(vectors[f"out_{name}"][row]).gather(1, channels[..., None, None].expand(-1, -1, *cells))
        there = ids > 0
        given = F.adaptive_avg_pool2d(cams, cells)[there]
        assert_near(given, expected[there].numpy(), 1e-4, f"step {row}: {name}")
    views = [item.reshape(len(tags), -1) for item in seen["tag_views"]]
    for name, found in (
        ("region_map", seen["region_map"]),
        ("token_labels", seen["to_labels"]),
        ("tags_image", views),
        ("tags_strong", views),
        ("tags_revised", [revised for _, revised in seen["local_contrast"]]),
        ("pseudo_mask", seen["refined_pseudo_masks"]),
    ):
        if found:  # nothing where the phase has not begun
            assert_same(found[0], vectors[f"out_{name}"][row], f"step {row}: {name}")


def _compare_seco_state(
    vectors: Vectors,
    row: int,
    method: seco.Seco,
    optimizer: torch.optim.Optimizer,
    places: Places,
    tolerance: float,
) -> None:
    """Learning rates, Adam's counters, queue and prototypes after a step."""
    for group, rates in zip(optimizer.param_groups, np.split(vectors["out_lr"][row], 2), strict=True):
        assert rates.tolist() == pytest.approx([group["lr"]] * 2, rel=1e-9)
    learnt = [optimizer.state[places.parameter(name)] for name in vectors["param_watched"].tolist()]
    counters = [int(state.get("step", 0)) for state in learnt]
    assert counters == vectors["out_adam_counter"][row].tolist(), f"step {row}: Adam's counters"
    moved = method.prototypes - places.state["prototypes"]
    assert_near(moved.norm(dim=1), vectors["out_prototypes_norms"][row], 1e-4, f"step {row}: norms of prototypes")
    columns = vectors["out_queue_values"].shape[-1]
    assert_near(method.prototypes[:, :columns], vectors["out_prototypes_values"][row], tolerance, "prototypes")
    # The release queues keys from the first iteration; here the queue fills shortly before the contrast begins.
    config = method.config
    if int(vectors["param_iteration"][row]) < config.contrast_from - 2:
        return
    assert_same(method.queue_tags, vectors["out_queue_tags"][row], f"step {row}: tags of the queue")
    # Its rows have unit length, and differences are held to that.
    assert_near(method.queue[:, :columns], vectors["out_queue_values"][row], tolerance, f"step {row}: queue", scale=1.0)
    assert int(method.queue_position) == int(vectors["out_queue_position"][row])
