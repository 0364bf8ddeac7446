"""Optimisers and learning-rate schedules of the papers."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import nn

from tagmask.methods.base import Method
from tagmask.recipes.sections import OptimizerConfig

MILESTONE_FACTOR = 0.1
PAPER_MOMENTUM, PAPER_RATE = 0.9, 0.1


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


def lr_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Compute the factor of the learning rate in update `step` (from 0) of `steps`.

    It rises linearly from `warmup_factor` to 1 over `warmup` steps. Then it is `(1 - step / steps) ** power`, set anew
    in every `lr_every`th step, or, where there are milestones, a tenth of what it was from each of them on.

    Source: SeCo (CVPR 2024), section 4.1, and its released code; SC-CAM's and PSA's (`poly_sgd`, which stands still
        after the last step); RCA's (milestones); kazuto1011/deeplab-pytorch (`lr_every`).
    """
    if step < config.warmup:
        return config.warmup_factor + (1 - config.warmup_factor) * step / config.warmup
    if config.milestones:
        return MILESTONE_FACTOR ** sum(step >= milestone for milestone in config.milestones)
    if config.name == "poly_sgd":
        step = min(step, steps - 1)
    return max(0.0, 1 - step // config.lr_every * config.lr_every / steps) ** config.power


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimizerConfig) -> None:
    """Set every group's learning rate for update `step`."""
    factor = lr_factor(step, steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def build_optimizer(method: Method, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Make the optimiser over the method's parameter groups; each group keeps its full rate as `base_lr`.

    `poly_sgd` is SGD as PSA, SC-CAM and IRN run it. The released optimiser hands its weight decay to SGD's momentum,
    and calls the exponent of its schedule momentum: what was run and published has a momentum of 5e-4, practically
    none.
    """
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    if config.name == "poly_sgd":
        momentum = decay
        if config.poly_momentum == "paper":
            lr, momentum = PAPER_RATE * lr, PAPER_MOMENTUM
    rated = [
        {
            "params": group["params"],
            "base_lr": lr * group["scale"],
            "weight_decay": decay if group["decays"] else 0.0,
        }
        for group in _rated(method, config)
        if group["params"]
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(rated, lr=lr, betas=config.betas, weight_decay=decay, fused=True)
    nesterov = config.nesterov and config.name == "sgd"
    return torch.optim.SGD(rated, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)


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
