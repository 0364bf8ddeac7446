"""ResNet-38 (variant A1 of Wu et al., "Wider or Deeper", 2016) with dilated last stages, as PSA and SC-CAM use it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

FROZEN_STEM = ("conv1a", "b2", "b2_1", "b2_2")


class Taps(NamedTuple):
    """Features of three depths at h = ceil(H / 8), w = ceil(W / 8) for (B, 3, H, W) images, after batch norm and ReLU.

    Attributes:
        conv4: (B, 512, h, w) of the fourth stage.
        conv5: (B, 1024, h, w) of the fifth.
        conv6: (B, 4096, h, w) of the last.
    """

    conv4: Tensor
    conv5: Tensor
    conv6: Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU; the shortcut is projected where shapes differ.

    Args:
        width, hidden, output: channels before, between and after the convolutions.
        stride: of the first convolution and the shortcut.
        first_dilation, dilation: of the two convolutions.
    """

    def __init__(
        self, width: int, hidden: int, output: int, stride: int = 1, first_dilation: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(width)
        self.conv_branch2a = nn.Conv2d(
            width, hidden, 3, stride, padding=first_dilation, dilation=first_dilation, bias=False
        )
        self.bn_branch2b1 = nn.BatchNorm2d(hidden)
        self.conv_branch2b1 = nn.Conv2d(hidden, output, 3, padding=dilation, dilation=dilation, bias=False)
        same = width == output and stride == 1
        self.conv_branch1 = None if same else nn.Conv2d(width, output, 1, stride, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output (B, output, h, w), and the tap: the normalised, rectified input (B, width, H, W)."""
        tap = self.bn_branch2a(features).relu_()
        shortcut = features if self.conv_branch1 is None else self.conv_branch1(tap)
        branch = self.bn_branch2b1(self.conv_branch2a(tap)).relu_()
        return shortcut + self.conv_branch2b1(branch), tap


class Bottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution, each after batch norm and ReLU, with dropout of whole channels.

    Args:
        width, output: channels before and after; a quarter and a half of `output` between.
        dilation: of the 3x3 convolution.
        dropout: probability that a channel is dropped before the second and third convolution.
    """

    def __init__(self, width: int, output: int, dilation: int, dropout: float) -> None:
        super().__init__()
        quarter, half = output // 4, output // 2
        self.bn_branch2a = nn.BatchNorm2d(width)
        self.conv_branch2a = nn.Conv2d(width, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.conv_branch2b1 = nn.Conv2d(quarter, half, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.conv_branch2b2 = nn.Conv2d(half, output, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(width, output, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output (B, output, h, w), and the tap: the normalised, rectified input (B, width, h, w)."""
        tap = self.bn_branch2a(features).relu_()
        branch = self.dropout(self.bn_branch2b1(self.conv_branch2a(tap)).relu_())
        branch = self.dropout(self.bn_branch2b2(self.conv_branch2b1(branch)).relu_())
        return self.conv_branch1(tap) + self.conv_branch2b2(branch), tap


class ResNet38(nn.Module):
    """The backbone of SC-CAM and of AffinityNet; names and shapes are those of the published weights.

    Args:
        width: factor on all channels; 1 is the published network (105,070,912 parameters), less is for small data.

    Attributes:
        widths: channels of the three taps.

    Source: spec A2; PSA (CVPR 2018) and SC-CAM (CVPR 2020), released code.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c64, c128, c256, c512, c1024, c2048, c4096 = (max(4, int(width * 2**power)) for power in range(6, 13))
        self.widths = (c512, c1024, c4096)
        self.conv1a = nn.Conv2d(3, c64, 3, padding=1, bias=False)
        self.b2 = BasicBlock(c64, c128, c128, stride=2)
        self.b2_1 = BasicBlock(c128, c128, c128)
        self.b2_2 = BasicBlock(c128, c128, c128)
        self.b3 = BasicBlock(c128, c256, c256, stride=2)
        self.b3_1 = BasicBlock(c256, c256, c256)
        self.b3_2 = BasicBlock(c256, c256, c256)
        self.b4 = BasicBlock(c256, c512, c512, stride=2)
        self.b4_1 = BasicBlock(c512, c512, c512)
        self.b4_2 = BasicBlock(c512, c512, c512)
        self.b4_3 = BasicBlock(c512, c512, c512)
        self.b4_4 = BasicBlock(c512, c512, c512)
        self.b4_5 = BasicBlock(c512, c512, c512)
        self.b5 = BasicBlock(c512, c512, c1024, first_dilation=1, dilation=2)
        self.b5_1 = BasicBlock(c1024, c512, c1024, first_dilation=2, dilation=2)
        self.b5_2 = BasicBlock(c1024, c512, c1024, first_dilation=2, dilation=2)
        self.b6 = Bottleneck(c1024, c2048, dilation=4, dropout=0.3)
        self.b7 = Bottleneck(c2048, c4096, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(c4096)

    def forward(self, images: Tensor) -> Taps:
        """Compute the taps of (B, 3, H, W) RGB images, normalised with ImageNet's mean and std."""
        features, taps = self.conv1a(images), {}
        for name, block in self.named_children():
            if isinstance(block, BasicBlock | Bottleneck):
                features, tap = block(features)
                if name in ("b5", "b6"):
                    taps[name] = tap
        return Taps(taps["b5"], taps["b6"], self.bn7(features).relu_())

    def freeze(self) -> ResNet38:
        """Take the stem and every batch norm out of training, as every published run does. Returns itself."""
        for name in FROZEN_STEM:
            self.get_submodule(name).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> ResNet38:
        """Switch to training as any module does, but frozen batch norms keep their statistics. Returns itself."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self
