"""Semantic affinity between near pixels, and CAMs carried along it by a random walk (PSA, CVPR 2018).

A pair is a source cell of a grid and one of the 34 cells, its targets, that follow it in reading order within a radius
of 5 cells. The first part of the file compares the labels, and the features, of all pairs of a grid; the second makes a
matrix of the features' affinities and carries scores along it.

Throughout, P is the number of targets of a source and S the number of sources. The reference leaves out sources
whose targets might lie outside the grid: `border="skip"`. With `border="keep"` every pixel is a source, and only
the targets outside are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import winners, with_background
from tagmask.ops.resize import resize

RADIUS = 5  # cells; the papers'
STRIDE = 8  # pixels a cell
EMPTY = 1e-5  # below it the marginals of a cell are the zeros outside an image

with warnings.catch_warnings():
    # torch warns once that CSR matrices are beta. Here they are only made and multiplied by, which on a CPU is 17 times
    # as fast as with COO matrices. The warning is provoked here, where it can be silenced.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

Border = Literal["skip", "keep"]


class PairLabels(NamedTuple):
    """What is known of the labels of all pairs of B grids, each field (B, P, S) bool.

    Attributes:
        background: source and target are both background.
        foreground: both are of the same class.
        negative: their labels differ.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_offsets(radius: int = RADIUS) -> list[tuple[int, int]]:
    """List the P steps (down, right) from a source to its targets, in reading order; 34 for radius 5."""
    near = [(0, right) for right in range(1, radius)]
    below = [(down, right) for down in range(1, radius) for right in range(1 - radius, radius)]
    return near + [(down, right) for down, right in below if down**2 + right**2 < radius**2]


def confident_labels(low: Tensor, high: Tensor, pool: int = STRIDE) -> Tensor:
    """Label the cells on which two CRF results, of a strong and of a weak background, leave no doubt.

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
    surely, perhaps = winners(low, 0), winners(high, 0)
    # A class that wins against the strong background is sure. Where only the weak one lets a class win, nobody knows.
    labels = torch.where(surely == 0, IGNORE, surely)
    labels = torch.where(perhaps == 0, 0, labels)
    outside = torch.maximum(low.amax(dim=0), high.amax(dim=0)) < EMPTY
    return torch.where(outside, IGNORE, labels)


def pair_labels(labels: Tensor, radius: int = RADIUS) -> PairLabels:
    """Compare the labels (B, h, w) of every pair; a pair with an ignored cell (255) is in none of the three groups.

    Source: PSA (CVPR 2018), section 3.2; spec A6.2.
    """
    source = _sources(labels, radius)[:, None]
    target = torch.stack([_targets(labels, offset, radius) for offset in pair_offsets(radius)], dim=1)
    known = (source != IGNORE) & (target != IGNORE)
    same = known & (source == target)
    parts = (same & (source == 0), same & (source != 0), known & (source != target))
    return PairLabels(*(part.flatten(2) for part in parts))


def pair_affinity(features: Tensor, radius: int = RADIUS) -> Tensor:
    """Compute the affinity `exp(-mean |f(source) - f(target)|)` of every pair.

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


def pair_positions(
    height: int, width: int, radius: int = RADIUS, margins: Sequence[int] = (0, 0, 0, 0)
) -> tuple[Tensor, Tensor]:
    """Give the flat positions of sources (S,) and of their targets (P, S) on a grid, int64.

    Args:
        height, width: of the grid, in cells.
        radius: of the pairs, in cells.
        margins: cells around the grid, left, right, top and bottom, that count as targets; their position is -1.
    """
    grid = F.pad(torch.arange(height * width).view(1, height, width), tuple(margins), value=-1)
    targets = [_targets(grid, offset, radius).flatten() for offset in pair_offsets(radius)]
    return _sources(grid, radius).flatten(), torch.stack(targets)


