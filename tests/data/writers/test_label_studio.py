from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagmask.data.writers.label_studio import brush_code, brush_regions


class Bits:
    """Reads numbers from bytes, bit by bit, as Label Studio's player does."""

    def __init__(self, code: list[int]) -> None:
        self.text = "".join(f"{byte:08b}" for byte in code)
        self.place = 0

    def read(self, size: int) -> int:
        self.place += size
        return int(self.text[self.place - size : self.place], 2)


def decoded(code: list[int]) -> np.ndarray:
    """The bytes that a code stands for, written from the description of the format alone."""
    bits = Bits(code)
    length = bits.read(32)
    word = bits.read(5) + 1
    widths = [bits.read(4) + 1 for _ in range(4)]
    found: list[int] = []
    while len(found) < length:
        is_run = bits.read(1)
        run = bits.read(widths[bits.read(2)]) + 1
        found += [bits.read(word)] * run if is_run else [bits.read(word) for _ in range(run)]
    assert len(bits.text) - bits.place < 8
    return np.array(found, dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_code_gives_back_four_bytes_a_pixel(inside: np.ndarray) -> None:
    found = decoded(brush_code(inside)).reshape(*inside.shape, 4)
    assert np.array_equal(found, np.repeat(np.where(inside, 255, 0)[..., None], 4, axis=-1))


@pytest.mark.parametrize("pixels", [1, 2, 4, 64, 65, 16384, 16385, 40000])
def test_runs_of_every_width_and_longer_than_the_widest(pixels: int) -> None:
    for value in (True, False):
        inside = np.full((1, pixels + 1), value)
        inside[0, -1] = not value
        found = decoded(brush_code(inside)).reshape(-1, 4)[:, 3] == 255
        assert np.array_equal(found, inside[0])


def test_each_class_is_a_region_of_its_own() -> None:
    regions = brush_regions(np.array([[0, 1, 255], [2, 2, 1]], np.uint8), ["cat", "dog", "cow"])
    assert [region["value"]["brushlabels"] for region in regions] == [["cat"], ["dog"]]
    # The editor of Label Studio cuts ids at the first "#", and joins regions of one id.
    assert len({region["id"].split("#")[0] for region in regions}) == 2
