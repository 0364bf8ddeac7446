"""Masks of a person among those that tagmask wrote: how they are written, and which of them are learnt from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tagmask.api.mask_folder import MaskFolder
from tagmask.data.confidence import CONFIDENCE, MaskRow, read_confidence
from tagmask.data.dataset import Dataset, Record
from tagmask.data.label_maps import write_label_map
from tagmask.data.ledger import LEDGER
from tagmask.data.lock import locked
from tagmask.data.masks import PngMask
from tagmask.data.mended import doubt_own_masks, with_mended, write_mended
from tagmask.data.splits import masked_by_hand
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig, load_recipe

CLASSES = ("cat", "dog")
LABELS = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [2, 2, 0, 0]], np.uint8)
NAMES = ("a", "sub/b", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "labelled"
    own = MaskFolder(place, CLASSES, NAMES)
    for name in NAMES:
        own.write(name, np.zeros((3, 4), np.uint8))
    own.finish([MaskRow(name, 0.5, ("cat",)) for name in NAMES])
    return place


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    ground_truth = PngMask(tmp_path / "other.png")
    records = [Record(name, tmp_path / "photos" / f"{name}.jpg", (0,), mask=ground_truth) for name in (*NAMES, "d")]
    return Dataset(tuple(records), CLASSES)


def write_review(file: Path, **verdicts: str) -> Path:
    rows = [f"../photos/{name.replace('_', '/')}.jpg,cat,,{verdict}" for name, verdict in verdicts.items()]
    file.parent.mkdir()
    file.write_text("\n".join(["image,tags,split,verdict", *rows]) + "\n")
    return file


def masked(dataset: Dataset) -> list[str]:
    return [record.name for record in dataset.records if record.mask is not None]


def test_mended_mask_is_the_users_from_then_on(folder: Path) -> None:
    write_mended(folder, "sub/b", LABELS, CLASSES)
    mask = folder / "sub" / "b.png"
    assert (PngMask(mask).ids() == LABELS).all()
    MaskFolder(folder, CLASSES, ["a"])  # the other masks are still tagmask's
    with pytest.raises(TagmaskError, match=r"b\.png: was changed since it was written"):
        MaskFolder(folder, CLASSES, ["sub/b"])
    assert (PngMask(mask).ids() == LABELS).all()


def test_table_names_the_classes_of_the_mended_mask(folder: Path) -> None:
    write_mended(folder, "sub/b", LABELS, ("cat", "dog"))
    write_mended(folder, "c", np.zeros((3, 4), np.uint8), ())
    rows = {row.name: (row.confidence, row.classes) for row in read_confidence(folder / CONFIDENCE)}
    assert rows == {"a": (0.5, ("cat",)), "sub/b": (0.5, ("cat", "dog")), "c": (0.5, ())}


def test_mask_saved_as_it_was_is_the_users_too(folder: Path, dataset: Dataset) -> None:
    write_mended(folder, "a", PngMask(folder / "a.png").ids(), ())
    with pytest.raises(TagmaskError, match=r"a\.png: was changed"):
        MaskFolder(folder, CLASSES, ["a"])
    assert masked(with_mended(dataset, folder)) == ["a"]


def test_folder_of_version_0_1_keeps_the_mended_mask(folder: Path, dataset: Dataset) -> None:
    (folder / LEDGER).unlink()
    os.utime(folder / CONFIDENCE)  # as if it had been written after its masks
    write_mended(folder, "a", LABELS, CLASSES)
    assert masked(with_mended(dataset, folder)) == ["a"]
    with pytest.raises(TagmaskError, match=r"a\.png: was changed"):
        MaskFolder(folder, CLASSES, ["a"])
    MaskFolder(folder, CLASSES, ["c"])


def test_mask_is_not_written_while_label_writes_there(folder: Path) -> None:
    before = [(folder / name).read_bytes() for name in ("a.png", CONFIDENCE)]
    with locked(folder), pytest.raises(TagmaskError, match="has been writing there"):
        write_mended(folder, "a", LABELS, CLASSES)
    assert [(folder / name).read_bytes() for name in ("a.png", CONFIDENCE)] == before


def test_mended_masks_alone_are_learnt_from(folder: Path, dataset: Dataset) -> None:
    assert masked(with_mended(dataset, folder)) == []
    write_mended(folder, "sub/b", LABELS, CLASSES)
    found = with_mended(dataset, folder)
    assert masked(found) == ["sub/b"]
    mask = found.records[1].mask
    assert mask is not None
    np.testing.assert_array_equal(mask.load(3, 4), LABELS)


def test_review_adds_what_was_kept_and_drops_what_is_to_be_redone(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    write_mended(folder, "sub/b", LABELS, CLASSES)
    write_mended(folder, "c", LABELS, CLASSES)
    review = write_review(tmp_path / "reviews" / "first.csv", a="keep", sub_b="edited", c="redo", d="keep")
    assert masked(with_mended(dataset, folder, review)) == ["a", "sub/b"]  # d is kept, and has no mask


def test_every_mask_counts_in_a_folder_of_somebody_else(dataset: Dataset, tmp_path: Path) -> None:
    write_label_map(tmp_path / "drawn" / "c.png", LABELS)
    assert masked(with_mended(dataset, tmp_path / "drawn")) == ["c"]


def test_other_classes_and_ids_are_refused(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    write_mended(folder, "c", np.full((3, 4), 7, np.uint8), ())
    mask = with_mended(dataset, folder).records[2].mask
    assert mask is not None
    with pytest.raises(TagmaskError, match=r"c\.png: "):
        mask.load(3, 4)
    (folder / "classes.txt").write_text("dog\nbird\n")
    with pytest.raises(TagmaskError, match="lists other classes than cat, dog"):
        with_mended(dataset, folder)
    with pytest.raises(TagmaskError, match="no such folder of masks"):
        with_mended(dataset, tmp_path / "nowhere")
    review = write_review(tmp_path / "reviews" / "first.csv", a="good")
    (folder / "classes.txt").unlink()
    with pytest.raises(TagmaskError, match=r"frist\.csv: no such table of a review; did you mean .*first\.csv\?"):
        with_mended(dataset, folder, review.with_name("frist.csv"))
    with pytest.raises(TagmaskError, match=r"first\.csv row 2: verdict 'good'; expected keep, redo, tags, edited"):
        with_mended(dataset, folder, review)


def test_ids_are_those_of_the_folders_own_list(dataset: Dataset, tmp_path: Path) -> None:
    write_label_map(tmp_path / "c.png", np.array([[0, 1, 2], [3, 3, 255]], np.uint8))
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    mask = with_mended(dataset, tmp_path).records[2].mask
    assert mask is not None
    np.testing.assert_array_equal(mask.load(2, 3), [[0, 2, 0], [1, 1, 255]])
    # `data.mask_classes` may be of other masks, those to score against.
    same = with_mended(dataset, tmp_path, mask_classes=["cat", "dog", "bird"]).records[2].mask
    assert same == mask
    (tmp_path / "classes.txt").unlink()
    said = with_mended(dataset, tmp_path, mask_classes=["cat", "dog", "bird"]).records[2].mask
    assert said is not None
    np.testing.assert_array_equal(said.load(2, 3), [[0, 1, 2], [0, 0, 255]])
    with pytest.raises(TagmaskError, match=r"data\.mask_classes: lists other classes than cat, dog"):
        with_mended(dataset, tmp_path, mask_classes=["cat", "bird"])


def test_ids_without_a_list_are_known_only_where_all_classes_are_learnt(dataset: Dataset, tmp_path: Path) -> None:
    write_label_map(tmp_path / "c.png", np.array([[0, 1, 2]], np.uint8))
    mask = with_mended(dataset, tmp_path).records[2].mask
    assert mask is not None
    np.testing.assert_array_equal(mask.load(1, 3), [[0, 1, 2]])
    more = replace(dataset, dropped={"bird": 3})
    with pytest.raises(TagmaskError, match=r"which id of the masks is which class.*write classes\.txt there"):
        with_mended(more, tmp_path)
    # What was read with the data from the same folder knows its ids.
    own = [
        replace(record, mask=PngMask(tmp_path / f"{record.name}.png", {0: 0, 1: 2, 2: 1})) for record in more.records
    ]
    mask = with_mended(replace(more, records=tuple(own)), tmp_path).records[2].mask
    assert mask is not None
    np.testing.assert_array_equal(mask.load(1, 3), [[0, 2, 1]])


def test_key_takes_yes_no_or_a_folder(folder: Path, dataset: Dataset) -> None:
    write_mended(folder, "a", LABELS, CLASSES)

    def config(*overrides: str) -> DataConfig:
        return load_recipe("cam/default", overrides).data

    assert config("data.use_masks=true").use_masks is True
    assert config("data.use_masks=false").use_masks is False
    with pytest.raises(TagmaskError, match=r"data\.review first\.csv: is of masks that tagmask wrote, and"):
        masked_by_hand(dataset, config("data.use_masks=true", "data.review=first.csv"))
    assert masked(masked_by_hand(dataset, config())) == [*NAMES, "d"]
    assert masked(masked_by_hand(dataset, config("data.use_masks=true"))) == [*NAMES, "d"]
    assert masked(masked_by_hand(dataset, config(f"data.use_masks={folder}"))) == ["a"]
    # The folder of the data's ground truth is one that tagmask wrote: the mended ones count there too.
    assert masked(masked_by_hand(dataset, config("data.use_masks=true", f"data.masks={folder}"))) == ["a"]
    (folder / LEDGER).unlink()
    assert masked(masked_by_hand(dataset, config("data.use_masks=true", f"data.masks={folder}"))) == [*NAMES, "d"]


def test_masks_beside_the_images_that_tagmask_wrote_teach_once_they_are_mended(folder: Path, dataset: Dataset) -> None:
    """`tagmask label -o photos/masks`: they are read with the data, as somebody's drawn masks would be."""
    records = tuple(replace(record, mask=PngMask(folder / f"{record.name}.png")) for record in dataset.records)
    there, asked = replace(dataset, records=records), load_recipe("cam/default", ["data.use_masks=true"]).data
    assert masked(masked_by_hand(there, asked)) == []
    write_mended(folder, "sub/b", LABELS, CLASSES)
    assert masked(masked_by_hand(there, asked)) == ["sub/b"]
    (folder / LEDGER).unlink()
    assert masked(masked_by_hand(there, asked)) == [*NAMES, "d"]


def test_ground_truth_that_tagmask_wrote_itself_is_doubted(
    folder: Path, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubt_own_masks(dataset)
    assert caplog.messages == [], "masks of other folders are somebody's own"
    records = [replace(record, mask=PngMask(folder / f"{record.name}.png")) for record in dataset.records[:3]]
    labelled = dataset.keep(records)
    doubt_own_masks(labelled)
    told = f"3 of 3 masks to score against, such as {folder / 'a.png'}, are not ground truth: tagmask wrote them, and "
    assert [message.startswith(told) for message in caplog.messages] == [True]
    caplog.clear()
    write_mended(folder, "a", LABELS, CLASSES)
    doubt_own_masks(labelled)
    assert caplog.messages[0].startswith(f"2 of 3 masks to score against, such as {folder / 'sub/b.png'}, are not")
    caplog.clear()
    doubt_own_masks(labelled, write_review(tmp_path / "reviews" / "first.csv", sub_b="keep", c="keep"))
    assert caplog.messages == []
