from __future__ import annotations

import numpy as np
import pytest

from tagmask.errors import TagmaskError
from tagmask.serve.edit import change_region, ground, read_map, region_at

LABELS = np.array(
    [
        [1, 1, 0, 1],
        [0, 0, 1, 0],
        [2, 2, 0, 0],
    ],
    np.uint8,
)


def test_map_is_read_byte_for_byte() -> None:
    content = bytes([0, 1, 2, 255, 3, 0])
    labels = read_map(content, (2, 3), 3, background=True)
    assert labels.tolist() == [[0, 1, 2], [255, 3, 0]]
    labels[0, 0] = 1  # a copy of its own


@pytest.mark.parametrize(
    ("content", "background", "message"),
    [
        (bytes(5), True, r"5 pixels, its image 6 \(3 x 2\)"),
        (bytes(7), True, "7 pixels"),
        (b"", True, "0 pixels"),
        (bytes([0, 1, 4, 0, 254, 0]), True, "ids 4, 254 in the mask are no class; expected 0 to 3"),
        (bytes([1, 1, 0, 1, 2, 3]), False, "ids 0 in the mask are no class; expected 1 to 3"),
    ],
)
def test_map_of_another_size_or_of_strange_ids_is_refused(content: bytes, background: bool, message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        read_map(content, (2, 3), 3, background=background)


def test_region_hangs_together_by_sides_not_by_corners() -> None:
    assert region_at(LABELS, 1, 0).tolist() == [[True, True, False, False], [False] * 4, [False] * 4]
    assert region_at(LABELS, 2, 2).sum() == 3  # background is a region, too


@pytest.mark.parametrize(
    ("change", "label", "expected"),
    [
        ("delete", 0, [[0, 0, 0, 1], [0, 0, 1, 0], [2, 2, 0, 0]]),
        ("delete", 255, [[255, 255, 0, 1], [0, 0, 1, 0], [2, 2, 0, 0]]),
        ("relabel", 3, [[3, 3, 0, 1], [0, 0, 1, 0], [2, 2, 0, 0]]),
        ("alone", 0, [[1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0]]),
    ],
)
def test_region_under_a_point_is_changed(change: str, label: int, expected: list[list[int]]) -> None:
    before = LABELS.copy()
    assert change_region(LABELS, 0, 0, change, label).tolist() == expected  # type: ignore[arg-type]
    assert (before == LABELS).all()


def test_point_outside_and_unknown_change_are_refused() -> None:
    for x, y in ((-1, 0), (4, 0), (0, 3)):
        with pytest.raises(TagmaskError, match=r"lies outside the image of 4 x 3"):
            change_region(LABELS, x, y, "delete", 0)
    with pytest.raises(TagmaskError, match="expected delete, relabel or alone"):
        change_region(LABELS, 0, 0, "shred", 0)  # type: ignore[arg-type]


def test_ground_is_ignored_where_there_is_no_background() -> None:
    assert (ground(True), ground(False)) == (0, 255)
