"""RCA's classifier as its released code saves it, under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tagmask.models.weight_files import check_names

ATTENTION = ("Q", "K", "V", "aggre", "concat_project")
LAYERS = (0, 2, 4, 6)  # of a branch: convolutions, with a ReLU after each but the last
SHARED = re.compile(r"(features|extra_convs|extra_F)\.(.+)")
PER_CLASS = re.compile(r"(?:extra_convs(\d+)\.[0246]\.(?:weight|bias)|(?:queue|queue_ptr|cluter)(\d+))")


def network_state(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename an RCA classifier to the names of its method's network, memory included.

    The release has a branch of convolutions, a queue and prototypes for each class under names of their own; here they
    are one grouped convolution and one tensor, class after class.

    Args:
        state: tensors under the release's names.
        origin: the file, for errors.

    Raises:
        TagmaskError: tensors that no RCA network has, or parts that are missing; names them.
    """
    numbered = [int(found[1] or found[2]) for name in state if (found := PER_CLASS.fullmatch(name))]
    num_classes = 1 + max(numbered, default=0)
    renamed: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if found := SHARED.fullmatch(name):
            prefix = "backbone.network" if found[1] == "features" else "heads"
            renamed[f"{prefix}.{name}"] = value
            used.add(name)
        elif part in ATTENTION and rest in ("weight", "bias"):
            renamed[f"heads.aggregation.{name}"] = value
            used.add(name)
    wanted = [f"{part}.{kind}" for part in ATTENTION for kind in ("weight", "bias")]
    wanted += [f"{part}.weight" for part in ("features.0", "extra_convs.0", "extra_F.0", "extra_F.1", "extra_F.3")]
    joined = {
        f"heads.extra_branches.{layer}.{kind}": [f"extra_convs{index}.{layer}.{kind}" for index in range(num_classes)]
        for layer in LAYERS
        for kind in ("weight", "bias")
    }
    joined |= {
        f"memory.{ours}": [f"{theirs}{index}" for index in range(num_classes)]
        for ours, theirs in (("queue", "queue"), ("pointer", "queue_ptr"), ("prototypes", "cluter"))
    }
    parts = {name for names in joined.values() for name in names}
    check_names(set(state) - used - parts, {*wanted, *parts} - set(state), origin, "an RCA network")
    for name, names in joined.items():
        tensors = [state[own] for own in names]
        renamed[name] = torch.stack(tensors) if name.startswith("memory.") else torch.cat(tensors)
    renamed["memory.pointer"] = renamed["memory.pointer"].flatten().long()
    # Queues and prototypes begin as noise in the release, and all of it counts from the first step on.
    renamed["memory.filled"] = torch.ones(renamed["memory.queue"].shape[:2], dtype=torch.bool)
    renamed["memory.ready"] = torch.ones(num_classes, dtype=torch.bool)
    return renamed
