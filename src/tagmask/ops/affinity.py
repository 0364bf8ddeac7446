"""Semantic affinity between near pixels, and CAMs carried along it by a random walk (PSA, CVPR 2018).

Pairs are of a pixel and one of the 34 that follow it within a radius of 5 grid cells. The reference leaves out sources
whose targets might lie outside the grid: `border="skip"`. With `border="keep"` every pixel is a source, and only
the targets outside are left out.
"""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import with_background

RADIUS = 5
STRIDE = 8
EMPTY = 1e-5

with warnings.catch_warnings():
    # torch says once that CSR is beta. Nothing of it is used but making it and multiplying by it, which on a CPU is 17
    # times as fast as with COO.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

Border = Literal["skip", "keep"]


class PairLabels(NamedTuple):
    """What is known of P pairs a source in B grids, each (B, P, S) bool.

    Attributes:
        background: both are background.
        foreground: both are of the same class.
        negative: they are not of the same label.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_offsets(radius: int = RADIUS) -> list[tuple[int, int]]:
    """The P steps (down, right) from a source to its targets, in reading order; 34 for radius 5."""
    near = [(0, right) for right in range(1, radius)]
    below = [(down, right) for down in range(1, radius) for right in range(1 - radius, radius)]
    return near + [(down, right) for down, right in below if down**2 + right**2 < radius**2]


def confident_labels(low: Tensor, high: Tensor, pool: int = STRIDE) -> Tensor:
    """Where two CRF results, of a strong and of a weak background, leave no doubt.

    Args:
        low: (n + 1, H, W) marginals with a low power of the background score (it is strong), plane 0 background; zero
            outside the image.
        high: the same with a high power.
        pool: side of the cells that are averaged; H and W are multiples of it.

    Returns:
        (H / pool, W / pool) int64: 0 background where even `high` says so, the plane's index where even `low` says a
        class, 255 elsewhere and outside the image.

    Source: PSA (CVPR 2018), section 3.2; spec A6.1.
    """
    low, high = (F.avg_pool2d(planes[None], pool)[0] for planes in (low, high))
    surely, perhaps = low.argmax(dim=0), high.argmax(dim=0)
    labels = torch.where(surely == 0, IGNORE, surely)
    labels = torch.where(perhaps == 0, 0, labels)
    outside = torch.maximum(low.amax(dim=0), high.amax(dim=0)) < EMPTY
    return torch.where(outside, IGNORE, labels)


def pair_labels(labels: Tensor, radius: int = RADIUS) -> PairLabels:
    """Compare the labels (B, h, w) of every pair; pairs with a 255 are in none of the three.

    Source: PSA (CVPR 2018), section 3.2; spec A6.2.
    """
    source = _sources(labels, radius)[:, None]
    target = torch.stack([_targets(labels, offset, radius) for offset in pair_offsets(radius)], dim=1)
    known = (source != IGNORE) & (target != IGNORE)
    same = known & (source == target)
    parts = (same & (source == 0), same & (source != 0), known & (source != target))
    return PairLabels(*(part.flatten(2) for part in parts))


def pair_affinity(features: Tensor, radius: int = RADIUS) -> Tensor:
    """Affinity `exp(-mean |f(source) - f(target)|)` of every pair.

    Args:
        features: (B, D, h, w).

    Returns:
        (B, P, S) in (0, 1], the S sources in reading order.

    Source: PSA (CVPR 2018), equation 2.
    """
    source = _sources(features, radius)
    # One offset at a time: all targets at once would be P copies of the features.
    distances = [
        (source - _targets(features, offset, radius)).abs().mean(dim=1).flatten(1) for offset in pair_offsets(radius)
    ]
    return torch.exp(-torch.stack(distances, dim=1))


def pair_positions(height: int, width: int, radius: int = RADIUS) -> tuple[Tensor, Tensor]:
    """Flat positions of sources (S,) and of their targets (P, S) on a grid, int64."""
    grid = torch.arange(height * width).view(1, height, width)
    targets = [_targets(grid, offset, radius).flatten() for offset in pair_offsets(radius)]
    return _sources(grid, radius).flatten(), torch.stack(targets)


def affinity_matrix(features: Tensor, *, radius: int = RADIUS, border: Border = "skip") -> Tensor:
    """The symmetric affinity matrix of one image, 1 on the diagonal and 0 beyond the radius.

    Args:
        features: (D, h, w).
        border: see the module; `skip` leaves ten pixels of any grid without a neighbour.

    Returns:
        (hw, hw) sparse CSR; at most 1 + 2P entries a row, so that its size grows with the image, not with its square.
    """
    height, width = features.shape[-2:]
    reach = radius - 1
    margins = (reach, reach, 0, reach) if border == "keep" else (0, 0, 0, 0)
    weights = pair_affinity(F.pad(features[None], margins), radius)[0]
    positions = F.pad(torch.arange(height * width).view(1, 1, height, width), margins, value=-1)[0]
    source = _sources(positions, radius).flatten()
    target = torch.stack([_targets(positions, offset, radius).flatten() for offset in pair_offsets(radius)])
    source = source.expand_as(target)
    inside = target >= 0
    source, target = source[inside].to(weights.device), target[inside].to(weights.device)
    values = weights[inside.to(weights.device)]
    diagonal = torch.arange(height * width, device=weights.device)
    indices = torch.stack([torch.cat([source, target, diagonal]), torch.cat([target, source, diagonal])])
    values = torch.cat([values, values, values.new_ones(len(diagonal))])
    size = (height * width, height * width)
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=False).to_sparse_csr()


def random_walk(affinity: Tensor, scores: Tensor, *, beta: float = 8, logt: int = 8) -> Tensor:
    """Carry scores over an image by 2^logt steps of a random walk along affinities.

    The reference raises the dense transition matrix to that power by squaring. Here the few planes of scores take the
    steps one by one through the sparse matrix, which is the same product in another order.

    Args:
        affinity: (N, N) sparse or dense, not negative, with a positive diagonal.
        scores: (C, N).
        beta: power of the affinities; the larger, the less they carry.

    Returns:
        (C, N) scores after the walk; each target's incoming weights sum to 1, so constant planes stay as they are.

    Source: PSA (CVPR 2018), section 3.3; spec A6.5.
    """
    entries = affinity.to_sparse_coo().coalesce()
    source, target = entries.indices()
    # What sums lack of 1 is lost in every step, and there are hundreds: so they are made in double precision.
    weights = entries.values().double() ** beta
    incoming = weights.new_zeros(len(affinity)).index_add_(0, target, weights)
    indices, shares = torch.stack([target, source]), (weights / incoming[target]).to(scores)
    step = torch.sparse_coo_tensor(indices, shares, affinity.shape, check_invariants=False).to_sparse_csr()
    planes = scores.t().contiguous()
    for _ in range(2**logt):
        planes = step @ planes
    return planes.t().contiguous()


def walk_to_labels(
    affinity: Tensor,
    cams: Tensor,
    ids: Tensor,
    *alphas: float,
    beta: float = 8,
    logt: int = 8,
    stride: int = STRIDE,
) -> Tensor:
    """Label maps of one image from its CAMs after a random walk, one for each strength of the background.

    Args:
        affinity: (hw, hw) on the grid of the image padded right and below to multiples of `stride`.
        cams: (n, H, W) in [0, 1] of the classes the image bears; n may be 0.
        ids: (n,) their label ids, ascending.
        alphas: powers of the background score; the papers' is 16.
        beta, logt: of `random_walk`.

    Returns:
        (V, H, W) int64 label maps for V powers: 0 background, else one of `ids`.

    Source: PSA (CVPR 2018), section 3.3; spec A6.5.
    """
    height, width = cams.shape[-2:]
    scores = walk_scores(affinity, cams, *alphas, beta=beta, logt=logt, stride=stride)
    enlarged = F.interpolate(scores, scale_factor=stride, mode="bilinear", align_corners=False)
    best = enlarged[..., :height, :width].argmax(dim=1)
    return F.pad(ids.to(best), (1, 0))[best]


def walk_scores(
    affinity: Tensor, cams: Tensor, *alphas: float, beta: float = 8, logt: int = 8, stride: int = STRIDE
) -> Tensor:
    """Scores (V, n + 1, h, w) of background and classes on the grid after the walk; see `walk_to_labels`."""
    height, width = cams.shape[-2:]
    scores = torch.stack([with_background(cams, alpha) for alpha in alphas])
    pooled = F.avg_pool2d(F.pad(scores, (0, -width % stride, 0, -height % stride)), stride)
    if pooled[0, 0].numel() != len(affinity):
        raise ValueError(f"affinities of {len(affinity)} cells for a grid of {tuple(pooled.shape[2:])}")
    return random_walk(affinity, pooled.flatten(2).flatten(0, 1), beta=beta, logt=logt).view_as(pooled)


def _sources(grid: Tensor, radius: int) -> Tensor:
    """The sources of (..., h, w): (..., h - r + 1, w - 2 r + 2), none where the grid is smaller."""
    height, width = grid.shape[-2:]
    return grid[..., : max(height - radius + 1, 0), radius - 1 : max(width - radius + 1, radius - 1)]


def _targets(grid: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """The targets of `_sources` at one offset."""
    down, right = offset
    rows, columns = _sources(grid, radius).shape[-2:]
    return grid[..., down : down + rows, radius - 1 + right : radius - 1 + right + columns]
