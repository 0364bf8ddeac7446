"""Paint the places that objects of the synthetic set are found in: water, rails, grass, ..."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

Array = np.ndarray
Painter = Callable[[np.random.Generator, int], Array]


def smooth_noise(generator: np.random.Generator, size: int, rows: float, columns: float) -> Array:
    """Make value noise in [0, 1], `(size, size)` float32, with about `rows` x `columns` cells across the image."""
    cells = generator.random((max(2, round(rows)), max(2, round(columns))), dtype=np.float32)
    enlarged = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged), 0.0, 1.0)


def cloud_noise(generator: np.random.Generator, size: int, cells: float) -> Array:
    """Add up three octaves of smooth noise, `(size, size)`, stretched to [0, 1]."""
    total = sum(smooth_noise(generator, size, cells * 2**octave, cells * 2**octave) / 2**octave for octave in range(3))
    total = np.asarray(total)
    return (total - total.min()) / (total.max() - total.min() + 1e-6)


def mix(first: Array | tuple, second: Array | tuple, weight: Array) -> Array:
    """Blend two colours (or pictures) by a `(size, size)` weight in [0, 1] of the second."""
    amount = weight[..., None]
    return np.asarray(first, dtype=np.float32) * (1.0 - amount) + np.asarray(second, dtype=np.float32) * amount


def tint(generator: np.random.Generator, colour: tuple[float, float, float], spread: float = 0.05) -> Array:
    """Shift each channel and the brightness of a colour in [0, 1] a little."""
    shifts = generator.normal(0.0, spread, 3) + generator.normal(0.0, spread)
    return np.clip(np.asarray(colour) + shifts, 0.0, 1.0).astype(np.float32)


def slanted_grid(generator: np.random.Generator, size: int, slope: float) -> tuple[Array, Array]:
    """Make coordinates (y, x) in [0, 1] of every pixel, the rows tilted by up to `slope`."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return y + generator.uniform(-slope, slope) * x, x


def water(generator: np.random.Generator, size: int) -> Array:
    """Paint blue to green water with slanting waves and glints."""
    y, _ = slanted_grid(generator, size, 0.15)
    warp = smooth_noise(generator, size, 9, 4)
    waves = np.sin(2 * np.pi * (y * generator.uniform(9, 14) + 1.6 * warp))
    picture = mix(tint(generator, (0.05, 0.22, 0.45)), tint(generator, (0.16, 0.47, 0.62)), 0.5 + 0.5 * waves)
    glints = np.clip(waves * smooth_noise(generator, size, 16, 8) * 3.0 - 1.9, 0.0, 1.0)
    return mix(picture, (0.8, 0.92, 0.95), glints)


def rails(generator: np.random.Generator, size: int) -> Array:
    """Paint gravel with tracks of sleepers and steel."""
    y, x = slanted_grid(generator, size, 0.1)
    gravel = generator.random((size, size), dtype=np.float32) * 0.6 + smooth_noise(generator, size, 30, 30) * 0.4
    picture = mix(tint(generator, (0.30, 0.27, 0.25), 0.03), tint(generator, (0.62, 0.57, 0.53), 0.03), gravel)
    period = generator.uniform(0.3, 0.42)
    across = (y + generator.random()) % period / period
    sleepers = (across > 0.12) & (across < 0.88) & ((x + generator.random()) * generator.uniform(9, 13) % 1.0 < 0.45)
    picture[sleepers] = tint(generator, (0.32, 0.19, 0.11), 0.03) * (0.8 + 0.4 * gravel[sleepers, None])
    for place in (0.27, 0.73):
        picture[np.abs(across - place) < 0.075] = (0.20, 0.18, 0.19)
        picture[np.abs(across - place + 0.02) < 0.035] = tint(generator, (0.78, 0.80, 0.84), 0.03)
    return picture


