from __future__ import annotations

import pytest
import torch
from torch import nn

from tagmask.engine.optim import build_optimizer, lr_factor
from tagmask.methods.base import Method, ParameterGroup
from tagmask.recipes.load import OptimizerConfig


class Two(Method):
    """A backbone and a head, each with weight and bias."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), num_classes=1, background=True)
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        parts = ((self.body, False), (self.head, True))
        return [{"params": list(part.parameters()), "head": head} for part, head in parts]


@pytest.mark.parametrize(
    ("values", "rates", "decays"),
    [
        ({"name": "sgd", "bias_scale": 2.0}, [1, 2, 10, 20], [0.1] * 4),
        ({"name": "poly_sgd"}, [1, 2, 10, 20], [0.1, 0, 0.1, 0]),
        ({"name": "sgd"}, [1, 10], [0.1] * 2),
        ({"name": "adamw"}, [1, 10], [0.1] * 2),
    ],
)
def test_biases_have_the_rates_of_the_papers(values: dict, rates: list[float], decays: list[float]) -> None:
    config = OptimizerConfig.model_validate({"lr": 1.0, "head_scale": 10, "weight_decay": 0.1, **values})
    groups = build_optimizer(Two(), config).param_groups
    assert [group["base_lr"] for group in groups] == rates
    assert [group["weight_decay"] for group in groups] == decays


def test_momentum_is_the_weight_decay_or_the_papers() -> None:
    released, paper = (
        build_optimizer(Two(), OptimizerConfig(name="poly_sgd", lr=1.0, weight_decay=5e-4, poly_momentum=form))
        for form in ("weight_decay", "paper")
    )
    assert released.param_groups[0]["momentum"] == 5e-4
    assert paper.param_groups[0]["momentum"] == 0.9
    assert paper.param_groups[0]["base_lr"] == pytest.approx(0.1)
    assert isinstance(paper, torch.optim.SGD)


def test_milestones_stand_in_place_of_the_polynomial() -> None:
    config = OptimizerConfig(warmup=0, milestones=(5, 10))
    assert [lr_factor(step, 20, config) for step in (0, 4, 5, 9, 10, 19)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert lr_factor(5, 10, OptimizerConfig(warmup=0)) == pytest.approx(0.535887, abs=1e-6)


def test_poly_sgd_stands_still_after_the_last_step() -> None:
    config = OptimizerConfig(name="poly_sgd", warmup=0)
    factors = [lr_factor(step, 10, config) for step in range(13)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.535887, rel=1e-5)
    assert factors[9:] == pytest.approx([0.125893] * 4, rel=1e-5)
    assert lr_factor(31 * 661, 61 * 661, config) == pytest.approx(0.53, abs=0.01)


def test_the_rate_falls_in_every_tenth_step_alone_and_ends_at_zero() -> None:
    config = OptimizerConfig(name="sgd", warmup=0, lr_every=10)
    factors = [lr_factor(step, 100, config) for step in range(101)]
    assert factors[:10] == [1.0] * 10
    assert factors[10] == pytest.approx(0.9**0.9)
    assert len(set(factors)) == 11
    assert factors[100] == lr_factor(200, 100, config) == 0


def test_rate_of_deeplab() -> None:
    """Biases of the head learn 20 times as fast without weight decay; the rate falls in every tenth step."""
    config = OptimizerConfig(
        name="sgd", lr=1.0, head_scale=10, bias_scale=2, bias_decay=False, weight_decay=0.5, warmup=0, lr_every=10
    )
    factors = [lr_factor(step, 40, config) for step in (0, 9, 10, 39)]
    assert factors == pytest.approx([1, 1, 0.75**0.9, 0.25**0.9])
    optimizer = build_optimizer(Two(), config)
    rates = {(group["base_lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {(1.0, 0.5), (2.0, 0.0), (10.0, 0.5), (20.0, 0.0)}
