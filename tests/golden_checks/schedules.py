"""Vectors of optimisers and learning rates."""

from __future__ import annotations

import pytest
import torch

from tagmask.engine.optim import RatedGroup, milestone_factor, poly_factor, poly_sgd, stepwise_poly_factor
from tests.golden_checks import Vectors, assert_close, check, tensor

HEAD_SCALES = (1, 2, 10, 20)
SEGMENTER_SCALES = (1, 10, 20)


@check("poly_sgd")
def momentum_trap(vectors: Vectors) -> None:
    rows = [torch.nn.Parameter(row.clone()) for row in tensor(vectors["in_weight"])]
    matrix, vector = tensor(vectors["in_matrix"]), tensor(vectors["in_vector"])
    decays = vectors["param_weight_decay"]
    groups: list[RatedGroup] = [
        {"params": [row], "scale": float(scale), "decays": bool(decay)}
        for row, scale, decay in zip(rows, vectors["param_lr_multiplier"], decays, strict=True)
    ]
    optimizer = poly_sgd(groups, float(vectors["param_base_lr"]), float(decays.max()))
    for step, lr in enumerate(vectors["out_lr"]):
        factor = poly_factor(step, int(vectors["param_total_steps"]))
        for group, expected in zip(optimizer.param_groups, lr, strict=True):
            group["lr"] = group["base_lr"] * factor
            assert group["lr"] == pytest.approx(float(expected), rel=1e-5)
        weight = torch.stack(list(rows))
        loss = 0.5 * torch.einsum("ri,rij,rj->", weight, matrix, weight) - (vector * weight).sum()
        optimizer.zero_grad()
        loss.backward()
        assert_close(torch.stack([row.grad for row in rows if row.grad is not None]), vectors["out_gradient"][step])
        optimizer.step()
        assert_close(torch.stack([row.detach() for row in rows]), vectors["out_weight"][step])


@check("rca_lr_schedule")
def rca(vectors: Vectors) -> None:
    milestones = vectors["param_decay_epochs"].tolist()
    for epoch, expected in enumerate(vectors["out_lr"]):
        lr = float(vectors["param_base_lr"]) * milestone_factor(epoch, milestones)
        assert [lr * scale for scale in HEAD_SCALES] == pytest.approx(expected.tolist(), rel=1e-6)


@check("deeplabv2_lr_schedule")
def deeplabv2(vectors: Vectors) -> None:
    for iteration, expected in zip(vectors["in_iteration"], vectors["out_lr"], strict=True):
        factor = stepwise_poly_factor(
            int(iteration) - 1,
            int(vectors["param_total_iterations"]),
            int(vectors["param_update_every"]),
            float(vectors["param_power"]),
        )
        lr = float(vectors["param_base_lr"]) * factor
        assert [lr * scale for scale in SEGMENTER_SCALES] == pytest.approx(expected.tolist(), rel=1e-6)
