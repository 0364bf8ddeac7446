"""Photographs on their way to the network: opened in threads, made smaller at once, and never too many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.images import image_size, open_image, shrunk
from tagmask.errors import TagmaskError
from tagmask.recipes.load import InferenceConfig

PIXELS_AHEAD = 64_000_000  # 3 bytes each, and two or three times that while an image is decoded
THREADS = 4


@dataclass(frozen=True)
class Photograph:
    """What is kept of an opened image until its label map is done.

    Attributes:
        pixels: (3, h, w) uint8, at the size at which the network sees it.
        size: height and width of the image itself, which its label map will have.
        small: the image at the size at which its masks are refined; None where they are not.
    """

    pixels: Tensor
    size: tuple[int, int]
    small: Image.Image | None

    @classmethod
    def of(cls, image: Image.Image, config: InferenceConfig) -> Photograph:
        """Make an upright RGB image as small as `config` allows."""
        size = network_size(image.width, image.height, config)
        seen = image if config.scale_from == "photograph" else image.resize(size, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)
        small = None if config.refine == "none" else shrunk(image, config.longest)
        return cls(pixels, (image.height, image.width), small)

    @property
    def kept_pixels(self) -> int:
        """How many pixels are held in memory."""
        return self.pixels[0].numel() + (self.small.width * self.small.height if self.small else 0)


def network_size(width: int, height: int, config: InferenceConfig) -> tuple[int, int]:
    """Give width and height at which an image goes through the network at scale 1."""
    if config.long_side is not None:
        factor = config.long_side / max(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))
    return (config.size, config.size) if config.size is not None else (width, height)


def open_ahead(paths: Iterable[Path], config: InferenceConfig, *, most: int) -> Iterator[Photograph | TagmaskError]:
    """Open images in threads, ahead of whoever takes them, and give them in their order.

    What is being decoded and what is ready have at most `PIXELS_AHEAD` pixels together; an image of more goes alone.

    Args:
        paths: of the images.
        config: sizes of what is kept.
        most: how many images may be on their way.

    Returns:
        for each path its photograph, or the error that says why it does not open.
    """
    ahead: deque[tuple[int, Future[Photograph | TagmaskError]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for path in paths:
                pixels = _pixels_of(path)
                while ahead and (len(ahead) == most or _held(ahead) + pixels > PIXELS_AHEAD):
                    yield ahead.popleft()[1].result()
                ahead.append((pixels, pool.submit(_open, path, config)))
            while ahead:
                yield ahead.popleft()[1].result()
        finally:  # whoever stops early does not wait for images that nobody will take
            pool.shutdown(cancel_futures=True)


def _held(ahead: Iterable[tuple[int, Future[Photograph | TagmaskError]]]) -> int:
    """Count pixels: all of an image that may be decoding now, and of one that is ready those that are kept."""
    held = 0
    for pixels, future in ahead:
        ready = future.result() if future.done() else None
        held += pixels if ready is None else ready.kept_pixels if isinstance(ready, Photograph) else 0
    return held


def _pixels_of(path: Path) -> int:
    """Read from the header how many pixels an image has; 0 where that fails, as opening it will fail and say why."""
    try:
        width, height = image_size(path)
    except TagmaskError:
        return 0
    return width * height


def _open(path: Path, config: InferenceConfig) -> Photograph | TagmaskError:
    """Open one image; its full size is in memory only while this runs."""
    try:
        return Photograph.of(open_image(path), config)
    except TagmaskError as error:
        return error
