"""Weights published with kazuto1011/deeplab-pytorch: DeepLab-v2 on VOC or COCO-Stuff, and its start from MS COCO."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tagmask.models.weight_files import check_names
from tagmask.models.weights import CAFFE

MULTI_SCALE = re.compile(r"^(?:scale|base)\.")  # the wrapper that runs the network at several scales
BLOCK = re.compile(r"layer([2-5])\.block(\d+)\.(\w+\.(?:conv|bn))\.(\w+)")
BRANCH = re.compile(r"aspp\.(?:stages\.)?c(\d)\.(weight|bias)")
STEM = {"layer1.conv1.conv.": "conv1.", "layer1.conv1.bn.": "bn1."}
OTHER_HEAD = ("fc.weight", "fc.bias")  # of DeepLab-v1 on 91 classes, in the start from MS COCO
LAYERS = {
    "reduce.conv": "conv1",
    "reduce.bn": "bn1",
    "conv3x3.conv": "conv2",
    "conv3x3.bn": "bn2",
    "increase.conv": "conv3",
    "increase.bn": "bn3",
    "proj.conv": "downsample.0",
    "proj.bn": "downsample.1",
    "shortcut.conv": "downsample.0",
    "shortcut.bn": "downsample.1",
}


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors bear the names of that repository; torchvision's, of ImageNet, are the alternative."""
    return any(".block1." in name for name in state)


def network_state(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename a DeepLab of that repository to the names of `TagNetwork` on a `DeepLabV2`.

    Its images have blue first: the first convolution is turned to RGB. They are grey levels less their mean: `mean` and
    `std` say so.

    Args:
        state: tensors under the repository's names.
        origin: the file, for errors.

    Returns:
        the backbone's tensors under `backbone.network`, and the classifier's, where there is one, under `decoder`.

    Raises:
        TagmaskError: tensors that no such network has, or parts that are missing; names them.
    """
    names = {name: _ours(MULTI_SCALE.sub("", name)) for name in state}
    unknown = [name for name, ours in names.items() if not ours and MULTI_SCALE.sub("", name) not in OTHER_HEAD]
    missing = {} if "backbone.network.backbone.conv1.weight" in names.values() else {"layer1.conv1.conv.weight"}
    check_names(unknown, missing, origin, "a DeepLab-v2 on ResNet-101")
    renamed = {ours: state[name] for name, ours in names.items() if ours}
    stem = "backbone.network.backbone.conv1.weight"
    renamed[stem] = renamed[stem].flip(1)
    for name in [name for name in renamed if name.endswith("running_mean")]:  # files of early PyTorch lack counters
        renamed.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    for name, values in CAFFE._asdict().items():
        renamed[f"backbone.network.{name}"] = torch.tensor(values).view(1, 3, 1, 1)
    return renamed


def _ours(name: str) -> str:
    """Our name of a tensor; empty for one that has none."""
    if branch := BRANCH.fullmatch(name):
        return f"decoder.branches.{branch[1]}.{branch[2]}"
    for theirs, ours in STEM.items():
        if name.startswith(theirs):
            return f"backbone.network.backbone.{ours}{name.removeprefix(theirs)}"
    block = BLOCK.fullmatch(name)
    if not block or block[3] not in LAYERS:
        return ""
    return f"backbone.network.backbone.layer{int(block[1]) - 1}.{int(block[2]) - 1}.{LAYERS[block[3]]}.{block[4]}"


def blocks_of(state: Mapping[str, Tensor]) -> list[int]:
    """Count the bottlenecks of the four stages of renamed tensors; 3, 4, 23, 3 in ResNet-101."""
    stages = [re.compile(rf"backbone\.network\.backbone\.layer{stage}\.(\d+)\.") for stage in range(1, 5)]
    return [1 + max((int(found[1]) for name in state if (found := stage.match(name))), default=-1) for stage in stages]
