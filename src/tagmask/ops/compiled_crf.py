"""Mean field of the dense CRF in compiled loops, for one image on one core of a CPU. Needs numba.

An iteration goes over the pixels once: each reads its vertices, takes the softmax, and adds it to the vertices of the
next iteration, so that no table is read twice, and nothing but the last result is written for each pixel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tagmask.ops import lanes
from tagmask.ops.compiled import loop
from tagmask.ops.compiled_lattice import make_tables, normalise
from tagmask.ops.lattice import colour_features, position_features

if TYPE_CHECKING:
    from tagmask.ops.crf import CrfParameters

PURPOSE = "the dense CRF"
_Tables = tuple[np.ndarray, np.ndarray, np.ndarray]
_POSITION, _COLOUR = 3, 6  # vertices that a pixel touches in the lattice over positions, and over positions and colours
# The pixels are taken in upright strips of so many columns: the vertices of one row are still in the nearest cache when
# the row below needs them.
_STRIP = 64
_LARGEST_SUM = np.float32(1e38)  # of exponentials; those that are larger are cut off
_NEVER = -1e30  # logit of the columns that only fill up a row


def mean_field(image: Tensor, unary: Tensor, parameters: CrfParameters, *, keep_positions: bool) -> Tensor | None:
    """Iterate the mean field of an image's dense CRF.

    Args:
        image: (H, W, 3) uint8, on the CPU.
        unary: (V, C, H * W) float32 logits of V sets of scores.
        parameters: kernels and iterations.
        keep_positions: keep the lattice over positions for the next image of this size.

    Returns:
        (V, C, H * W) float32 marginals; None where weights far above those of the papers, or scores that are no
        numbers, leave the range that these loops count on.
    """
    # A row of logits for each pixel, set after set, each filled up to a multiple of the lanes.
    height, width = image.shape[:2]
    sets, classes, pixels = unary.shape
    columns = -(-classes // lanes.COUNT) * lanes.COUNT
    planes = torch.full((sets, columns, pixels), _NEVER)
    torch.sub(unary, unary.amax(dim=1, keepdim=True), out=planes[:, :classes])
    rows = _strips(planes.view(-1, height, width))

    build = _position_tables if keep_positions else _position_tables.__wrapped__
    position = build(height, width, parameters.gaussian_sxy, parameters.gaussian_weight)
    features = colour_features(image.permute(2, 0, 1)[None], parameters.bilateral_sxy, parameters.bilateral_srgb)[0]
    colour = _tables(features.view(-1, height, width), parameters.bilateral_weight)

    one = (0,) if sets * columns == lanes.COUNT else ()
    flat = rows.view(-1).numpy()
    if not _iterate(flat, sets, sets * columns, one, position, colour, parameters.iterations):
        return None
    targets = planes.view(-1, height, width).split(_STRIP, dim=2)
    parts = rows.split([strip[0].numel() for strip in targets])
    for target, part in zip(targets, parts, strict=True):
        target.copy_(part.t().reshape(target.shape))
    return planes[:, :classes]


def _strips(planes: Tensor) -> Tensor:
    """Give planes (K, H, W) as rows (H * W, K) of pixels, one upright strip of the image after the other."""
    return torch.cat([strip.flatten(1).t() for strip in planes.split(_STRIP, dim=2)])


def prepare() -> None:
    """Compile everything that an image needs, or load what was compiled before."""
    from tagmask.ops.crf import PRESETS

    image = torch.zeros(2, 2, 3, dtype=torch.uint8)
    for sets in (1, 2):
        mean_field(image, torch.zeros(sets, 1, 4), PRESETS["cam"], keep_positions=False)


def _tables(features: Tensor, weight: float) -> _Tables:
    """Make the tables of the normalised filter over (d, H, W) features, times a weight; pixels as in `_strips`."""
    tables = make_tables(_strips(features).t().contiguous().numpy())
    normalise(*tables, float(weight))
    return tables


@lru_cache(maxsize=4)
def _position_tables(height: int, width: int, sxy: float, weight: float) -> _Tables:
    return _tables(position_features(height, width, sxy, torch.device("cpu")).view(-1, height, width), weight)


@loop
def _blur(values: np.ndarray, spare: np.ndarray, neighbours: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Blur rows of values along each direction; gives the blurred ones, and the array that is free again."""
    directions, count, _ = neighbours.shape
    for direction in range(directions):
        for vertex in range(count):
            ahead = np.int64(neighbours[direction, vertex, 0]) * row
            behind = np.int64(neighbours[direction, vertex, 1]) * row
            for column in range(0, row, lanes.COUNT):
                around = lanes.add(lanes.load(values, ahead + column), lanes.load(values, behind + column))
                own = lanes.load(values, vertex * row + column)
                lanes.store(spare, vertex * row + column, lanes.add_scaled(own, np.float32(0.5), around))
        values, spare = spare, values
    return values, spare


