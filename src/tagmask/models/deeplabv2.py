"""DeepLab-v2 on ResNet-101, the segmenter both SC-CAM and RCA are measured with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from tagmask.errors import TagmaskError
from tagmask.models.decoders import LargeFieldDecoder
from tagmask.models.imports import load_named
from tagmask.models.weights import read_state

STRIDE = 8
RESNET101 = (3, 4, 23, 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = ((122.675 / 255, 116.669 / 255, 104.008 / 255), (1 / 255,) * 3)
"""Mean and std of RGB in 0..1; the COCO weights saw grey levels less their mean."""

REFERENCE = re.compile(r"^(?:module\.)?(?:scale\.|base\.)?(layer\d|aspp)\.(.+)$")
STEM = {"conv1.conv.": "conv1.", "conv1.bn.": "bn1."}
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


class DeepLabV2(nn.Module):
    """ResNet with stride 8 and four dilated classifiers summed; batch norm keeps its statistics and scale.

    Args:
        outputs: channels of the logits, background included.
        blocks: bottlenecks of the four stages; fewer for small tests.

    Attributes:
        backbone: under torchvision's names, so that its ImageNet weights load as they are.
        decoder: its weights learn 10 times, its biases 20 times as fast as the backbone; empty where headless.
        mean, std: (1, 3, 1, 1) of RGB in 0..1, as the loaded weights expect images to be normalised.

    Source: spec A7; DeepLab-v2 (Chen et al., 2017).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, outputs: int, blocks: Sequence[int] = RESNET101) -> None:
        super().__init__()
        self.backbone = ResNet(Bottleneck, list(blocks), num_classes=1)
        del self.backbone.fc, self.backbone.avgpool
        self.backbone.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        stages = (self.backbone.layer2, 2, 1), (self.backbone.layer3, 1, 2), (self.backbone.layer4, 1, 4)
        for stage, stride, dilation in stages:
            _restride(stage, stride, dilation)
        self.decoder: nn.Module = LargeFieldDecoder(512 * Bottleneck.expansion, outputs)
        self.backbone.requires_grad_(True)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, h, w), h and w about an eighth, of normalised RGB images (B, 3, H, W)."""
        return self.decoder(self.features(images)[-1])

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 1024, h, w) and (B, 2048, h, w) of the last two stages."""
        network = self.backbone
        features = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        early = network.layer3(network.layer2(network.layer1(features)))
        return early, network.layer4(early)

    @classmethod
    def headless(cls, blocks: Sequence[int] = RESNET101) -> DeepLabV2:
        """The network without its classifiers, as a backbone."""
        network = cls(1, blocks)
        network.decoder = nn.Identity()
        return network

    def train(self, mode: bool = True) -> DeepLabV2:
        """Like any module's, but batch norm stays in eval mode. Returns itself."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def load_deeplabv2(network: DeepLabV2, path: Path) -> list[str]:
    """Load ImageNet weights of torchvision, or weights published with kazuto1011/deeplab-pytorch, such as COCO's.

    The latter expect blue first and grey levels less their mean: the first convolution is turned to RGB, and `mean`
    and `std` are set so that normalised images are what it expects. A classifier of other classes is left out.

    Returns:
        the network's tensors the file does not have; they keep their values.

    Raises:
        TagmaskError: not such a file, a tensor of the backbone is missing, or a shape does not fit.
    """
    state = read_state(path)
    reference = any(".block1." in name for name in state)
    state = rename_reference(state, str(path)) if reference else {f"backbone.{name}": state[name] for name in state}
    own = network.state_dict()
    for name in [name for name in state if name.startswith("decoder.")]:
        if name not in own or state[name].shape != own[name].shape:
            del state[name]
    for name, values in zip(("mean", "std"), CAFFE if reference else IMAGENET, strict=True):
        state[name] = torch.tensor(values).view(1, 3, 1, 1)
    return load_named(network, state, str(path), needed=re.compile(r"^backbone\."))


def rename_reference(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Names of kazuto1011/deeplab-pytorch to those of `DeepLabV2`, its first convolution to RGB.

    Raises:
        TagmaskError: a tensor that is no part of DeepLab-v2; names `origin`, the file.
    """
    renamed = {_renamed(name, origin): value for name, value in state.items()}
    stem = "backbone.conv1.weight"
    if stem in renamed:
        renamed[stem] = renamed[stem].flip(1)
    return renamed


def _renamed(name: str, origin: str) -> str:
    found = REFERENCE.match(name)
    part, rest = found.groups() if found else ("", "")
    if part == "aspp" and (branch := re.match(r"^(?:stages\.)?c(\d)\.(weight|bias)$", rest)):
        return f"decoder.branches.{branch[1]}.{branch[2]}"
    for old, new in STEM.items():
        if part == "layer1" and rest.startswith(old):
            return f"backbone.{new}{rest.removeprefix(old)}"
    block = re.match(r"^block(\d+)\.(\w+\.(?:conv|bn))\.(\w+)$", rest)
    if not block or block[2] not in LAYERS:
        raise TagmaskError(f"weights {origin}: {name!r} is no tensor of DeepLab-v2; is it another network's file?")
    return f"backbone.layer{int(part[-1]) - 1}.{int(block[1]) - 1}.{LAYERS[block[2]]}.{block[3]}"


def _restride(stage: nn.Sequential, stride: int, dilation: int) -> None:
    """Give a stage its stride, on the first 1x1 convolution as in Caffe's networks, and its dilation."""
    for index, block in enumerate(stage):
        assert isinstance(block, Bottleneck)
        step = (stride, stride) if index == 0 else (1, 1)
        block.conv1.stride, block.conv2.stride = step, (1, 1)
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
        if block.downsample is not None:
            projection = block.downsample.get_submodule("0")
            assert isinstance(projection, nn.Conv2d)
            projection.stride = step
