"""Published weights of the networks timm does not have, under their own names, into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tagmask.errors import TagmaskError
from tagmask.models.mxnet import read_mxnet_params
from tagmask.models.weights import read_state

BATCH_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
MXNET_BLOCK = re.compile(r"^(res|bn)(\d)([ab])(\d*)_(branch\w+?)_(?:moving_|running_)?(weight|gamma|beta|mean|var)$")
MXNET_LAST = re.compile(r"^bn7_(?:moving_|running_)?(gamma|beta|mean|var)$")


def load_resnet38(network: nn.Module, path: Path) -> list[str]:
    """Load ResNet-38 weights: MXNet's `.params`, or a `.pth` or `.safetensors` with the names of PSA or SC-CAM.

    Args:
        network: a `ResNet38`, or a network that has one's modules and heads beside them.

    Returns:
        the network's tensors the file does not have, such as heads; they keep their values.

    Raises:
        TagmaskError: not such a file, a backbone tensor is missing, or a shape does not fit.
    """
    state = rename_mxnet(read_mxnet_params(path)) if path.suffix == ".params" else read_state(path)
    return load_named(network, state, str(path), needed=re.compile(r"^(conv1a|b\d(_\d)?|bn7)\."))


def load_vgg16(network: nn.Module, path: Path) -> list[str]:
    """Load VGG-16 convolutions under torchvision's names (`features.0.weight`, …); its classifier is left out.

    Returns and raises as `load_resnet38`.
    """
    return load_named(network, read_state(path), str(path), needed=re.compile(r"^features\."))


def load_named(network: nn.Module, state: Mapping[str, Tensor], origin: str, needed: re.Pattern[str]) -> list[str]:
    """Load what the network has from `state`, whose names may start with `module.`.

    Args:
        needed: names that must be in `state` where the network has them; counters of batches never are.
        origin: the file, for errors.

    Returns:
        sorted names of the network's tensors that `state` lacks.

    Raises:
        TagmaskError: a needed tensor is missing, or a shape does not fit.
    """
    own = network.state_dict()
    given = {name.removeprefix("module."): value for name, value in state.items()}
    for name, value in own.items():
        if name in given and given[name].shape != value.shape:
            shapes = f"{tuple(given[name].shape)}, not {tuple(value.shape)}"
            raise TagmaskError(f"weights {origin}: {name!r} has shape {shapes}; is the network as wide as the file's?")
    missing = sorted(name for name in own if name not in given and not name.endswith("num_batches_tracked"))
    lost = [name for name in missing if needed.match(name)]
    if lost:
        what = f"{lost[0]!r} is missing ({len(lost)} in all)"
        raise TagmaskError(f"weights {origin}: {what}; is it another network's file?")
    network.load_state_dict({name: given[name] for name in own if name in given}, strict=False)
    return missing


def rename_mxnet(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of MXNet's ResNet-38 (`arg:res4b3_branch2a_weight`) to ours (`b4_3.conv_branch2a.weight`).

    The ImageNet classifier is left out.

    Raises:
        TagmaskError: a name that is no tensor of this network.

    Source: spec A2.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in arrays.items():
        name = re.sub(r"^(arg|aux):", "", key)
        if name.startswith("linear1000_"):
            continue
        renamed[_renamed(name, key)] = value
    return renamed


def _renamed(name: str, key: str) -> str:
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
