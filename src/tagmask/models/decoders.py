"""Heads on top of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DILATIONS = (6, 12, 18, 24)


class LargeFieldDecoder(nn.Module):
    """Sum of four dilated 3x3 convolutions (DeepLab's LargeFOV/ASPP head), (B, D, h, w) to (B, C, h, w) logits."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(width, num_classes, 3, padding=d, dilation=d) for d in DILATIONS)
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            assert branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (B, C, h, w)."""
        return torch.stack([branch(patches) for branch in self.branches]).sum(dim=0)


class ProjectionHead(nn.Module):
    """MLP of three layers with GELU between and L2-normalised output, for contrast (SeCo, section 3.3)."""

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
        """(N, D) to (N, output) of unit length."""
        return nn.functional.normalize(self.layers(features), dim=-1)
