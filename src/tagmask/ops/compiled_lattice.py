"""The tables of a permutohedral lattice by compiled loops, point after point, for one image on a CPU.

What the steps are, and why, stands in `lattice`: these loops make the same simplices, weights and keys. Where tensor
code has to sort in order to find equal keys, a loop looks each up in a table of hashes, and numbers a vertex when it
first meets it: points that lie near each other then have vertices near each other in memory. Needs numba.
"""

from __future__ import annotations

import math

import numpy as np

from tagmask.ops.compiled import loop

_CHUNK = 256  # points handled together: long enough for the vector units, short enough for the nearest cache
_EMPTY = np.int64(-(2**63))  # of places in a table of hashes; no key of a point that exists
_SPREAD = np.int64(-7046029254386353131)  # 2^64 divided by the golden ratio, odd: nearby keys land far apart


@loop
def _place(keys: np.ndarray, key: np.int64) -> np.int64:
    """Find where a key stands in a table of hashes, or the empty place where it belongs."""
    mask = len(keys) - 1
    mixed = key * _SPREAD
    place = (mixed ^ (mixed >> 32)) & mask
    while keys[place] != key and keys[place] != _EMPTY:
        place = (place + 1) & mask
    return place


@loop
def _grown(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move a table of hashes into one four times as large."""
    larger = np.full(4 * len(keys), _EMPTY)
    moved = np.empty(len(larger), np.int32)
    for old in range(len(keys)):
        if keys[old] != _EMPTY:
            place = _place(larger, keys[old])
            larger[place] = keys[old]
            moved[place] = numbers[old]
    return larger, moved


@loop
def _doubled(rows: np.ndarray) -> np.ndarray:
    """Copy rows into the first half of an array twice as long."""
    longer = np.empty((2 * rows.shape[0], rows.shape[1]), rows.dtype)
    longer[: rows.shape[0]] = rows
    return longer


@loop
def _enclose(features: np.ndarray, start: int, count: int, origin, rank, offset, falling) -> None:
    """Find the simplices around `count` points: origins in units of d + 1, ranks, and sorted offsets, (d + 1, n)."""
    dimensions = len(features)
    sides = dimensions + 1
    # Embed the points in the plane of d + 1 coordinates whose sum is 0.
    offset[0, :count] = 0
    for j in range(dimensions, 0, -1):
        scale = np.float32(math.sqrt(2 / 3) / math.sqrt(j * (j + 1)))
        for q in range(count):
            scaled = features[j - 1, start + q] * scale
            offset[j, q] = offset[0, q] - np.float32(j) * scaled
            offset[0, q] += scaled
    # Round to the nearest vertex of remainder 0. `excess`, kept in falling[0], says how far that leaves the plane.
    falling[0, :count] = 0
    for j in range(sides):
        for q in range(count):
            nearest = np.rint(offset[j, q])
            origin[j, q] = nearest
            offset[j, q] -= nearest
            falling[0, q] += nearest
    for j in range(sides):
        for q in range(count):
            rank[j, q] = falling[0, q]
    # Rank the coordinates by their offsets, and bring those beyond the ends back into the plane.
    for i in range(sides):
        for j in range(i + 1, sides):
            for q in range(count):
                behind = np.float32(1) if offset[i, q] < offset[j, q] else np.float32(0)
                rank[i, q] += behind
                rank[j, q] += np.float32(1) - behind
    for j in range(sides):
        for q in range(count):
            low = np.float32(1) if rank[j, q] < 0 else np.float32(0)
            high = np.float32(1) if rank[j, q] > dimensions else np.float32(0)
            origin[j, q] += low - high
            offset[j, q] -= low - high
            rank[j, q] += np.float32(sides) * (low - high)
    # Sort the offsets, the largest first: their ranks say where each belongs.
    for j in range(sides):
        for q in range(count):
            falling[np.int64(rank[j, q]), q] = offset[j, q]


@loop
def make_tables(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place points in a lattice.

    Args:
        features: (d, N) float32 positions in units of the Gaussian's standard deviation.

    Returns:
        (N, d + 1) int32 vertices of each point, (N, d + 1) float32 barycentric weights, and (d + 1, M, 2) int32
        neighbours of the M vertices along each direction; M where there is none.
    """
    dimensions, points = features.shape
    sides = dimensions + 1
    vertices = np.empty((points, sides), np.int32)
    weights = np.empty((points, sides), np.float32)

    # What one step along each coordinate adds to a key, as in `lattice`.
    steps = np.zeros(sides, np.int64)
    steps[1] = 1
    for j in range(2, sides):
        steps[j] = steps[j - 1] * np.int64((2.0**63) ** (1 / dimensions))
    all_steps = steps.sum()

    # Simplices and vertices that were met, by their keys.
    simplex_keys, simplex_numbers = np.full(2**12, _EMPTY), np.empty(2**12, np.int32)
    simplex_vertices, simplex_count = np.empty((2**10, sides), np.int32), 0
    vertex_keys, vertex_numbers = np.full(2**12, _EMPTY), np.empty(2**12, np.int32)
    keys, vertex_count = np.empty((2**10, 1), np.int64), 0

    origin, rank = np.empty((sides, _CHUNK), np.float32), np.empty((sides, _CHUNK), np.float32)
    offset, falling = np.empty((sides, _CHUNK), np.float32), np.empty((sides, _CHUNK), np.float32)
    last_key, simplex = _EMPTY, 0
    for start in range(0, points, _CHUNK):
        count = min(_CHUNK, points - start)
        _enclose(features, start, count, origin, rank, offset, falling)
        for q in range(count):
            # The weights are differences of neighbouring offsets.
            point = start + q
            weights[point, 0] = falling[dimensions, q] + np.float32(1) - falling[0, q]
            for k in range(1, sides):
                weights[point, k] = falling[dimensions - k, q] - falling[dimensions - k + 1, q]
            # The simplex; neighbours often lie in the same.
            key = np.int64(0)
            for j in range(1, sides):
                key += (np.int64(origin[j, q]) * sides + np.int64(rank[j, q])) * steps[j]
            if key != last_key:
                last_key = key
                place = _place(simplex_keys, key)
                if simplex_keys[place] == _EMPTY:
                    # One not met before: number its vertices.
                    simplex_keys[place], simplex_numbers[place] = key, simplex_count
                    if simplex_count == len(simplex_vertices):
                        simplex_vertices = _doubled(simplex_vertices)
                    vertex_key = np.int64(0)
                    for j in range(1, sides):
                        vertex_key += np.int64(origin[j, q]) * sides * steps[j]
                    for k in range(sides):
                        spot = _place(vertex_keys, vertex_key)
                        if vertex_keys[spot] == _EMPTY:
                            vertex_keys[spot], vertex_numbers[spot] = vertex_key, vertex_count
                            if vertex_count == len(keys):
                                keys = _doubled(keys)
                            keys[vertex_count, 0] = vertex_key
                            vertex_count += 1
                        simplex_vertices[simplex_count, k] = vertex_numbers[spot]
                        # From each vertex to the next, the coordinate of the highest rank left falls by d + 1.
                        for j in range(sides):
                            if rank[j, q] == dimensions - k:
                                vertex_key += all_steps - sides * steps[j]
                    simplex_count += 1
                    if 2 * (vertex_count + sides) > len(vertex_keys):
                        vertex_keys, vertex_numbers = _grown(vertex_keys, vertex_numbers)
                    if 2 * simplex_count > len(simplex_keys):
                        simplex_keys, simplex_numbers = _grown(simplex_keys, simplex_numbers)
                    place = _place(simplex_keys, key)
                simplex = simplex_numbers[place]
            for k in range(sides):
                vertices[point, k] = simplex_vertices[simplex, k]

    # Whoever is found ahead of a vertex has that vertex behind.
    neighbours = np.full((sides, vertex_count, 2), vertex_count, np.int32)
    for j in range(sides):
        for vertex in range(vertex_count):
            sought = keys[vertex, 0] + all_steps - sides * steps[j]
            place = _place(vertex_keys, sought)
            if vertex_keys[place] == sought:
                ahead = vertex_numbers[place]
                neighbours[j, vertex, 0] = ahead
                neighbours[j, ahead, 1] = vertex
    return vertices, weights, neighbours


@loop
def normalise(vertices: np.ndarray, weights: np.ndarray, neighbours: np.ndarray, weight: float) -> None:
    """Scale a lattice's weights so that its filter, rows and columns divided by the root of its row sums, is `weight`.

    The filter's gain, 1 / (1 + 2^-d), is divided between the way in and the way out, so that both have one table.
    """
    points, sides = vertices.shape
    gain = np.float32(1 / (1 + 2.0 ** -(sides - 1)))
    # The row sums are what the filter makes of ones.
    values, spare = np.zeros(neighbours.shape[1] + 1, np.float32), np.zeros(neighbours.shape[1] + 1, np.float32)
    for point in range(points):
        for k in range(sides):
            values[vertices[point, k]] += weights[point, k]
    for j in range(sides):
        for vertex in range(neighbours.shape[1]):
            around = values[neighbours[j, vertex, 0]] + values[neighbours[j, vertex, 1]]
            spare[vertex] = values[vertex] + np.float32(0.5) * around
        values, spare = spare, values
    for point in range(points):
        row_sum = np.float32(0)
        for k in range(sides):
            row_sum += weights[point, k] * values[vertices[point, k]]
        factor = np.float32(math.sqrt(weight * gain / (row_sum * gain + np.float32(1e-20))))
        for k in range(sides):
            weights[point, k] *= factor
