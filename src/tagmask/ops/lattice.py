"""Gaussian filtering of points in a feature space, by a permutohedral lattice.

A filter has three steps: splat (each point adds its value to the d + 1 lattice vertices around it), blur (each vertex
takes something of its neighbours along each direction), slice (each point reads its vertices). The tables of who
touches whom are made once for a set of points, by `PermutohedralLattice.of`, with the functions below in their order:
the simplex around each point, its barycentric weights, a key for each vertex, groups of equal keys, the splat table,
and the vertices' neighbours. A filter then is a few weighted sums of rows (`embedding_bag`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.simplices import barycentric_weights, enclosing_simplex

_NO_KEY = torch.iinfo(torch.int64).max  # of vertices that only fill up the room; sorted behind all others


@dataclass(frozen=True)
class PermutohedralLattice:
    """Filters `sum_j exp(-|f_i - f_j|^2 / 2) v_j`, up to a gain, in time and memory linear in the number of points.

    Each point lies in a simplex of d + 1 lattice vertices. Its value is splatted onto them with barycentric weights,
    the vertices are blurred along d + 1 directions with the kernel (1/2, 1, 1/2), and the points read them back. Only
    vertices that some point touches exist, so the filter loses some mass at the rims of the point set.

    Attributes:
        vertices: (B * N, d + 1) int32, the M vertices' indices at each point.
        weights: (B * N, d + 1) their barycentric weights, times the filter's constant 1 / (1 + 2^-d).
        splat_points: (B * N * (d + 1),) int32, the points that touch vertex 0, then those that touch vertex 1, ...
        splat_weights: the barycentric weights that go with them.
        splat_offsets: (M + 2,) int32, where each vertex begins. Vertex M is touched by no point: its value stays 0.
        neighbours: (d + 1, M + 1, 3) int32, along each direction a vertex and its two neighbours; M where none exists.

    Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice", Eurographics 2010;
    constant and missing vertices as in the dense CRF of Krähenbühl and Koltun, NIPS 2011.
    """

    vertices: Tensor
    weights: Tensor
    splat_points: Tensor
    splat_weights: Tensor
    splat_offsets: Tensor
    neighbours: Tensor

    @classmethod
    def of(cls, features: Tensor, *, compact: bool = True) -> PermutohedralLattice:
        """Place points in a lattice, and make the tables of the filter.

        Args:
            features: (B, d, N) positions in units of the Gaussian's standard deviation; batch entries do not mix.
            compact: keep only the vertices that exist, whose number the host must read back from the device. False
                keeps room for the greatest possible number instead, and the host waits for nothing.
        """
        batch, dimensions, points = features.shape
        flat = features.float().transpose(0, 1).reshape(dimensions, batch * points)

        # The simplex around each point, and the point's place in it.
        origin, rank, offset = enclosing_simplex(flat)
        weights = barycentric_weights(offset)

        # Points in the same simplex share its vertices: they are found once for each simplex, by a key of one integer.
        steps = _key_steps(dimensions, batch)
        entry = torch.arange(batch, device=features.device).repeat_interleave(points)
        simplices = _Groups.of(_key(origin, rank, steps).add_(entry), compact=compact)
        members = (table.index_select(-1, simplices.first) for table in (origin, rank, entry))
        keys = _vertex_keys(*members, steps)  # pyright: ignore
        if not compact:
            keys.masked_fill_(simplices.sizes == 0, _NO_KEY)

        # Simplices share corners: equal keys are one vertex.
        corners = _Groups.of(keys.flatten(), compact=compact)
        vertex_keys = keys.flatten().index_select(0, corners.first).masked_fill_(corners.sizes == 0, _NO_KEY)

        # From vertices to points (slice), and from points to vertices (splat).
        vertices = corners.member_of.int().view_as(keys).t().contiguous()
        splat_points, splat_weights, splat_offsets = _splat_table(simplices, corners, weights)
        return cls(
            vertices=vertices.index_select(0, simplices.member_of),
            weights=weights.t().contiguous().mul_(1 / (1 + 2.0**-dimensions)),
            splat_points=splat_points,
            splat_weights=splat_weights,
            splat_offsets=splat_offsets,
            neighbours=_neighbours(vertex_keys, steps),
        )

    def filter(self, values: Tensor) -> Tensor:
        """Filter float32 values (B, N, C) of the points into as many."""
        return LatticeSum.of(self).filter(values)

    def spread(self, values: Tensor) -> Tensor:
        """Splat and blur values (B * N, C) of the points; gives values (M + 1, C) of the vertices."""
        result = F.embedding_bag(
            self.splat_points, values, self.splat_offsets,
            mode="sum", per_sample_weights=self.splat_weights, include_last_offset=True,
        )  # fmt: skip
        blur = values.new_full((len(result), 3), 0.5)
        blur[:, 0] = 1
        for table in self.neighbours:
            result = F.embedding_bag(table, result, mode="sum", per_sample_weights=blur)
        return result

    def scaled(self, factor: Tensor) -> PermutohedralLattice:
        """Give the filter that multiplies each point's value by `factor` (B, N) on its way in and on its way out."""
        factor = factor.flatten()
        return replace(
            self,
            weights=self.weights * factor[:, None],
            splat_weights=self.splat_weights * factor.index_select(0, self.splat_points),
        )


