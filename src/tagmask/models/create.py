"""Build the networks that timm and the papers have, within bounds and for images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tagmask.errors import TagmaskError
from tagmask.models import deeplabv2, resnet38, vgg16
from tagmask.recipes.backbone_options import MOST_PARAMETERS
from tagmask.recipes.load import BackboneConfig

PAPERS: dict[str, Callable[..., nn.Module]] = {
    "resnet38": resnet38.ResNet38,
    "vgg16_rca": vgg16.Vgg16,
    "deeplabv2_resnet101": deeplabv2.DeepLabV2,
}
"""Networks of the papers that timm does not have; each gives features of several depths, the last the deepest."""


def create_network(config: BackboneConfig) -> nn.Module:
    """Build the network that a recipe names, without weights, for images of any size where its family has a way to.

    Raises:
        TagmaskError: no such network, or it cannot be built with these options.
    """
    options = dict(config.options)
    if config.name in PAPERS:
        try:
            return PAPERS[config.name](**options)
        except TypeError as error:
            raise TagmaskError(f"backbone.options: {config.name} cannot be built with {options}: {error}") from None
    if not timm.is_model(config.name):
        near = timm.list_models(f"*{config.name.split('_')[0]}*")[:5]
        raise TagmaskError(f"backbone.name: timm has no {config.name!r}; near it: {', '.join(near) or 'nothing'}")
    if options:
        _check_parameters(config.name, options)
    last: Exception | None = None
    # Networks without dilation know no output_stride; those with windows or rotary positions want to hear that images
    # differ in size, each family by a name of its own. Swin transformers of timm 1.0.20 pass over unknown names.
    stride, windows = {"output_stride": config.output_stride}, {"strict_img_size": False}
    positions = {"dynamic_img_size": True}
    for own in ({**stride, **windows}, stride, windows, positions, {}):
        try:
            return timm.create_model(config.name, pretrained=False, num_classes=0, **{**own, **options})
        except (TypeError, AssertionError, RuntimeError, NotImplementedError) as error:
            last = error
    raise TagmaskError(f"backbone: timm cannot build {config.name!r} with {options}: {last}")


def conv_stem(patch_size: int, width: int) -> nn.Sequential:
    """Make stride-2 convolutions for a ViT's patch embedding, from (B, 3, H, W) to (B, width, H/patch, W/patch).

    A linear map of whole patches has too many weights to be learnt from a small data set.

    Source: Xiao et al., Early Convolutions Help Transformers See Better (NeurIPS 2021).
    """
    halvings = patch_size.bit_length() - 1
    if 2**halvings != patch_size or width % 2**halvings:
        raise TagmaskError(
            f"backbone.stem: conv needs a patch size that is a power of 2 and divides {width}, not {patch_size}"
        )
    layers: list[nn.Module] = []
    channels = 3
    for left in reversed(range(halvings)):
        layers += [
            nn.Conv2d(channels, width >> left, 3, 2, 1, bias=False),
            nn.GroupNorm(math.gcd(4, width >> left), width >> left),
            nn.ReLU(),
        ]
        channels = width >> left
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Build networks without memory for their numbers, on torch's device `meta`."""
    with torch.device("meta"), _Numbers():
        yield


class _Numbers(TorchFunctionMode):
    """Keeps `linspace` off the device `meta`: timm before 1.0.21 reads the rates of its dropped paths from one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        options = dict(kwargs or {})
        if func is torch.linspace:
            options.setdefault("device", "cpu")
        return func(*args, **options)


def _check_parameters(name: str, options: dict[str, Any]) -> None:
    """Refuse a network of more parameters than any machine has room for, before it is built."""
    try:
        with shapes_alone():
            network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, AssertionError, RuntimeError, NotImplementedError, ValueError):
        return  # it is said where the network is built
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MOST_PARAMETERS:
        raise TagmaskError(
            f"backbone.options: {name!r} would have {count / 1e9:.0f} billion parameters with {options}; the most are "
            f"{MOST_PARAMETERS / 1e9:.0f} billion"
        )
