"""The convolutions of VGG-16 as RCA uses them: stride 8, dilated last stage, no fifth pooling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Vgg16(nn.Module):
    """The convolutions of VGG-16; `features.N` bear torchvision's numbers, so its weights load as they are.

    Args:
        stages: channels of the convolutions of the five stages.

    Source: spec C2; RCA (CVPR 2022), released code.
    """

    def __init__(self, stages: Sequence[Sequence[int]] = STAGES) -> None:
        super().__init__()
        self.width = stages[-1][-1]
        layers: list[nn.Module] = []
        width, last = 3, len(stages) - 1
        for index, stage in enumerate(stages):
            dilation = 2 if index == last else 1
            for output in stage:
                layers += [nn.Conv2d(width, output, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
                width = output
            if index < last:
                # The fourth pooling smooths but keeps the size; the dilation makes up for its stride.
                layers.append(nn.MaxPool2d(3, 1, padding=1) if index == last - 1 else nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (B, D, H // 8, W // 8) of (B, 3, H, W) RGB images, normalised with ImageNet's mean and std.

        The pair is twice the same: RCA looks at no earlier stage.
        """
        features = self.features(images)
        return features, features