@dataclass(frozen=True)
class LatticeSum:
    """Sums filters over the same points: each point reads the vertices of all lattices at once.

    Attributes:
        parts: the lattices.
        vertices, weights: as a lattice's, side by side, over the parts' vertices one after the other.
    """

    parts: tuple[PermutohedralLattice, ...]
    vertices: Tensor
    weights: Tensor

    @classmethod
    def of(cls, *parts: PermutohedralLattice) -> LatticeSum:
        """Join lattices over the same points."""
        if len(parts) == 1:
            return cls(parts, parts[0].vertices, parts[0].weights)
        starts = [0, *accumulate(part.neighbours.shape[1] for part in parts)]
        vertices = [part.vertices + start for part, start in zip(parts, starts, strict=False)]
        return cls(parts, torch.cat(vertices, dim=1), torch.cat([part.weights for part in parts], dim=1))

    def filter(self, values: Tensor) -> Tensor:
        """Filter float32 values (B, N, C) of the points; gives (B, N, C)."""
        rows = values.reshape(-1, values.shape[-1]).contiguous()
        spread = torch.cat([part.spread(rows) for part in self.parts])
        return F.embedding_bag(self.vertices, spread, mode="sum", per_sample_weights=self.weights).view(values.shape)


def position_features(height: int, width: int, sigma: float, device: torch.device) -> Tensor:
    """Give x and y of each pixel, (2, H * W), in units of `sigma` pixels; a lattice is not symmetric in their order."""
    x = torch.arange(width, dtype=torch.float32, device=device).expand(height, width)
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None].expand(height, width)
    return torch.stack([x, y]).flatten(1) / sigma


