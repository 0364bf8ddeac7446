"""The codes in which label tools keep drawn regions: Label Studio's brush, and the masks of CVAT and LabelMe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tagmask.data.images import opened
from tagmask.errors import TagmaskError

OPAQUE = 128
"""From this value of a brush's fourth byte on a pixel is inside; Label Studio softens the edge of a stroke."""


@dataclass(frozen=True)
class BrushCode:
    """A region drawn by Label Studio's brush.

    Attributes:
        code: the bytes of its code.

    Source: the RLE pack format of @thi.ng/rle-pack; `writers.label_studio.brush_code` describes it.
    """

    code: bytes = field(repr=False)

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return which pixels the region covers, (height, width) bool.

        Raises:
            TagmaskError: the code is damaged, or made for an image of another size; the message names no file.
        """
        bits = _Bits(self.code)
        length = bits.take(32)
        # Before anything is filled: a damaged code may ask for 4 GiB.
        if length != 4 * height * width:
            raise TagmaskError(f"a brush code is made for {length / 4:g} pixels, the image has {height * width}")
        if bits.take(5) != 7:
            raise TagmaskError("a brush code has values that are no bytes; export it again")
        widths = [bits.take(4) + 1 for _ in range(4)]
        values = np.empty(length, dtype=np.uint8)
        place = 0
        while place < length:
            is_run, width_of_count = bits.take(1), widths[bits.take(2)]
            end = place + bits.take(width_of_count) + 1
            if end > length:
                raise TagmaskError("a brush code covers more than its image; export it again")
            if is_run:
                values[place:end] = bits.take(8)
            else:
                values[place:end] = np.frombuffer(bits.take(8 * (end - place)).to_bytes(end - place, "big"), np.uint8)
            place = end
        return values[3::4].reshape(height, width) >= OPAQUE


@dataclass(frozen=True)
class BoxRuns:
    """A region drawn by CVAT's brush: run lengths row by row in its box, ground first.

    Attributes:
        runs: the lengths.
        left, top, width, height: the box, in pixels.

    Source: CVAT manual, "XML annotation format", attribute `rle`.
    """

    runs: Sequence[int] = field(repr=False)
    left: int
    top: int
    width: int
    height: int

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return which pixels of an image the region covers, (height, width) bool.

        Raises:
            TagmaskError: the box leaves the image, or the runs do not fill it; the message names no file.
        """
        below, right = self.top + self.height, self.left + self.width
        if min(self.left, self.top) < 0 or min(self.width, self.height) < 1 or below > height or right > width:
            raise TagmaskError(
                f"a mask lies at ({self.left}, {self.top}), {self.width} x {self.height}, outside the {width} x"
                f" {height} image; export it again"
            )
        if min(self.runs, default=0) < 0 or sum(self.runs) != self.width * self.height:
            raise TagmaskError(
                f"an rle covers {sum(self.runs)} pixels, its box has {self.width * self.height}; export it again"
            )
        covered = np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs)
        inside = np.zeros((height, width), dtype=bool)
        inside[self.top : below, self.left : right] = covered.reshape(self.height, self.width)
        return inside


@dataclass(frozen=True)
class PngCode:
    """A region drawn by LabelMe's mask tool: a small PNG, not black inside, and where it lies.

    Attributes:
        content: the bytes of the PNG.
        left, top: where its first pixel lies in the image.
    """

    content: bytes = field(repr=False)
    left: int
    top: int

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return which pixels of an image the region covers, (height, width) bool.

        Raises:
            TagmaskError: it is no picture, or leaves the image; the message names no file.
        """
        with opened(io.BytesIO(self.content), "mask") as picture:
            covered = np.asarray(picture.convert("L")) > 0
        below, right = self.top + covered.shape[0], self.left + covered.shape[1]
        if min(self.left, self.top) < 0 or below > height or right > width:
            raise TagmaskError(
                f"a mask lies at ({self.left}, {self.top}), {covered.shape[1]} x {covered.shape[0]}, outside the"
                f" {width} x {height} image; draw it again"
            )
        inside = np.zeros((height, width), dtype=bool)
        inside[self.top : below, self.left : right] = covered
        return inside


class _Bits:
    """Takes whole numbers from bytes, highest bit first."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.place = 0

    def take(self, size: int) -> int:
        """Return the number that the next `size` bits stand for.

        Raises:
            TagmaskError: the bytes end before.
        """
        end = self.place + size
        if end > 8 * len(self.code):
            raise TagmaskError("a brush code ends too soon; export it again")
        window = int.from_bytes(self.code[self.place >> 3 : (end + 7) >> 3], "big")
        self.place = end
        return window >> (-end & 7) & ((1 << size) - 1)