@loop
def _sweep(
    rows: np.ndarray, sets: int, row: int, one: tuple, first: bool, last: bool,
    vertices: np.ndarray, weights: np.ndarray, values: np.ndarray, next_values: np.ndarray,
    colour_vertices: np.ndarray, colour_weights: np.ndarray, colour_values: np.ndarray, next_colour_values: np.ndarray,
) -> bool:  # fmt: skip
    """Take each pixel from the vertices it reads to the vertices it gives to; the last time, write its marginals.

    `one` holds an entry where a row is a single group of lanes: the compiler then knows the length of every loop below.

    Returns:
        whether all exponentials stayed finite.
    """
    count = lanes.COUNT
    length = count if len(one) else row
    width = length if len(one) else row // sets
    exponentials = np.empty(length, np.float32)
    places, colour_places = np.empty(_POSITION, np.int64), np.empty(_COLOUR, np.int64)
    for pixel in range(len(rows) // length):
        start = pixel * length
        for k in range(_POSITION):
            places[k] = np.int64(vertices[pixel * _POSITION + k]) * length
        for k in range(_COLOUR):
            colour_places[k] = np.int64(colour_vertices[pixel * _COLOUR + k]) * length
        for begin in range(0, length, width):
            # Softmax of the logits and of what the vertices say. The largest logit is 0 and what comes from others is
            # not negative, so the exponentials cannot all vanish.
            sums = lanes.every(np.float32(0))
            for column in range(begin, begin + width, count):
                # Two sums, which the processor can take at the same time.
                energy, colour_energy = lanes.load(rows, start + column), lanes.every(np.float32(0))
                if not first:
                    for k in range(_POSITION):
                        told = lanes.load(values, places[k] + column)
                        energy = lanes.add_scaled(energy, weights[pixel * _POSITION + k], told)
                    for k in range(_COLOUR):
                        told = lanes.load(colour_values, colour_places[k] + column)
                        colour_energy = lanes.add_scaled(colour_energy, colour_weights[pixel * _COLOUR + k], told)
                exponential = lanes.exp(lanes.add(energy, colour_energy))
                lanes.store(exponentials, column, exponential)
                sums = lanes.add(sums, exponential)
            received = lanes.total(sums)
            if not 0 < received < _LARGEST_SUM:
                return False
            fraction = np.float32(1) / received
            # To the vertices, or to the result.
            for column in range(begin, begin + width, count):
                marginal = lanes.scaled(fraction, lanes.load(exponentials, column))
                if last:
                    lanes.store(rows, start + column, marginal)
                else:
                    for k in range(_POSITION):
                        place, weight = places[k] + column, weights[pixel * _POSITION + k]
                        given = lanes.add_scaled(lanes.load(next_values, place), weight, marginal)
                        lanes.store(next_values, place, given)
                    for k in range(_COLOUR):
                        place, weight = colour_places[k] + column, colour_weights[pixel * _COLOUR + k]
                        given = lanes.add_scaled(lanes.load(next_colour_values, place), weight, marginal)
                        lanes.store(next_colour_values, place, given)
    return True


@loop
def _iterate(
    rows: np.ndarray, sets: int, row: int, one: tuple, position: _Tables, colour: _Tables, iterations: int
) -> bool:
    """Run the iterations; the logits in `rows` become marginals, if it gives True."""
    neighbours, colour_neighbours = position[2], colour[2]
    vertices, weights = position[0].ravel(), position[1].ravel()
    colour_vertices, colour_weights = colour[0].ravel(), colour[1].ravel()
    # The last row, of the vertex that no point touches, stays 0.
    values = np.zeros((neighbours.shape[1] + 1) * row, np.float32)
    colour_values = np.zeros((colour_neighbours.shape[1] + 1) * row, np.float32)
    next_values, next_colour_values = np.zeros_like(values), np.zeros_like(colour_values)
    for iteration in range(iterations + 1):
        finite = _sweep(
            rows, sets, row, one, iteration == 0, iteration == iterations, vertices, weights, values, next_values,
            colour_vertices, colour_weights, colour_values, next_colour_values,
        )  # fmt: skip
        if not finite:
            return False
        if iteration < iterations:
            values, next_values = _blur(next_values, values, neighbours, row)
            colour_values, next_colour_values = _blur(next_colour_values, colour_values, colour_neighbours, row)
            next_values[:] = 0
            next_colour_values[:] = 0
    return True


LARGEST_LOOP = _iterate