def affinity_matrix(features: Tensor, *, radius: int = RADIUS, border: Border = "skip") -> Tensor:
    """Make the symmetric affinity matrix of one image, 1 on the diagonal and 0 beyond the radius.

    Args:
        features: (D, h, w).
        border: see the module; `skip` leaves ten pixels of any grid without a neighbour.

    Returns:
        (hw, hw) sparse CSR; at most 1 + 2P entries a row, so that its size grows with the image, not with its square.
    """
    height, width = features.shape[-2:]

    # Affinities of all pairs. A margin as wide as the radius makes every cell of the grid a source.
    reach = radius - 1
    margins = (reach, reach, 0, reach) if border == "keep" else (0, 0, 0, 0)
    weights = pair_affinity(F.pad(features[None], margins), radius)[0]

    # Their places in the matrix; targets in the margin have none.
    source, target = pair_positions(height, width, radius, margins)
    source = source.expand_as(target)
    inside = target >= 0
    source, target = source[inside].to(weights.device), target[inside].to(weights.device)
    values = weights[inside.to(weights.device)]

    # Each pair stands on both sides of the diagonal.
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
    # The transition matrix: affinities to a power, each target's divided by their sum. This sum is taken in double
    # precision, as its rounding error would be applied again in each of hundreds of steps.
    entries = affinity.to_sparse_coo().coalesce()
    source, target = entries.indices()
    weights = entries.values().double() ** beta
    incoming = weights.new_zeros(len(affinity)).index_add_(0, target, weights)
    indices, fractions = torch.stack([target, source]), (weights / incoming[target]).to(scores)
    step = torch.sparse_coo_tensor(indices, fractions, affinity.shape, check_invariants=False).to_sparse_csr()

    # The walk.
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
    """Label one image by its CAMs after a random walk, once for each strength of the background.

    Args:
        affinity: (hw, hw) on the grid of the image padded right and below to multiples of `stride`.
        cams: (n, H, W) in [0, 1] of the classes the image bears; n may be 0.
        ids: (n,) their label ids, ascending.
        alphas: powers of the background score; the papers' is 16.
        beta, logt: as in `random_walk`.
        stride: pixels a cell of the grid.

    Returns:
        (V, H, W) int64 label maps for V powers: 0 background, else one of `ids`.

    Source: PSA (CVPR 2018), section 3.3; spec A6.5.
    """
    height, width = cams.shape[-2:]
    scores = walk_scores(affinity, cams, *alphas, beta=beta, logt=logt, stride=stride)
    enlarged = resize(scores, [stride * cells for cells in scores.shape[-2:]])
    best = winners(enlarged[..., :height, :width], 1)
    return F.pad(ids.to(best), (1, 0))[best]


def walk_scores(
    affinity: Tensor, cams: Tensor, *alphas: float, beta: float = 8, logt: int = 8, stride: int = STRIDE
) -> Tensor:
    """Carry background and CAMs over the grid: (V, n + 1, h, w) scores after the walk; see `walk_to_labels`."""
    height, width = cams.shape[-2:]
    scores = torch.stack([with_background(cams, alpha) for alpha in alphas])
    pooled = F.avg_pool2d(F.pad(scores, (0, -width % stride, 0, -height % stride)), stride)
    if pooled[0, 0].numel() != len(affinity):
        raise ValueError(f"affinities of {len(affinity)} cells for a grid of {tuple(pooled.shape[2:])}")
    return random_walk(affinity, pooled.flatten(2).flatten(0, 1), beta=beta, logt=logt).view_as(pooled)


def _sources(grid: Tensor, radius: int) -> Tensor:
    """Cut the sources out of a grid (..., h, w): (..., h - r + 1, w - 2 r + 2), none where the grid is smaller."""
    height, width = grid.shape[-2:]
    return grid[..., : max(height - radius + 1, 0), radius - 1 : max(width - radius + 1, radius - 1)]


def _targets(grid: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """Cut out the targets of `_sources` at one offset, in the same shape."""
    down, right = offset
    rows, columns = _sources(grid, radius).shape[-2:]
    return grid[..., down : down + rows, radius - 1 + right : radius - 1 + right + columns]
