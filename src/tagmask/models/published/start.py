"""Weights that a backbone starts from, whoever published them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from tagmask.models.deeplabv2 import DeepLabV2
from tagmask.models.published import deeplabv2, resnet38
from tagmask.models.resnet38 import ResNet38
from tagmask.models.weight_files import load_named, load_timm, read_state
from tagmask.models.weights import IMAGENET

PREFIX = "backbone.network."
EVERY_TENSOR = re.compile("")


def load_start(network: nn.Module, source: str) -> None:
    """Load the weights that a recipe names into the network of a backbone; heads in the file are left out.

    Args:
        network: `ResNet38` takes MXNet's `.params` and files of PSA and SC-CAM; `Vgg16` takes torchvision's;
            `DeepLabV2` takes torchvision's ResNet-101 and files of kazuto1011/deeplab-pytorch; others are timm's.
        source: see `weight_files.read_state`.

    Raises:
        TagmaskError: the file cannot be had or read, a tensor of the network is missing, or a shape does not fit.
    """
    if isinstance(network, ResNet38):
        state = read_state(source)
        state = resnet38.from_mxnet(state) if Path(source).suffix == ".params" else state
        load_named(network, state, source, EVERY_TENSOR)
    elif isinstance(network, DeepLabV2):
        state = read_state(source)
        if deeplabv2.is_published(state):
            renamed = deeplabv2.network_state(state, source)
            state = {name.removeprefix(PREFIX): value for name, value in renamed.items()}
        else:
            state = {f"backbone.{name}": value for name, value in state.items()}
            for name, values in IMAGENET._asdict().items():
                state[name] = torch.tensor(values).view(1, 3, 1, 1)
        load_named(network, state, source, EVERY_TENSOR)
    else:
        load_timm(network, source)