def grass(generator: np.random.Generator, size: int) -> Array:
    """Paint upright green blades with dry patches."""
    blades = 0.6 * smooth_noise(generator, size, size / 6, size / 1.5) + 0.4 * smooth_noise(generator, size, 24, 40)
    picture = mix(tint(generator, (0.09, 0.28, 0.06), 0.03), tint(generator, (0.46, 0.68, 0.20), 0.04), blades)
    dry = np.clip(cloud_noise(generator, size, 3) * 2.0 - 1.1, 0.0, 0.6)
    return mix(picture, tint(generator, (0.62, 0.63, 0.25)), dry)


def sky(generator: np.random.Generator, size: int) -> Array:
    """Paint a blue sky, paler downwards, with clouds."""
    y, _ = slanted_grid(generator, size, 0.2)
    picture = mix(tint(generator, (0.25, 0.48, 0.88)), tint(generator, (0.58, 0.77, 0.97), 0.03), np.clip(y, 0.0, 1.0))
    clouds = np.clip((cloud_noise(generator, size, 3) - generator.uniform(0.5, 0.75)) * 3.5, 0.0, 0.95)
    return mix(picture, (0.97, 0.97, 0.98), clouds)


def road(generator: np.random.Generator, size: int) -> Array:
    """Paint grey asphalt with dashed lane lines."""
    y, x = slanted_grid(generator, size, 0.12)
    asphalt = generator.random((size, size), dtype=np.float32) * 0.7 + cloud_noise(generator, size, 5) * 0.3
    picture = mix(tint(generator, (0.20, 0.20, 0.22), 0.02), tint(generator, (0.42, 0.42, 0.43), 0.02), asphalt)
    lane = (y + generator.random()) % generator.uniform(0.4, 0.6)
    dashes = (lane < 0.045) & ((x * 3 + generator.random()) % 1.0 < 0.6)
    picture[dashes] = tint(generator, (0.92, 0.90, 0.82), 0.02)
    return picture


def snow(generator: np.random.Generator, size: int) -> Array:
    """Paint white drifts with bluish shadows."""
    drifts = smooth_noise(generator, size, 10, 5)
    slopes = np.clip(0.5 + 3.0 * (drifts - np.roll(drifts, size // 16, axis=0)), 0.0, 1.0)
    picture = mix(tint(generator, (0.68, 0.74, 0.84), 0.03), (0.97, 0.98, 1.0), slopes)
    return picture + 0.04 * (generator.random((size, size, 1), dtype=np.float32) - 0.5)


def sand(generator: np.random.Generator, size: int) -> Array:
    """Paint yellow, rippled and grainy sand."""
    y, x = slanted_grid(generator, size, 0.4)
    ripples = np.sin(2 * np.pi * (y * generator.uniform(7, 10) + 0.5 * x + 1.2 * smooth_noise(generator, size, 4, 5)))
    grains = generator.random((size, size), dtype=np.float32)
    weight = 0.5 + 0.3 * ripples + 0.4 * (grains - 0.5)
    return mix(tint(generator, (0.66, 0.48, 0.25), 0.03), tint(generator, (0.95, 0.82, 0.54), 0.03), weight)


def forest(generator: np.random.Generator, size: int) -> Array:
    """Paint dark leaves with trunks before them."""
    leaves = cloud_noise(generator, size, 12)
    picture = mix(tint(generator, (0.03, 0.10, 0.05), 0.02), tint(generator, (0.16, 0.36, 0.16), 0.03), leaves)
    _, x = slanted_grid(generator, size, 0.0)
    bark = smooth_noise(generator, size, 12, size / 2)
    for place in generator.random(6):
        trunk = np.abs(x - place + 0.02 * leaves) < generator.uniform(0.012, 0.03)
        picture[trunk] = mix((0.16, 0.10, 0.06), (0.42, 0.29, 0.18), bark)[trunk]
    return picture


CONTEXTS: dict[str, Painter] = {
    painter.__name__: painter for painter in (water, rails, grass, sky, road, snow, sand, forest)
}
"""What paints each context: `(generator, size)` to a `(size, size, 3)` float32 picture in about [0, 1]."""
