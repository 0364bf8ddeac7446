"""The objects of the synthetic set, drawn from coloured polygons: a boat, a train, a cow, ..."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tagmask.data.synthetic.contexts import smooth_noise

Array = np.ndarray
Colour = tuple[float, float, float]
SUPERSAMPLING = 3

BLACK: Colour = (0.07, 0.07, 0.08)
GLASS: Colour = (0.10, 0.16, 0.26)
WHITE: Colour = (0.95, 0.94, 0.91)


@dataclass(frozen=True)
class Part:
    """One polygon of an object.

    Attributes:
        points: (P, 2) x, y in heights of the object, y downwards.
        colour: RGB in [0, 1].
        second: the colour of blotches or stripes on it; None for a plain part.
        stripes: stripes a height; 0 for blotches.
    """

    points: Array
    colour: Colour
    second: Colour | None = None
    stripes: float = 0.0


@dataclass(frozen=True)
class Thing:
    """A class of objects: its name, the context it is mostly met in, its main colours and its parts."""

    name: str
    context: str
    colours: tuple[Colour, ...]
    parts: Callable[[Colour], list[Part]]


def polygon(*points: tuple[float, float]) -> Array:
    """Make a polygon of its corners."""
    return np.array(points, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Array:
    """Make an upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, width: float, height: float) -> Array:
    """Make an ellipse by its centre and its half axes."""
    angles = np.linspace(0.0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def boat(main: Colour) -> list[Part]:
    """Draw a boat: a hull of the main colour under two sails."""
    return [
        Part(box(0.50, 0.01, 0.54, 0.70), (0.25, 0.16, 0.10)),
        Part(polygon((0.57, 0.04), (0.60, 0.64), (0.97, 0.64)), (0.97, 0.93, 0.78), (0.88, 0.55, 0.20), 5.0),
        Part(polygon((0.47, 0.10), (0.47, 0.64), (0.10, 0.64)), (0.97, 0.93, 0.78)),
        Part(polygon((0.0, 0.70), (1.08, 0.68), (0.90, 0.98), (0.18, 0.98)), main),
        Part(polygon((0.02, 0.735), (1.05, 0.72), (1.02, 0.78), (0.05, 0.79)), WHITE),
    ]


def train(main: Colour) -> list[Part]:
    """Draw a train: two coaches of the main colour with a red line and dark windows."""
    windows = [Part(box(x, 0.24, x + 0.24, 0.48), GLASS) for x in (0.10, 0.42, 0.74, 1.36, 1.68)]
    wheels = [Part(ellipse(x, 0.88, 0.11, 0.11), BLACK) for x in (0.22, 0.52, 0.82, 1.42, 1.72, 2.02)]
    return [
        Part(box(0.06, 0.72, 2.32, 0.84), (0.17, 0.16, 0.18)),
        *wheels,
        Part(box(0.98, 0.2, 1.3, 0.78), BLACK),
        Part(box(0.0, 0.10, 1.07, 0.78), main),
        Part(polygon((1.21, 0.10), (2.02, 0.10), (2.26, 0.44), (2.38, 0.78), (1.21, 0.78)), main),
        Part(polygon((0.03, 0.02), (1.04, 0.02), (1.07, 0.11), (0.0, 0.11)), (0.35, 0.35, 0.38)),
        Part(polygon((1.24, 0.02), (1.92, 0.02), (2.04, 0.11), (1.21, 0.11)), (0.35, 0.35, 0.38)),
        Part(box(0.0, 0.57, 1.07, 0.67), (0.70, 0.10, 0.12)),
        Part(polygon((1.21, 0.57), (2.31, 0.57), (2.34, 0.67), (1.21, 0.67)), (0.70, 0.10, 0.12)),
        *windows,
        Part(polygon((2.0, 0.18), (2.06, 0.18), (2.23, 0.44), (2.0, 0.44)), GLASS),
        Part(ellipse(2.29, 0.72, 0.04, 0.04), (1.0, 0.98, 0.75)),
    ]


def cow(main: Colour) -> list[Part]:
    """Draw a white cow with blotches of the main colour."""
    return [
        Part(polygon((0.10, 0.24), (0.05, 0.30), (0.02, 0.70), (0.07, 0.72), (0.12, 0.34)), main),
        *[Part(box(x, 0.60, x + 0.11, 0.97), WHITE, main) for x in (0.15, 0.32, 0.80, 0.96)],
        *[Part(box(x, 0.92, x + 0.11, 1.0), BLACK) for x in (0.15, 0.32, 0.80, 0.96)],
        Part(ellipse(0.45, 0.70, 0.10, 0.08), (0.93, 0.62, 0.62)),
        Part(
            polygon(
                (0.08, 0.26),
                (0.16, 0.20),
                (0.95, 0.20),
                (1.12, 0.28),
                (1.10, 0.64),
                (0.98, 0.72),
                (0.22, 0.71),
                (0.10, 0.62),
            ),
            WHITE,
            main,
        ),
        Part(polygon((0.98, 0.22), (1.18, 0.08), (1.26, 0.34), (1.08, 0.56)), WHITE, main),
        Part(polygon((1.12, 0.10), (1.28, 0.08), (1.46, 0.34), (1.40, 0.44), (1.20, 0.36)), main),
        Part(ellipse(1.42, 0.39, 0.09, 0.07), (0.93, 0.62, 0.62)),
        Part(polygon((1.14, 0.12), (1.08, 0.0), (1.18, 0.08)), (0.9, 0.85, 0.7)),
        Part(polygon((1.25, 0.09), (1.28, 0.0), (1.31, 0.12)), (0.9, 0.85, 0.7)),
        Part(ellipse(1.27, 0.20, 0.022, 0.022), WHITE),
    ]


def aeroplane(main: Colour) -> list[Part]:
    """Draw a silver aeroplane with fin, belly and engine of the main colour."""
    silver = (0.66, 0.67, 0.71)
    windows = [Part(ellipse(0.62 + 0.13 * place, 0.47, 0.032, 0.032), GLASS) for place in range(8)]
    return [
        Part(polygon((0.95, 0.46), (0.72, 0.06), (0.86, 0.06), (1.28, 0.46)), (0.42, 0.43, 0.48)),
        Part(polygon((0.04, 0.40), (0.08, 0.0), (0.24, 0.0), (0.50, 0.42)), main),
        Part(
            polygon(
                (0.0, 0.42),
                (0.20, 0.37),
                (1.70, 0.37),
                (1.90, 0.43),
                (2.02, 0.54),
                (1.86, 0.62),
                (0.60, 0.64),
                (0.10, 0.50),
            ),
            silver,
        ),
        Part(polygon((0.05, 0.50), (1.99, 0.56), (1.86, 0.62), (0.60, 0.64)), main),
        *windows,
        Part(polygon((1.76, 0.40), (1.86, 0.42), (1.93, 0.48), (1.76, 0.48)), GLASS),
        Part(polygon((0.90, 0.58), (1.30, 0.58), (0.74, 1.0), (0.56, 1.0)), (0.48, 0.49, 0.54)),
        Part(box(0.88, 0.74, 1.14, 0.86), main),
        Part(polygon((0.06, 0.46), (0.34, 0.46), (0.14, 0.62), (0.0, 0.62)), (0.48, 0.49, 0.54)),
    ]


def car(main: Colour) -> list[Part]:
    """Draw a car: a body of the main colour on two wheels."""
    wheels = [
        part
        for x in (0.48, 1.55)
        for part in (Part(ellipse(x, 0.78, 0.22, 0.22), BLACK), Part(ellipse(x, 0.78, 0.1, 0.1), (0.75, 0.75, 0.78)))
    ]
    return [
        Part(polygon((0.42, 0.42), (0.64, 0.04), (1.28, 0.02), (1.62, 0.42)), main),
        Part(polygon((0.52, 0.42), (0.68, 0.11), (0.94, 0.11), (0.94, 0.42)), (0.62, 0.80, 0.88)),
        Part(polygon((1.01, 0.42), (1.01, 0.11), (1.24, 0.10), (1.48, 0.42)), (0.62, 0.80, 0.88)),
        Part(polygon((0.03, 0.44), (0.30, 0.38), (1.62, 0.38), (2.0, 0.52), (2.05, 0.80), (0.0, 0.80)), main),
        Part(box(0.0, 0.73, 2.05, 0.82), (0.16, 0.16, 0.18)),
        Part(box(0.98, 0.44, 1.14, 0.48), BLACK),
        Part(ellipse(1.97, 0.58, 0.07, 0.06), (1.0, 0.95, 0.6)),
        *wheels,
    ]


def penguin(main: Colour) -> list[Part]:
    """Draw a dark penguin with a white belly, orange beak and feet."""
    orange = (0.97, 0.55, 0.08)
    return [
        Part(ellipse(0.22, 0.955, 0.12, 0.045), orange),
        Part(ellipse(0.46, 0.955, 0.12, 0.045), orange),
        Part(ellipse(0.32, 0.58, 0.28, 0.38), main),
        Part(ellipse(0.37, 0.62, 0.19, 0.31), WHITE),
        Part(ellipse(0.36, 0.17, 0.18, 0.17), main),
        Part(ellipse(0.42, 0.19, 0.10, 0.10), WHITE),
        Part(polygon((0.50, 0.14), (0.70, 0.21), (0.50, 0.25)), orange),
        Part(ellipse(0.42, 0.16, 0.03, 0.03), BLACK),
        Part(ellipse(0.42, 0.33, 0.13, 0.035), (0.98, 0.80, 0.20)),
        Part(polygon((0.10, 0.40), (0.20, 0.38), (0.16, 0.78), (0.02, 0.70)), main),
    ]


def cactus(main: Colour) -> list[Part]:
    """Draw a ribbed cactus with two arms and pink flowers."""
    light = (0.55, 0.80, 0.42)
    return [
        Part(box(0.08, 0.48, 0.35, 0.60), main, light, 13.0),
        Part(ellipse(0.11, 0.40, 0.09, 0.20), main, light, 13.0),
        Part(box(0.45, 0.58, 0.72, 0.70), main, light, 13.0),
        Part(ellipse(0.70, 0.46, 0.09, 0.24), main, light, 13.0),
        Part(ellipse(0.40, 0.22, 0.15, 0.18), main, light, 13.0),
        Part(box(0.25, 0.20, 0.55, 1.0), main, light, 13.0),
        *[Part(ellipse(x, y, 0.07, 0.055), (0.95, 0.25, 0.55)) for x, y in ((0.40, 0.05), (0.11, 0.2), (0.70, 0.22))],
    ]


def tent(main: Colour) -> list[Part]:
    """Draw a striped tent with a dark entrance."""
    shade = (0.7 * main[0], 0.7 * main[1], 0.7 * main[2])
    return [
        Part(polygon((0.60, 0.05), (1.15, 0.12), (1.55, 0.97), (0.98, 1.0)), shade),
        Part(polygon((0.60, 0.05), (1.02, 1.0), (0.02, 1.0)), main, WHITE, 5.0),
        Part(polygon((0.58, 0.35), (0.76, 1.0), (0.34, 1.0)), (0.13, 0.10, 0.12)),
        Part(box(0.585, 0.0, 0.625, 0.12), (0.35, 0.22, 0.12)),
    ]


THINGS = (
    Thing("boat", "water", ((0.45, 0.20, 0.10), (0.50, 0.10, 0.12), (0.36, 0.22, 0.14)), boat),
    Thing("train", "rails", ((0.95, 0.78, 0.12), (0.97, 0.66, 0.10), (0.90, 0.84, 0.30)), train),
    Thing("cow", "grass", ((0.08, 0.07, 0.07), (0.25, 0.13, 0.07), (0.14, 0.09, 0.07)), cow),
    Thing("aeroplane", "sky", ((0.80, 0.10, 0.30), (0.62, 0.08, 0.42), (0.88, 0.20, 0.20)), aeroplane),
    Thing("car", "road", ((0.86, 0.10, 0.10), (0.10, 0.55, 0.30), (0.18, 0.25, 0.80)), car),
    Thing("penguin", "snow", ((0.07, 0.08, 0.12), (0.11, 0.12, 0.18), (0.05, 0.05, 0.06)), penguin),
    Thing("cactus", "sand", ((0.10, 0.42, 0.18), (0.16, 0.50, 0.24), (0.08, 0.36, 0.26)), cactus),
    Thing("tent", "forest", ((0.95, 0.45, 0.10), (0.15, 0.60, 0.85), (0.85, 0.20, 0.50)), tent),
)
"""The classes in the order in which a set of K classes takes them."""


@dataclass(frozen=True)
class Sprite:
    """A drawn object: `colours` (h, w, 3) in [0, 1] and `coverage` (h, w) in [0, 1], the fraction of a pixel."""

    colours: Array
    coverage: Array


def pose(parts: list[Part], angle: float, flipped: bool) -> tuple[list[Array], Array]:
    """Turn the parts' polygons by `angle` (radians), flip them, move them to start at 0; and their extent (x, y)."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = [(part.points * (-1.0 if flipped else 1.0, 1.0)) @ turn for part in parts]
    corners = np.concatenate(turned)
    lowest = corners.min(axis=0)
    return [points - lowest for points in turned], corners.max(axis=0) - lowest


def draw_parts(polygons: list[Array], extent: Array, scale: float) -> Array:
    """Find the number (from 1) of the topmost part at each point, 0 outside: uint8, `SUPERSAMPLING` points a pixel."""
    width, height = (int(np.ceil(length * scale)) * SUPERSAMPLING for length in extent)
    canvas = Image.new("L", (max(width, SUPERSAMPLING), max(height, SUPERSAMPLING)))
    brush = ImageDraw.Draw(canvas)
    for number, points in enumerate(polygons, start=1):
        brush.polygon([tuple(point) for point in points * (scale * SUPERSAMPLING)], fill=number)
    return np.asarray(canvas)


@functools.cache
def area_of_unit(thing: Thing) -> float:
    """Measure the object's area in squares of its upright height."""
    polygons, extent = pose(thing.parts(thing.colours[0]), 0.0, flipped=False)
    scale = 100.0
    return float((draw_parts(polygons, extent, scale) > 0).sum()) / (scale * SUPERSAMPLING) ** 2


def draw(thing: Thing, generator: np.random.Generator, area: float, limits: tuple[float, float]) -> Sprite:
    """Draw one object with random pose, colours, texture and shading.

    Args:
        thing: its class.
        generator: all chance comes from it.
        area: wanted area in pixels.
        limits: greatest height and width in pixels; the object shrinks to fit.
    """
    parts = thing.parts(thing.colours[generator.integers(len(thing.colours))])
    polygons, extent = pose(parts, generator.uniform(-0.2, 0.2), flipped=bool(generator.random() < 0.5))
    scale = min(np.sqrt(area / area_of_unit(thing)), limits[0] / extent[1], limits[1] / extent[0])
    numbers = draw_parts(polygons, extent, scale)
    inside = (numbers > 0).astype(np.float32)
    coverage = pool(inside)
    grain = grain_of(generator, coverage.shape, scale)
    summed = pool(paint(parts, numbers, generator, grain, scale) * inside[..., None])
    light = np.linspace(generator.uniform(1.02, 1.18), generator.uniform(0.72, 0.95), len(coverage), dtype=np.float32)
    shading = light[:, None] * (0.94 + 0.12 * grain)
    return Sprite(summed * (shading / np.maximum(coverage, 1e-6))[..., None], coverage)


def pool(points: Array) -> Array:
    """Average each pixel's points: (h, w, ...) from `SUPERSAMPLING` times as many rows and columns."""
    rows = np.asarray(sum(points[start::SUPERSAMPLING] for start in range(SUPERSAMPLING)))
    return np.asarray(sum(rows[:, start::SUPERSAMPLING] for start in range(SUPERSAMPLING))) / SUPERSAMPLING**2


def grain_of(generator: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """Make smooth noise over an object's `shape` in pixels, about 4.5 cells a height of `scale` pixels."""
    longest = max(shape)
    cells = longest / scale * 4.5
    return smooth_noise(generator, longest, cells, cells)[: shape[0], : shape[1]]


def paint(parts: list[Part], numbers: Array, generator: np.random.Generator, grain: Array, scale: float) -> Array:
    """Colour the points of `numbers`: plain, blotched where the grain is high, or striped."""
    first = np.array([part.colour for part in parts])
    second = np.array([part.second or part.colour for part in parts])
    shift = generator.normal(0.0, 0.025, first.shape) + generator.normal(0.0, 0.04)
    tables = np.zeros((2, len(parts) + 1, 3), dtype=np.float32)
    tables[:, 1:] = np.stack([first, second]) + shift
    turned = (grain > 0.52).repeat(SUPERSAMPLING, axis=0).repeat(SUPERSAMPLING, axis=1)
    if any(part.stripes for part in parts):
        across = np.arange(numbers.shape[1], dtype=np.float32) / (scale * SUPERSAMPLING) + generator.random()
        stripes = np.array([0.0, *(part.stripes for part in parts)], dtype=np.float32)[numbers]
        turned = np.where(stripes > 0, (across * stripes) % 1.0 > 0.55, turned)
    return tables[turned.astype(np.uint8), numbers]
