"""Schedules, groups, and the optimiser whose momentum is its weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tagmask.engine.optim import milestone_factor, poly_factor, poly_sgd, rated_groups, stepwise_poly_factor
from tagmask.models.resnet38 import ResNet38


def test_poly_factor() -> None:
    factors = [poly_factor(step, 10) for step in range(13)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.535887, rel=1e-5)
    assert factors[9:] == pytest.approx([0.125893] * 4, rel=1e-5)
    assert poly_factor(31 * 661, 61 * 661) == pytest.approx(0.53, abs=0.01)


def test_milestones() -> None:
    assert [milestone_factor(epoch) for epoch in (0, 4, 5, 9, 10, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_stepwise_poly_changes_in_every_tenth_step() -> None:
    factors = [stepwise_poly_factor(step, 100) for step in range(101)]
    assert factors[:10] == [1.0] * 10
    assert factors[10] == pytest.approx(0.9**0.9)
    assert len(set(factors)) == 11
    assert factors[100] == 0
    assert stepwise_poly_factor(200, 100) == 0


def test_groups_of_sccam_and_of_layers_with_biases() -> None:
    with torch.device("meta"):
        backbone = ResNet38()
    heads = nn.ModuleList([nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False)])
    convolutions = [(name, parameter) for name, parameter in backbone.named_parameters() if parameter.dim() == 4]
    groups = rated_groups(convolutions, heads.named_parameters())
    assert [len(group["params"]) for group in groups] == [43, 0, 2, 0]
    assert [group["scale"] for group in groups] == [1, 2, 10, 20]
    backbone.freeze()
    assert len(rated_groups(backbone.named_parameters(), [])[0]["params"]) == 43 - 1 - 7
    groups = rated_groups(nn.Linear(2, 2).named_parameters(), nn.Linear(2, 2).named_parameters())
    assert [len(group["params"]) for group in groups] == [1, 1, 1, 1]
    assert [group["decays"] for group in groups] == [True, False, True, False]


def test_official_momentum_is_the_weight_decay_and_clean_is_a_tenth_as_fast() -> None:
    layer = nn.Linear(2, 2)
    official = poly_sgd(rated_groups(layer.named_parameters(), []), 0.01)
    clean = poly_sgd(rated_groups(layer.named_parameters(), []), 0.01, momentum="clean")
    assert [group["momentum"] for group in official.param_groups] == [5e-4, 5e-4]
    assert [group["weight_decay"] for group in official.param_groups] == [5e-4, 0]
    assert [group["base_lr"] for group in official.param_groups] == [0.01, 0.02]
    assert [group["momentum"] for group in clean.param_groups] == [0.9, 0.9]
    assert [group["base_lr"] for group in clean.param_groups] == pytest.approx([0.001, 0.002])
