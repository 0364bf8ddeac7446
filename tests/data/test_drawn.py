"""Drawn masks, looked at before the first training: what cannot be learnt from is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.drawn import check_drawn, look, masks_digest
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
    assert look(white, tagged).two_valued
    assert not look(MASK, tagged).two_valued
    assert not look(white, untagged).two_valued
    assert not look(np.zeros_like(MASK), tagged).two_valued


def test_masks_that_are_white_on_black_are_refused_where_all_are(tmp_path: Path) -> None:
    white = np.where(MASK > 0, 255, 0).astype(np.uint8)
    with pytest.raises(
        TagmaskError, match=r"all masks that were looked at \(2\) hold only 0 and 255, and 255 means ign"
    ):
        check_drawn(dataset(tmp_path, {"a": white, "b": white}))
    check_drawn(dataset(tmp_path, {"a": white, "b": MASK}))
    check_drawn(dataset(tmp_path, {"a": white, "b": white}, tags=()))


def test_blank_masks_of_tagged_images_are_told_and_refused_where_all_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    black = np.zeros_like(MASK)
    with pytest.raises(TagmaskError, match=r"all masks that were looked at \(2\) show no class, and their images bear"):
        check_drawn(dataset(tmp_path, {"a": black, "b": np.where(MASK == 255, MASK, 0)}))
    check_drawn(dataset(tmp_path, {"a": black, "b": np.where(MASK == 1, MASK, 0), "c": black}))
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 drawn masks, such as that of 'a', show no class, though their images bear tags: they teach background "
        "there. Draw them, or remove them"
    ]
    caplog.clear()
    check_drawn(dataset(tmp_path, {"a": black, "b": black}, tags=()))
    assert not caplog.records


def test_masks_of_what_is_not_tagged_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_drawn(dataset(tmp_path, {"a": MASK, "b": np.where(MASK == 1, MASK, 0)}))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("1 of 2 drawn masks, such as that of 'a', show a class that is no tag of their image: mend")


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
