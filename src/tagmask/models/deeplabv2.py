"""The ResNet-101 of DeepLab-v2, with which SC-CAM's and RCA's segmenters are measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from tagmask.models.weights import IMAGENET

RESNET101 = (3, 4, 23, 3)


class DeepLabV2(nn.Module):
    """ResNet with stride 8 whose batch norm keeps its statistics and scale; the classifiers are a `LargeFieldDecoder`.

    Args:
        blocks: bottlenecks of the four stages; fewer for small tests.

    Attributes:
        backbone: under torchvision's names, so that its ImageNet weights load as they are.
        mean, std: (1, 3, 1, 1) of RGB in 0..1, as the loaded weights expect images to be normalised.

    Source: spec A7; DeepLab-v2 (Chen et al., 2017).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: Sequence[int] = RESNET101) -> None:
        super().__init__()
        self.backbone = ResNet(Bottleneck, list(blocks), num_classes=1)
        del self.backbone.fc, self.backbone.avgpool
        self.backbone.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        stages = (self.backbone.layer2, 2, 1), (self.backbone.layer3, 1, 2), (self.backbone.layer4, 1, 4)
        for stage, stride, dilation in stages:
            _restride(stage, stride, dilation)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        for name, values in IMAGENET._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 1024, h, w) and (B, 2048, h, w) of the last two stages for normalised RGB images (B, 3, H, W).

        The sides h and w are about an eighth of H and W.
        """
        network = self.backbone
        features = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        early = network.layer3(network.layer2(network.layer1(features)))
        return early, network.layer4(early)

    def train(self, mode: bool = True) -> DeepLabV2:
        """Switch to training as any module does, except that batch norm stays in eval mode. Returns itself."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


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
