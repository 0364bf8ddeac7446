"""Published weights of ResNet-38: MXNet's ImageNet start, PSA's classifier and AffinityNet, SC-CAM's classifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.models.resnet38 import ResNet38
from tagmask.models.weight_files import check_names

BATCH_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
MXNET_BLOCK = re.compile(r"^(res|bn)(\d)([ab])(\d*)_(branch\w+?)_(?:moving_|running_)?(weight|gamma|beta|mean|var)$")
MXNET_LAST = re.compile(r"^bn7_(?:moving_|running_)?(gamma|beta|mean|var)$")

FIRST_ROUND = ("fc8.weight",)
LATER_ROUNDS = ("fc8_20.weight", "fc8_200.weight")
AFFINITY = ("f8_3.weight", "f8_4.weight", "f8_5.weight", "f9.weight")


def from_mxnet(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename MXNet's ResNet-38 (`arg:res4b3_branch2a_weight`) to the names of `ResNet38` (`b4_3.conv_branch2a.weight`).

    The ImageNet classifier is left out.

    Raises:
        TagmaskError: a name that is no tensor of this network.

    Source: spec A2.
    """
    names = {key: re.sub(r"^(arg|aux):", "", key) for key in arrays}
    return {_from_mxnet(name, key): arrays[key] for key, name in names.items() if not name.startswith("linear1000_")}


def _from_mxnet(name: str, key: str) -> str:
    if name == "conv1a_weight":
        return "conv1a.weight"
    if last := MXNET_LAST.match(name):
        return f"bn7.{BATCH_NORM[last[1]]}"
    found = MXNET_BLOCK.match(name)
    if not found:
        raise TagmaskError(f"weights: {key!r} is no tensor of ResNet-38; expected ilsvrc-cls_rna-a1_cls1000")
    kind, stage, first, number, branch, tensor = found.groups()
    block = f"b{stage}" if first == "a" else f"b{stage}_{number}"
    if kind == "res":
        return f"{block}.conv_{branch}.{tensor}"
    return f"{block}.bn_{branch}.{BATCH_NORM[tensor]}"


def heads_of(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Tell which of the published networks a state dict is of, by the heads it has; empty where by none."""
    return next((heads for heads in (FIRST_ROUND, LATER_ROUNDS, AFFINITY) if heads[0] in state), ())


def network_state(state: Mapping[str, Tensor], heads: Sequence[str], origin: str) -> dict[str, Tensor]:
    """Rename a classifier of PSA or SC-CAM, or an AffinityNet, to the names of its method's network.

    Args:
        state: tensors under the releases' names.
        heads: names of the heads: `FIRST_ROUND`, `LATER_ROUNDS` or `AFFINITY`.
        origin: the file, for errors.

    Returns:
        the backbone's tensors under `backbone.network`, the heads' under `heads`; counters of batches, which files of
        early PyTorch lack, are zero.

    Raises:
        TagmaskError: tensors that no such network has, or parts that are missing; names them.
    """
    with torch.device("meta"):
        backbone = list(ResNet38().state_dict())
    counters = {name for name in backbone if name.endswith("num_batches_tracked")}
    wanted = [*backbone, *heads]
    missing = [name for name in wanted if name not in state and name not in counters]
    check_names(set(state) - set(wanted), missing, origin, f"a ResNet-38 with {', '.join(heads)}")
    renamed = {f"backbone.network.{name}": state.get(name, torch.tensor(0)) for name in backbone}
    return renamed | {f"heads.{name}": state[name] for name in heads}


def width_of(state: Mapping[str, Tensor]) -> float:
    """Tell the option `width` of the `ResNet38` that renamed tensors belong to; 1 for the published one."""
    return len(state["backbone.network.bn7.weight"]) / 4096
