"""Masks that are useless by their own evidence are said to be, with the class and the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tagmask.data.dataset import Dataset, Record
from tagmask.data.label_maps import write_label_map
from tagmask.data.masks import PngMask
from tagmask.engine.evidence import folder_evidence, mask_evidence
from tagmask.recipes.load import ViewsConfig

CLASSES = ("hat", "shoe", "bag")


def mask(*pixels: int) -> np.ndarray:
    """Make a mask of 100 pixels: so many of ids 1, 2, 3, the rest background and ten ignored ones."""
    ids = np.concatenate([np.full(count, number, np.uint8) for number, count in enumerate(pixels, start=1)])
    return np.concatenate([ids, np.full(10, 255, np.uint8), np.zeros(90 - len(ids), np.uint8)]).reshape(10, 10)


def test_masks_of_all_their_tags_have_nothing_against_them() -> None:
    assert mask_evidence([((0, 1), mask(20, 30, 0))] * 10 + [((2,), mask(0, 0, 9))] * 10, CLASSES) == []


def test_a_class_that_is_never_won_is_named() -> None:
    found = mask_evidence([((0, 1), mask(30, 20))] * 20 + [((1, 2), mask(5, 30, 0))] * 10, CLASSES)
    assert len(found) == 1
    assert found[0].startswith("'bag': in next to none of the masks of the images that bear it")


def test_a_class_that_is_seldom_won_is_not_called_lost() -> None:
    rows = [((0, 2), mask(40, 0, 0))] * 9 + [((0, 2), mask(40, 0, 30))]
    assert not any("next to none" in sentence for sentence in mask_evidence(rows, CLASSES))


def test_a_class_that_takes_what_all_share_is_named_with_its_part() -> None:
    found = mask_evidence([((0, 1, 2), mask(4, 45, 1))] * 10, CLASSES)
    assert len(found) == 1
    assert found[0].startswith("'shoe' takes 90 % of what all classes of an image get")


def test_a_class_that_got_what_the_others_left_took_nothing_from_them() -> None:
    assert mask_evidence([((0, 1, 2), mask(4, 45, 1))] * 10, CLASSES, last=("shoe",)) == []


def test_a_large_class_of_few_images_takes_nothing_from_the_others() -> None:
    rows = [((0, 1), mask(1, 60))] * 5 + [((0, 2), mask(20, 0, 20))] * 15
    assert mask_evidence(rows, CLASSES) == []


def test_images_of_one_tag_say_nothing_of_swallowing() -> None:
    assert mask_evidence([((1,), mask(0, 60))] * 20, CLASSES) == []


def test_few_images_say_nothing() -> None:
    assert mask_evidence([((0, 1), mask(0, 60))] * 4, CLASSES) == []


def test_small_things_are_named_with_their_size_and_a_larger_crop() -> None:
    """Of 10 x 10 pixels, 4 are as many as in a square of a fifth of the side; photographs are 200 long on average."""
    rows = [((0,), mask(4)), ((1,), mask(0, 25))] * 10
    (said,) = mask_evidence(rows, CLASSES, views=ViewsConfig(crop=224, resize_long=(100, 300)))
    assert said.startswith("'hat': small, no larger than 40 x 40 pixels on average")
    assert "views.crop=320" in said
    assert mask_evidence(rows, CLASSES, views=ViewsConfig(crop=224, resize_long=(200, 400))) == [], "60 x 60 are not"
    (said,) = mask_evidence(rows, CLASSES, views=ViewsConfig(crop=308, resize_long=(100, 150)))
    assert said.startswith("'hat': small, no larger than 25 x 25")
    assert "views.crop=448" in said
    assert mask_evidence(rows, CLASSES, views=ViewsConfig(crop=224)) == [], "nobody knows how long its images are"
    assert mask_evidence(rows[:8], CLASSES, views=ViewsConfig(crop=224, resize_long=(100, 300))) == [], "four are few"


def test_a_mask_drawn_in_place_of_the_one_that_was_made_is_judged(tmp_path: Path) -> None:
    records = tuple(Record(f"{n}", Path(f"{n}.jpg"), (0,), mask=PngMask(tmp_path / f"drawn{n}.png")) for n in range(8))
    for record in records:
        write_label_map(tmp_path / f"{record.name}.png", mask(0))
        write_label_map(tmp_path / f"drawn{record.name}.png", mask(30))
    (said,) = folder_evidence(tmp_path, Dataset(records, CLASSES))
    assert said.startswith("'hat': in next to none of the masks")
    assert folder_evidence(tmp_path, Dataset(records, CLASSES), drawn=True) == []


def test_a_folder_is_judged_by_the_masks_that_are_there(tmp_path: Path) -> None:
    records = tuple(Record(f"{n}", Path(f"{n}.jpg"), (0, 1)) for n in range(8))
    for record in records[:6]:
        write_label_map(tmp_path / f"{record.name}.png", mask(0, 50))
    found = folder_evidence(tmp_path, Dataset(records, CLASSES))
    assert [sentence.split(",")[0].split(":")[0] for sentence in found] == [
        "'hat'",
        "'shoe' takes 100 % of what all classes of an image get",
    ]
