from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tagmask.api.mask_folder import MaskFolder
from tagmask.data.confidence import MaskRow
from tagmask.data.ledger import LEDGER
from tagmask.data.lock import locked
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.serve.edit import change_region, ground, read_map, region_at, write_edit

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "labelled"
    own = MaskFolder(place, ("cat", "dog"), ["a", "sub/b"])
    for name in ("a", "sub/b"):
        own.write(name, np.zeros((3, 4), np.uint8))
    own.finish([MaskRow("a", 0.5), MaskRow("sub/b", 0.5)])
    return place


def test_edited_mask_is_the_users_from_then_on(folder: Path) -> None:
    mask = folder / "sub" / "b.png"
    write_edit(mask, folder, LABELS)
    assert (PngMask(mask).ids() == LABELS).all()
    MaskFolder(folder, ("cat", "dog"), ["a"])  # the other mask is still tagmask's
    with pytest.raises(TagmaskError, match=r"b\.png: was changed since it was written"):
        MaskFolder(folder, ("cat", "dog"), ["sub/b"])
    assert (PngMask(mask).ids() == LABELS).all()


def test_mask_saved_as_it_was_is_the_users_too(folder: Path) -> None:
    write_edit(folder / "a.png", folder, PngMask(folder / "a.png").ids())
    with pytest.raises(TagmaskError, match=r"a\.png: was changed"):
        MaskFolder(folder, ("cat", "dog"), ["a"])


def test_folder_of_version_0_1_keeps_the_edited_mask(folder: Path) -> None:
    (folder / LEDGER).unlink()
    write_edit(folder / "a.png", folder, LABELS)
    assert not (folder / LEDGER).exists()
    with pytest.raises(TagmaskError, match=r"a\.png: was changed"):
        MaskFolder(folder, ("cat", "dog"), ["a"])


def test_mask_is_not_written_while_label_writes_there(folder: Path) -> None:
    before = (folder / "a.png").read_bytes()
    with locked(folder), pytest.raises(TagmaskError, match="has been writing there"):
        write_edit(folder / "a.png", folder, LABELS)
    assert (folder / "a.png").read_bytes() == before
