import pickle

import numpy as np
import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.data.readers.voc import CLASSES
from tagmask.errors import TagmaskError
from tests.data.trees import write_image


def write_vectors(
    root, vectors: dict, *, images: str = "a.jpg b.png c.jpg", classes="cat dog bird", folder="JPEGImages"
):
    for image in images.split():
        write_image(root / folder / image)
    root.mkdir(exist_ok=True)
    if classes:
        (root / "classes.txt").write_text("\n".join(classes.split()))
    np.save(root / "cls_labels_onehot.npy", vectors, allow_pickle=True)
    return root / "cls_labels_onehot.npy"


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("folder", ["JPEGImages", "images", ""])
def test_ones_are_tags(tmp_path, folder):
    path = write_vectors(
        tmp_path, {"a": vector(1, 0, 1), "b": vector(0, 0, 0), "c.jpg": vector(0, 1, 0)}, folder=folder
    )
    assert detect(path)[0] == detect(tmp_path)[0] == "cls_labels"
    dataset = read_dataset(path, untagged="negative")
    assert dataset.classes == ("cat", "dog", "bird")
    assert [(record.name, record.tags) for record in dataset.records] == [("a", (0, 2)), ("b", ()), ("c", (1,))]
    assert dataset.records[1].image == tmp_path / folder / "b.png"


def test_a_voc_tree_with_annotations_stays_one(tmp_path):
    path = write_vectors(tmp_path, {"a": vector(1, 0, 0)})
    (tmp_path / "Annotations").mkdir()
    assert detect(tmp_path)[0] == "voc"
    assert detect(path)[0] == "cls_labels"


def test_vectors_of_twenty_are_those_of_voc_and_numbers_are_names(tmp_path):
    cat = np.eye(20)[CLASSES.index("cat")]
    path = write_vectors(tmp_path, {2007000032: cat, 9: cat}, images="2007_000032.jpg 000000000009.jpg", classes="")
    dataset = read_dataset(path)
    assert dataset.classes == CLASSES
    assert [record.name for record in dataset.records] == ["2007_000032", "000000000009"]
    assert {record.tags for record in dataset.records} == {(CLASSES.index("cat"),)}


def test_chosen_classes_name_the_positions_where_nothing_else_does(tmp_path):
    path = write_vectors(tmp_path, {"a": vector(0, 1, 0)}, classes="")
    assert read_dataset(path, classes=["x", "y", "z"]).records[0].tags == (1,)
    with pytest.raises(TagmaskError, match=r"vectors of 3 values and no class names; write .*classes\.txt"):
        read_dataset(path)


def test_lists_beside_the_file_are_splits_that_may_overlap(tmp_path):
    path = write_vectors(tmp_path, {name: vector(1, 0, 0) for name in "abc"})
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "train_aug.txt").write_text(
        "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/b.png /x/b.png\n"
    )
    dataset = read_dataset(path)
    assert dataset.splits == ("train", "train_aug")
    assert [record.name for record in dataset.split("train_aug").records] == ["a", "b"]
    assert any("1 names are in no list beside it" in line for line in dataset.skipped)
    (tmp_path / "val.txt").write_text("a\nmissing\n")
    with pytest.raises(TagmaskError, match=r"val\.txt: names 'missing' \(1 such\), which has no vector"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"a": vector(1, 0)}, r"has vectors of 2 values, and .*classes\.txt has 3 names"),
        ({"a": vector(1, 0, 0), "b": vector(1, 0)}, r"onehot\.npy, b: is \[1\.0, 0\.0\]; expected 3 values of 0 or 1"),
        ({"a": vector(0.5, 0, 0)}, "expected 3 values of 0 or 1"),
        ({"a": vector(1, 0, np.nan)}, "expected 3 values of 0 or 1"),
        ({"gone": vector(1, 0, 0)}, r"onehot\.npy, gone: no image file .*gone\.jpg"),
        ({}, "names no image"),
    ],
)
def test_bad_input_vectors(tmp_path, vectors, message):
    with pytest.raises(TagmaskError, match=message):
        read_dataset(write_vectors(tmp_path, vectors))


def test_bad_input_no_images_or_several_files(tmp_path):
    path = write_vectors(tmp_path, {"a": vector(1, 0, 0)}, images="")
    with pytest.raises(TagmaskError, match=r"name the folder of images \(image_folder\)"):
        read_dataset(path)
    path.with_name("cls_labels.npy").write_bytes(path.read_bytes())
    with pytest.raises(TagmaskError, match=r"holds several \(cls_labels\.npy, cls_labels_onehot\.npy\)"):
        read_dataset(tmp_path)


def test_malicious_file_raises_and_runs_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "proof").touch, ()

    path = write_vectors(tmp_path, {"a": vector(1, 0, 0)})
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump({"a": Bomb()}, file)
    with pytest.raises(TagmaskError, match="asks to run"):
        read_dataset(path)
    assert not (tmp_path / "proof").exists()
