"""The optimisers and schedules of SC-CAM, AffinityNet, RCA and DeepLab-v2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import torch
from torch import nn

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
