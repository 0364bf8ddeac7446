"""Drawn masks, looked at before the first training: what cannot be learnt from is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.drawn import check_drawn, is_two_valued, masks_digest
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError

MASK = np.array([[0, 1, 1, 0], [0, 2, 255, 0]], np.uint8)


def dataset(folder: Path, masks: dict[str, np.ndarray], tags: tuple[int, ...] = (0,)) -> Dataset:
    records = []
    for name, mask in masks.items():
        Image.new("RGB", (4, 2)).save(folder / f"{name}.jpg")
        Image.fromarray(mask).save(folder / f"{name}.png")
        ids = {0: 0, 1: 1, 2: 2}
        records.append(Record(name, folder / f"{name}.jpg", tags, mask=PngMask(folder / f"{name}.png", ids)))
    return Dataset(tuple(records), ("cow", "dog"))


def test_a_mask_of_two_values_is_one_that_shows_ignored_pixels_and_no_class() -> None:
    tagged, untagged = Record("a", Path("a.jpg"), (0,)), Record("a", Path("a.jpg"))
    white = np.where(MASK > 0, 255, 0).astype(np.uint8)
    assert is_two_valued(white, tagged)
    assert not is_two_valued(MASK, tagged)
    assert not is_two_valued(white, untagged)
    assert not is_two_valued(np.zeros_like(MASK), tagged)


def test_masks_that_are_white_on_black_are_refused_where_all_are(tmp_path: Path) -> None:
    white = np.where(MASK > 0, 255, 0).astype(np.uint8)
    with pytest.raises(
        TagmaskError, match=r"all masks that were looked at \(2\) hold only 0 and 255, and 255 means ign"
    ):
        check_drawn(dataset(tmp_path, {"a": white, "b": white}))
    check_drawn(dataset(tmp_path, {"a": white, "b": MASK}))
    check_drawn(dataset(tmp_path, {"a": white, "b": white}, tags=()))


def test_masks_that_do_not_fit_are_named_before_anything_is_learnt(tmp_path: Path) -> None:
    wrong = dataset(tmp_path, {"a": MASK, "b": MASK[:1], "c": np.full_like(MASK, 9)})
    with pytest.raises(TagmaskError, match=r"data.use_masks: .*b\.png.*4 x 1.*c\.png.*9.*; mend or remove them"):
        check_drawn(wrong)
    check_drawn(wrong, most=2)  # of a large set some are looked at, for what is wrong with all


def test_many_faults_are_counted(tmp_path: Path) -> None:
    wrong = dataset(tmp_path, {f"{number:02d}": MASK[:1] for number in range(13)})
    with pytest.raises(TagmaskError, match="and 3 more; mend"):
        check_drawn(wrong)


def test_image_that_does_not_open_is_left_to_the_training(tmp_path: Path) -> None:
    found = dataset(tmp_path, {"a": MASK})
    (tmp_path / "a.jpg").write_bytes(b"no image")
    check_drawn(found)


def test_digest_follows_names_and_pixels(tmp_path: Path) -> None:
    first = masks_digest(dataset(tmp_path, {"a": MASK, "b": MASK}))
    assert masks_digest(dataset(tmp_path, {"a": MASK, "b": MASK})) == first
    assert masks_digest(dataset(tmp_path, {"a": MASK, "b": MASK[::-1]})) != first
    assert masks_digest(dataset(tmp_path, {"a": MASK})) != first
