"""What a recipe says of the optimiser reaches the weights: `power` and `clip` in real training, and their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tagmask.api import open_data
from tagmask.data.dataset import Dataset
from tagmask.engine import loop
from tagmask.engine.optim import build_optimizer, lr_factor, set_lr
from tagmask.recipes.load import DataConfig, OptimizerConfig
from tests.conftest import tiny_recipe


@pytest.fixture
def records(cooccur: Path) -> Dataset:
    return open_data(cooccur, DataConfig())


def trained(records: Dataset, folder: Path, *changes: str) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights and logged lines of a tiny run."""
    folder.mkdir()
    method = loop.train(tiny_recipe("cam", "training.steps=5", *changes), records, folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return method.network.state_dict(), lines


@pytest.mark.parametrize("name", ["adamw", "sgd", "poly_sgd"])
def test_power_bends_the_rate_of_a_training(name: str, records: Dataset, tmp_path: Path) -> None:
    states = []
    for power in (0.9, 2.0):
        state, lines = trained(
            records,
            tmp_path / str(power),
            f"optimizer.name={name}",
            "optimizer.lr=0.001",
            "optimizer.warmup=2",
            f"optimizer.power={power}",
        )
        factors = [line["lr"] / 1e-3 for line in lines]
        expected = [1e-6, 0.5 + 0.5e-6, *((1 - step / 5) ** power for step in (2, 3, 4))]
        assert factors == pytest.approx(expected, rel=1e-6)
        states.append(state)
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_clip_bounds_every_step_of_a_training(records: Dataset, tmp_path: Path) -> None:
    """With plain gradient descent weights move by the rate times the gradient, so clipped ones hardly at all."""
    plain = ("optimizer.name=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.head_scale=1")
    still = ("optimizer.lr=0.1", "optimizer.warmup=0", "optimizer.power=0", *plain)
    start, _ = trained(records, tmp_path / "start", "optimizer.lr=1e-12", "optimizer.warmup=0", *plain)

    def moved(name: str, *changes: str) -> float:
        state, _ = trained(records, tmp_path / name, *still, *changes)
        squares = [(state[key].double() - start[key]).square().sum() for key in start if start[key].is_floating_point()]
        return float(torch.stack(squares).sum().sqrt())

    free, clipped = moved("free"), moved("clipped", "optimizer.clip=0.001")
    assert clipped <= 5 * 0.1 * 0.001 * 1.01
    assert free > 20 * clipped
    assert moved("loose", "optimizer.clip=1e6") == pytest.approx(free, rel=1e-4)


def test_every_group_gets_its_rate_times_the_factor() -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weight], "base_lr": rate} for weight, rate in zip(weights, (0.5, 4.0), strict=True)]
    optimizer = torch.optim.SGD(groups, lr=7.0)
    set_lr(optimizer, 6, 20, OptimizerConfig(warmup=4, power=1.0))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.35, 2.8])


def test_warm_up_is_a_straight_line_from_its_factor_to_one() -> None:
    config = OptimizerConfig(warmup=4, warmup_factor=0.2, power=1.0)
    assert [lr_factor(step, 8, config) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.5, 0.375])


class Plain(nn.Module):
    """A body and a head, as optimisers see a method."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

    def parameter_groups(self) -> list[dict[str, object]]:
        parts = ((self.body, False), (self.head, True))
        return [{"params": list(part.parameters()), "head": head} for part, head in parts]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (
            {"name": "sgd", "momentum": 0.7, "nesterov": True},
            torch.optim.SGD,
            {"momentum": 0.7, "nesterov": True, "lr": 0.25, "weight_decay": 0.125},
        ),
        ({"name": "sgd", "momentum": 0.7}, torch.optim.SGD, {"momentum": 0.7, "nesterov": False}),
        ({"name": "adamw", "betas": [0.8, 0.99]}, torch.optim.AdamW, {"betas": (0.8, 0.99), "lr": 0.25}),
    ],
)
def test_what_the_recipe_says_reaches_the_optimiser(values: dict, kind: type, expected: dict) -> None:
    config = OptimizerConfig.model_validate({"lr": 0.25, "weight_decay": 0.125, **values})
    optimizer = build_optimizer(Plain(), config)  # pyright: ignore
    assert type(optimizer) is kind
    for name, value in expected.items():
        assert optimizer.defaults[name] == value
    assert [group["base_lr"] for group in optimizer.param_groups] == [0.25, 2.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_groups_without_parameters_are_left_out() -> None:
    class Headless(Plain):
        def parameter_groups(self) -> list[dict[str, object]]:
            return [{"params": list(self.body.parameters()), "head": False}, {"params": [], "head": True}]

    for name in ("adamw", "sgd", "poly_sgd"):
        optimizer = build_optimizer(Headless(), OptimizerConfig(name=name, bias_scale=1))  # pyright: ignore
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
        assert all(group["params"] for group in optimizer.param_groups)


def test_rates_and_decay_of_the_clean_poly_sgd() -> None:
    config = OptimizerConfig(name="poly_sgd", lr=0.25, weight_decay=0.125, poly_momentum="clean")
    optimizer = build_optimizer(Plain(), config)  # pyright: ignore
    assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.05, 0.25, 0.5])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125, 0, 0.125, 0]
