"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import torch

from tagmask.methods.base import Method
from tagmask.recipe import OptimizerConfig


def lr_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Factor of the learning rate in update `step` (from 0) of `steps`.

    Linear from `warmup_factor` to 1 over `warmup` steps, then `(1 - step / steps) ** power`.

    Source: SeCo (CVPR 2024), section 4.1; its released code.
    """
    if step < config.warmup:
        return config.warmup_factor + (1 - config.warmup_factor) * step / config.warmup
    return max(0.0, 1 - step / steps) ** config.power


def build_optimizer(method: Method, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser over the method's parameter groups; each group keeps its full rate as `base_lr`."""
    groups = [
        {"params": group["params"], "base_lr": config.lr * (config.head_scale if group["head"] else 1.0)}
        for group in method.parameter_groups()
        if group["params"]
    ]
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **settings)
    return torch.optim.AdamW(groups, betas=config.betas, fused=True, **settings)


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, config: OptimizerConfig) -> None:
    """Set every group's learning rate for update `step`."""
    factor = lr_factor(step, steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