def colour_features(images: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """Give x, y and colours of each pixel of images (B, 3, H, W), (B, 5, H * W), in units of standard deviations."""
    batch, _, height, width = images.shape
    positions = position_features(height, width, sigma_xy, images.device).expand(batch, -1, -1)
    return torch.cat([positions, images.flatten(2) / sigma_rgb], dim=1)


@dataclass(frozen=True)
class _Groups:
    """Groups n members by equal keys; the G groups are in ascending order of their keys.

    Attributes:
        order: (n,) the members, group after group.
        member_of: (n,) each member's group.
        starts: (G,) where a group begins in `order`; n for groups that only fill up the room.
        sizes: (G,) members of a group.
        first: (G,) one member of a group.
    """

    order: Tensor
    member_of: Tensor
    starts: Tensor
    sizes: Tensor
    first: Tensor

    @classmethod
    def of(cls, keys: Tensor, *, compact: bool) -> _Groups:
        count = len(keys)
        ordered, order = keys.sort()
        begins = torch.ones_like(keys, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=begins[1:])
        group = begins.cumsum(0) - 1
        if compact:
            starts = begins.nonzero().squeeze(1)
        else:
            starts = keys.new_full((count + 1,), count)
            starts.scatter_(0, torch.where(begins, group, count), torch.arange(count, device=keys.device))
            starts = starts[:count]
        sizes = starts.diff(append=starts.new_full((1,), count))
        first = order.index_select(0, starts.clamp(max=count - 1))
        return cls(order, torch.empty_like(group).scatter_(0, order, group), starts, sizes, first)


def _key_steps(dimensions: int, batch: int) -> list[int]:
    """Give what one step along each of the d + 1 coordinates adds to the key of a vertex.

    The coordinates are the key's digits, except the first, which follows from the others, as their sum is fixed. The
    lowest digit is the batch entry. A coordinate that exceeds the range of its digit wraps into the next one; for
    two vertices to have the same key, they would have to lie exactly so far apart. The last coordinate,
    which grows with the last feature alone, is the highest digit: vertices over positions (x, y) are then numbered row
    by row, as pixels are, and neighbours lie near each other in memory.
    """
    base = int((2**63 / batch) ** (1 / dimensions))
    return [0] + [batch * base**j for j in range(dimensions)]


def _key(origin: Tensor, rank: Tensor, steps: list[int]) -> Tensor:
    """Compute the keys (n,) of simplices: that of the vertex of remainder 0, plus the ranks, which fit in between."""
    sides = len(steps)
    key = origin.new_zeros(origin.shape[1], dtype=torch.int64)
    for coordinate, order, step in zip(origin, rank, steps, strict=True):
        key.add_(torch.add(order, coordinate, alpha=sides).long(), alpha=step)
    return key


def _vertex_keys(origin: Tensor, rank: Tensor, entry: Tensor, steps: list[int]) -> Tensor:
    """Compute the keys (d + 1, n) of the simplices' vertices with remainder 0, 1, ..., d.

    From each vertex to the next, every coordinate grows by 1, and the one of the highest rank left falls by d + 1.
    """
    ranked = torch.empty(rank.shape, dtype=torch.int64, device=rank.device)
    for order, step in zip(rank, steps, strict=True):
        ranked.scatter_(0, order.long()[None], step)
    moves = sum(steps) - len(steps) * ranked.flip(0)[:-1]
    return torch.cat([_key(origin, torch.zeros_like(rank), steps).add_(entry)[None], moves]).cumsum(0)


def _splat_table(simplices: _Groups, corners: _Groups, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List the points that touch each vertex and their weights, vertex after vertex, and where each vertex begins.

    A vertex's points are those of the simplices around it, and a simplex's points lie together in `simplices.order`.
    """
    sides, points = weights.shape
    # Where the points of each (corner, simplex) begin in d + 1 copies of the points sorted by simplex, and how many.
    copies = points * torch.arange(sides, dtype=torch.int32, device=weights.device)
    first = (simplices.starts.int() + copies[:, None]).flatten().index_select(0, corners.order)
    counts = simplices.sizes.int().repeat(sides).index_select(0, corners.order)
    # The positions of all these points, range after range.
    ends = F.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
    taken = (first - ends[:-1]).repeat_interleave(counts, output_size=weights.numel())
    taken += torch.arange(weights.numel(), dtype=torch.int32, device=weights.device)
    by_simplex = weights.index_select(1, simplices.order).flatten()
    return (
        simplices.order.int().repeat(sides).index_select(0, taken),
        by_simplex.index_select(0, taken),
        ends.index_select(0, F.pad(corners.starts, (0, 2), value=len(counts))),
    )


def _neighbours(keys: Tensor, steps: list[int]) -> Tensor:
    """Look up each vertex's neighbours along each direction, (d + 1, M + 1, 3), by ascending keys (M,)."""
    count = len(keys)
    own = torch.arange(count, dtype=torch.int32, device=keys.device)
    tables = torch.full((len(steps), count + 1, 3), count, dtype=torch.int32, device=keys.device)
    for table, step in zip(tables, steps, strict=True):
        # One step along a direction adds 1 to every coordinate and takes d + 1 from one. Whoever is found ahead of a
        # vertex has that vertex behind.
        sought = keys + (sum(steps) - len(steps) * step)
        found = _search(keys, sought).clamp_(max=count - 1)
        ahead = torch.where(keys.index_select(0, found) == sought, found, count)
        table[:-1, 0] = own
        table[:-1, 1] = ahead
        table[:, 2].scatter_(0, ahead, own)
    tables[:, -1] = count
    return tables


def _search(keys: Tensor, sought: Tensor) -> Tensor:
    """Count how many of ascending keys are smaller than each of those sought, which ascend as well."""
    # NumPy's search goes on from where the last one ended, which takes half as long.
    if keys.device.type == "cpu":
        return torch.from_numpy(np.searchsorted(keys.numpy(), sought.numpy()))
    return torch.searchsorted(keys, sought)
