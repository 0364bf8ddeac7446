"""Vectors of optimisers and learning rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tagmask.engine.optim import build_optimizer, lr_factor, set_lr
from tagmask.methods.base import Method, ParameterGroup
from tagmask.recipes.sections import OptimizerConfig
from tests.golden_checks import Vectors, assert_close, check, tensor

HEAD_SCALES = (1, 2, 10, 20)
SEGMENTER_SCALES = (1, 10, 20)


class Rows(Method):
    """The backbone's weight, its bias and the head's weight, which learn 1, 2 and 10 times as fast."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(nn.Identity(), num_classes=1, background=True)
        self.weight, self.bias, self.head = (nn.Parameter(row.clone()) for row in rows)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [{"params": [self.weight, self.bias], "head": False}, {"params": [self.head], "head": True}]


@check("poly_sgd")
def momentum_trap(vectors: Vectors) -> None:
    method = Rows(tensor(vectors["in_weight"]))
    matrix, vector = tensor(vectors["in_matrix"]), tensor(vectors["in_vector"])
    assert vectors["param_lr_multiplier"].tolist() == [1, 2, 10]
    decay, idle, head_decay = vectors["param_weight_decay"].tolist()
    assert (idle, head_decay) == (0, decay)
    config = OptimizerConfig(name="poly_sgd", lr=float(vectors["param_base_lr"]), weight_decay=decay, warmup=0)
    optimizer = build_optimizer(method, config)
    for step, lr in enumerate(vectors["out_lr"]):
        set_lr(optimizer, step, int(vectors["param_total_steps"]), config)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(lr.tolist(), rel=1e-5)
        rows = [method.weight, method.bias, method.head]
        weight = torch.stack(rows)
        loss = 0.5 * torch.einsum("ri,rij,rj->", weight, matrix, weight) - (vector * weight).sum()
        optimizer.zero_grad()
        loss.backward()
        assert_close(torch.stack([row.grad for row in rows if row.grad is not None]), vectors["out_gradient"][step])
        optimizer.step()
        assert_close(torch.stack([row.detach() for row in rows]), vectors["out_weight"][step])


@check("rca_lr_schedule")
def rca(vectors: Vectors) -> None:
    config = OptimizerConfig(warmup=0, milestones=tuple(vectors["param_decay_epochs"].tolist()))
    for epoch, expected in enumerate(vectors["out_lr"]):
        lr = float(vectors["param_base_lr"]) * lr_factor(epoch, len(vectors["out_lr"]), config)
        assert [lr * scale for scale in HEAD_SCALES] == pytest.approx(expected.tolist(), rel=1e-6)


@check("deeplabv2_lr_schedule")
def deeplabv2(vectors: Vectors) -> None:
    every, power = int(vectors["param_update_every"]), float(vectors["param_power"])
    config = OptimizerConfig(name="sgd", warmup=0, lr_every=every, power=power)
    for iteration, expected in zip(vectors["in_iteration"], vectors["out_lr"], strict=True):
        factor = lr_factor(int(iteration) - 1, int(vectors["param_total_iterations"]), config)
        lr = float(vectors["param_base_lr"]) * factor
        assert [lr * scale for scale in SEGMENTER_SCALES] == pytest.approx(expected.tolist(), rel=1e-6)
