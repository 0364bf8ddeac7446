"""The sum that the permutohedral lattice stands for, taken over all pairs of points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ExactGaussian:
    """The same filter as the plain sum over all pairs of points: quadratic in time and memory.

    Attributes:
        features: (B, d, N) positions in units of the Gaussian's standard deviation.
        factor: (B, N) by which each point's value is multiplied on its way in and on its way out.
    """

    features: Tensor
    factor: Tensor

    @classmethod
    def of(cls, features: Tensor) -> ExactGaussian:
        """Filter over points at `features` (B, d, N)."""
        return cls(features.float(), torch.ones_like(features[:, 0], dtype=torch.float32))

    def filter(self, values: Tensor) -> Tensor:
        """Filter values (B, N, C) of the points; gives (B, N, C)."""
        points = self.features.transpose(1, 2)
        values = values * self.factor[..., None]
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.square().mul(-0.5).exp() @ values * self.factor[..., None]

    def scaled(self, factor: Tensor) -> ExactGaussian:
        """The filter with each point's value multiplied by `factor` (B, N) on its way in and on its way out."""
        return replace(self, factor=self.factor * factor)
