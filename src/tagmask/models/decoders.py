"""The decoder and the projection head, which stand on top of a backbone's tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DILATIONS = (6, 12, 18, 24)


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
