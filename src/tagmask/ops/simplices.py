"""Where a point lies in a permutohedral lattice: the simplex around it, and its weights at the simplex's vertices."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def enclosing_simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each of (d, n) points.

    Returns:
        Of each simplex, all (d + 1, n): the vertex of remainder 0 in units of d + 1, the ranks of its coordinates by
        the point's offset (int8; 0: the largest), and the point's offset from that vertex in units of d + 1.
    """
    dimensions, count = features.shape

    # Embed the points in the plane of d + 1 coordinates whose sum is 0, so scaled that a blur is a Gaussian of width 1.
    elevated = features.new_empty(dimensions + 1, count)
    ahead = features.new_zeros(count)
    for j in range(dimensions, 0, -1):
        scaled = features[j - 1] * (math.sqrt(2 / 3) * (dimensions + 1) / math.sqrt(j * (j + 1)))
        torch.sub(ahead, scaled, alpha=j, out=elevated[j])
        ahead = ahead + scaled
    elevated[0] = ahead

    # Round to the nearest multiple of d + 1 in each coordinate; the sum of what is rounded may leave the plane.
    offset = elevated.mul_(1 / (dimensions + 1))
    origin = offset.round()
    offset -= origin
    excess = origin.sum(dim=0).to(torch.int8)

    # Rank the coordinates by what rounding left of them. The excess of the sum shifts the ranks, and coordinates whose
    # rank so falls out of 0..d are those that are rounded the other way to come back into the plane.
    rank = torch.arange(dimensions + 1, dtype=torch.int8, device=features.device)[:, None] + excess
    for i in range(dimensions):
        for j in range(i + 1, dimensions + 1):
            behind = (offset[i] < offset[j]).view(torch.int8)
            rank[i] += behind
            rank[j] -= behind
    wrap = (rank < 0).to(torch.int8) - (rank > dimensions).to(torch.int8)
    return origin.add_(wrap), rank.add_(wrap, alpha=dimensions + 1), offset.sub_(wrap)


def barycentric_weights(offset: Tensor) -> Tensor:
    """Compute the weights (d + 1, n) of the vertices with remainder 0, 1, ..., d.

    They are the differences of neighbouring offsets, sorted from the largest down.
    """
    # A sorting network of exchanges: for so few rows faster than a sort of the columns.
    falling = list(offset)
    for end in range(len(falling) - 1, 0, -1):
        for i in range(end):
            falling[i : i + 2] = torch.maximum(*falling[i : i + 2]), torch.minimum(*falling[i : i + 2])
    weights = torch.empty_like(offset)
    torch.sub(falling[-1] + 1, falling[0], out=weights[0])
    for k in range(1, len(falling)):
        torch.sub(falling[-1 - k], falling[-k], out=weights[k])
    return weights
