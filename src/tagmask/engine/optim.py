"""Optimisers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import torch
from torch import nn

from tagmask.methods.base import Method
from tagmask.recipes.load import OptimizerConfig


def lr_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Factor of the learning rate in update `step` (from 0) of `steps`.

    Linear from `warmup_factor` to 1 over `warmup` steps, then `(1 - step / steps) ** power`, anew in every `lr_every`th
    step; or, where there are
    milestones, a tenth of what it was from each on.

    Source: SeCo (CVPR 2024), section 4.1; its released code.
    """
    if step < config.warmup:
        return config.warmup_factor + (1 - config.warmup_factor) * step / config.warmup
    if config.milestones:
        return milestone_factor(step, config.milestones)
    return stepwise_poly_factor(step, steps, config.lr_every, config.power)


def build_optimizer(method: Method, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser over the method's parameter groups; each group keeps its full rate as `base_lr`."""
    groups = _rated(method, config)
    if config.name == "poly_sgd":
        return poly_sgd(groups, config.lr, config.weight_decay, config.poly_momentum)
    lr, decay = config.lr, config.weight_decay
    rated = [
        {
            "params": group["params"],
            "base_lr": lr * group["scale"],
            "weight_decay": decay if group["decays"] else 0.0,
        }
        for group in groups
        if group["params"]
    ]
    if config.name == "sgd":
        return torch.optim.SGD(rated, lr=lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=decay)
    return torch.optim.AdamW(rated, lr=lr, betas=config.betas, weight_decay=decay, fused=True)


def _rated(method: Method, config: OptimizerConfig) -> list[RatedGroup]:
    """The method's groups; SGD gives biases a rate of their own, and PSA's spares them weight decay."""
    groups: list[RatedGroup] = []
    bias_scale = {"adamw": 1.0, "sgd": config.bias_scale, "poly_sgd": 2.0}[config.name]
    biases = {id(parameter) for name, parameter in method.named_parameters() if name.endswith("bias")}
    for group in method.parameter_groups():
        scale = config.head_scale if group["head"] else 1.0
        if bias_scale == 1:
            groups.append({"params": group["params"], "scale": scale, "decays": True})
            continue
        weights = [parameter for parameter in group["params"] if id(parameter) not in biases]
        others = [parameter for parameter in group["params"] if id(parameter) in biases]
        groups.append({"params": weights, "scale": scale, "decays": True})
        groups.append(
            {"params": others, "scale": bias_scale * scale, "decays": config.name == "sgd" and config.bias_decay}
        )
    return groups


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimizerConfig) -> None:
    """Set every group's learning rate for update `step`."""
    factor = lr_factor(step, steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


Momentum = Literal["official", "clean"]


class RatedGroup(TypedDict):
    """Parameters that share learning rate and weight decay.

    Attributes:
        params: the parameters, frozen ones left out.
        scale: factor of their learning rate.
        decays: whether weight decay applies.
    """

    params: list[nn.Parameter]
    scale: float
    decays: bool


def rated_groups(
    backbone: Iterable[tuple[str, nn.Parameter]],
    heads: Iterable[tuple[str, nn.Parameter]],
    *,
    decay_biases: bool = False,
) -> list[RatedGroup]:
    """Weights and biases of the backbone (rates 1 and 2) and of the heads (10 and 20), in four groups.

    Args:
        backbone, heads: parameters with their names; frozen ones are left out.
        decay_biases: whether biases decay too, as in RCA.

    Source: spec A2, C2.
    """
    groups: list[RatedGroup] = []
    for parameters, scale in ((backbone, 1.0), (heads, 10.0)):
        free = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        weights = [parameter for name, parameter in free if not name.endswith("bias")]
        biases = [parameter for name, parameter in free if name.endswith("bias")]
        groups.append({"params": weights, "scale": scale, "decays": True})
        groups.append({"params": biases, "scale": 2 * scale, "decays": decay_biases})
    return groups


def poly_sgd(
    groups: Iterable[RatedGroup], lr: float, weight_decay: float = 5e-4, momentum: Momentum = "official"
) -> torch.optim.SGD:
    """SGD as PSA, SC-CAM and IRN run it; each group keeps its full rate as `base_lr`.

    The released optimiser hands its weight decay to SGD's momentum, and calls the exponent of its schedule momentum:
    what was run and published has a momentum of 5e-4, so practically none.

    Args:
        groups: see `rated_groups`; empty ones are left out.
        lr: of scale 1.
        momentum: `official`, or `clean` for the 0.9 the papers name, with a tenth of `lr` to make up for it.

    Source: spec A3.
    """
    factor, inertia = (1.0, weight_decay) if momentum == "official" else (0.1, 0.9)
    rated = [
        {
            "params": group["params"],
            "lr": lr * factor * group["scale"],
            "base_lr": lr * factor * group["scale"],
            "weight_decay": weight_decay if group["decays"] else 0.0,
        }
        for group in groups
        if group["params"]
    ]
    return torch.optim.SGD(rated, lr=lr, momentum=inertia)


def poly_factor(step: int, steps: int, power: float = 0.9) -> float:
    """Factor of the learning rate in update `step` (from 0): (1 - step/steps)^power, unchanged after the last.

    Source: spec A3.
    """
    return (1 - min(step, steps - 1) / steps) ** power


def milestone_factor(epoch: int, milestones: Sequence[int] = (5, 10), gamma: float = 0.1) -> float:
    """Factor in an epoch (from 0) that is `gamma` times smaller from each milestone on.

    Source: RCA (CVPR 2022), released code; spec C3.2.
    """
    return gamma ** sum(epoch >= milestone for milestone in milestones)


def stepwise_poly_factor(step: int, steps: int, every: int = 10, power: float = 0.9) -> float:
    """As `poly_factor`, but set anew only in every tenth update; 0 after the end.

    Source: DeepLab-v2 as trained by kazuto1011/deeplab-pytorch; spec A7.
    """
    return max(0.0, 1 - step // every * every / steps) ** power
