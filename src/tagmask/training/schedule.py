"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import torch

from tagmask.methods.base import Method
from tagmask.recipe import OptimizerConfig
from tagmask.training.poly_sgd import RatedGroup, milestone_factor, poly_sgd, stepwise_poly_factor


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
