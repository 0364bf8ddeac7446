"""The decoders and the projection head, which stand on top of a backbone's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tagmask.ops.resize import resize

DILATIONS = (6, 12, 18, 24)
SKIP_WIDTH, NORM_GROUPS = 48, 8  # channels of what a skip connection adds, and the groups that they are normalised in


class LargeFieldDecoder(nn.Module):
    """The segmentation head of DeepLab-v2: four dilated 3x3 convolutions on the same features, summed.

    Args:
        width: D, channels of the features.
        num_classes: C, channels of the logits, background included where there is one.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(width, num_classes, 3, padding=d, dilation=d) for d in DILATIONS)
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            assert branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Compute logits (B, C, h, w) of features (B, D, h, w)."""
        return torch.stack([branch(patches) for branch in self.branches]).sum(dim=0)


class SkipDecoder(nn.Module):
    """A `LargeFieldDecoder` whose logits are corrected on a finer grid by what earlier layers see.

    The last features say what is there, on a grid of 16 pixels or so; earlier ones show where its outline runs. The
    correction is 0 until it has learnt something.

    Args:
        width: D, channels of the last features.
        num_classes: C, channels of the logits, background included where there is one.
        finer: D_i, channels of the earlier features, the finest grid last.

    Source: after the skip connections of FCN (Long et al., CVPR 2015), section 4.2, and of DeepLab-v3+ (Chen et al.,
        ECCV 2018), section 3.1; the widths are our own.
    """

    def __init__(self, width: int, num_classes: int, finer: Sequence[int]) -> None:
        super().__init__()
        self.coarse = LargeFieldDecoder(width, num_classes)
        self.skips = nn.ModuleList(_normalised(own) for own in finer)
        self.classes = nn.Conv2d(num_classes, SKIP_WIDTH, 1)
        self.joined = _normalised(SKIP_WIDTH)
        self.correction = nn.Conv2d(SKIP_WIDTH, num_classes, 1)
        nn.init.zeros_(self.correction.weight)
        assert self.correction.bias is not None
        nn.init.zeros_(self.correction.bias)

    def forward(self, patches: Tensor, *finer: Tensor) -> Tensor:
        """Compute logits (B, C, h', w') of features (B, D, h, w) and `finer` ones, on the grid of the last of these."""
        size = finer[-1].shape[-2:]
        logits = resize(self.coarse(patches), size)
        seen = [resize(skip(features), size) for skip, features in zip(self.skips, finer, strict=True)]
        return logits + self.correction(self.joined(torch.stack([self.classes(logits), *seen]).sum(dim=0)))


def _normalised(width: int) -> nn.Sequential:
    """A 3x3 convolution to the width of a skip connection; by groups of channels, for batches may be of one image."""
    return nn.Sequential(
        nn.Conv2d(width, SKIP_WIDTH, 3, padding=1, bias=False),
        nn.GroupNorm(NORM_GROUPS, SKIP_WIDTH),
        nn.ReLU(inplace=True),
    )


class ProjectionHead(nn.Module):
    """The head whose output embeddings are contrasted: three linear layers with GELU between.

    Args:
        width, hidden, output: features of the input, of the two layers between, and of the embedding.

    Source: SeCo (CVPR 2024), section 3.3.
    """

    def __init__(self, width: int, hidden: int, output: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, output)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Project features (N, D) to embeddings (N, output) of unit length."""
        return nn.functional.normalize(self.layers(features), dim=-1)
