from pathlib import Path

import numpy as np
import pytest

from tagmask.data.readers import read_dataset
from tagmask.data.readers.voc import CLASSES
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_mask

CAT, DOG, PERSON = CLASSES.index("cat"), CLASSES.index("dog"), CLASSES.index("person")


def write_voc(root: Path, objects: dict[str, str], **lists: str) -> Path:
    """Images with the objects of their XML files, and lists of ids."""
    for folder in ("Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, found in objects.items():
        write_image(root / f"JPEGImages/{name}.jpg")
        body = "".join(
            f"<object><name>{tag}</name><difficult>1</difficult><part><name>head</name></part></object>"
            for tag in found.split()
        )
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{body}</annotation>")
    for name, ids in lists.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids.split()) + "\n")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five images: a in train, b and e only among the augmented masks, c in val, d in no list."""
    objects = {"a": "cat person cat", "b": "dog", "c": "person", "d": "cow", "e": "cat dog"}
    root = write_voc(tmp_path / "VOCdevkit/VOC2012", objects, train="a", val="c", trainval="a c")
    for name, label in {"a": CAT, "b": DOG, "c": PERSON, "e": DOG}.items():
        ids = np.zeros((6, 8))
        ids[2:4] = label + 1
        ids[0] = 255
        write_mask(root / f"SegmentationClassAug/{name}.png", ids)
    write_mask(root / "SegmentationClass/a.png", np.full((6, 8), 3))
    return root


def test_splits_and_train_aug_overlap(tree):
    dataset = read_dataset(tree)
    members = {split: [record.name for record in dataset.split(split).records] for split in dataset.splits}
    assert members == {"train": ["a"], "train_aug": ["a", "b", "e"], "trainval": ["a", "c"], "val": ["c"]}
    assert [(record.name, record.split) for record in dataset.records] == [
        ("a", "train"),
        ("b", "train_aug"),
        ("c", "val"),
        ("e", "train_aug"),
    ]
    assert [record.name for record in dataset.split(["train_aug", "train", "val"]).records] == ["a", "b", "c", "e"]
    assert dataset.split("train_aug").split("train").records == dataset.split("train").records
    assert len(dataset.split(None)) == 4
    with pytest.raises(TagmaskError, match="split 'test' has no images"):
        dataset.split("test")
    assert dataset.skipped == (
        f"{tree}/JPEGImages: 1 images are in no list of ImageSets/Segmentation and have no mask",
    )


@pytest.mark.parametrize("above", [0, 1, 2])
def test_tree_is_found_from_the_folders_above(tree, above):
    path = [tree, *tree.parents][above]
    assert len(read_dataset(path)) == 4


def test_tags_of_the_xml_files_and_masks(tree):
    dataset = read_dataset(tree)
    assert dataset.classes == CLASSES
    assert dataset.tag_source == "objects of Annotations/*.xml, difficult and truncated ones included"
    assert [record.tags for record in dataset.records] == [(CAT, PERSON), (DOG,), (PERSON,), (CAT, DOG)]
    mask = dataset.records[0].mask.load(6, 8)
    assert (mask[0] == 255).all()
    assert (mask[2:4] == CAT + 1).all()


def test_tags_of_the_masks(tree):
    dataset = read_dataset(tree, tag_source="masks")
    assert dataset.tag_source == "classes that occur in the masks of SegmentationClassAug"
    assert [record.tags for record in dataset.records] == [(CAT,), (DOG,), (PERSON,), (DOG,)]


def test_chosen_classes(tree):
    dataset = read_dataset(tree, classes=["dog", "cat"])
    assert [(record.name, record.tags) for record in dataset.records] == [("a", (1,)), ("b", (0,)), ("e", (0, 1))]
    assert (dataset.records[0].mask.load(6, 8)[2:4] == 2).all()
    assert len(dataset.skipped) == 2


def test_segmentation_class_where_there_are_no_augmented_masks(tmp_path):
    root = write_voc(tmp_path, {"a": "cat", "b": "dog"}, train="a b")
    write_mask(root / "SegmentationClass/a.png", np.full((6, 8), CAT + 1))
    dataset = read_dataset(root)
    assert dataset.splits == ("train",)
    assert [record.mask is None for record in dataset.records] == [False, True]


def test_without_lists_every_image_is_read(tmp_path):
    dataset = read_dataset(write_voc(tmp_path, {"a": "cat", "b": "dog"}))
    assert [record.split for record in dataset.records] == ["", ""]


def test_own_classes_come_from_the_tree(tmp_path):
    root = write_voc(tmp_path, {"a": "zebra cat", "b": "ant"})
    assert read_dataset(root).classes == ("ant", "cat", "zebra")
    (root / "classes.txt").write_text("zebra\nant\n")
    with pytest.raises(TagmaskError, match=r"a\.jpg: tag 'cat' is not in the class list"):
        read_dataset(root)


def test_lists_in_other_forms(tmp_path):
    root = write_voc(tmp_path, {"a": "cat", "b": "dog"})
    lists = root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    (lists / "val.txt").write_text("b 11\n")
    assert [(record.name, record.split) for record in read_dataset(root).records] == [("a", "train"), ("b", "val")]


def test_bad_input_image_without_tags_because_its_xml_is_missing(tree):
    (tree / "Annotations/b.xml").unlink()
    dataset = read_dataset(tree)
    assert [record.name for record in dataset.records] == ["a", "c", "e"]
    assert dataset.skipped[-1].endswith("b.png: nobody knows the tags of image 'b'")
    kept = read_dataset(tree, untagged="negative").records[1]
    assert (kept.name, kept.tags, kept.unknown) == ("b", (), tuple(range(20)))


def test_bad_input_list_naming_a_missing_image(tree):
    (tree / "ImageSets/Segmentation/train.txt").write_text("a\ngone\n")
    with pytest.raises(TagmaskError, match=r"ImageSets/Segmentation/train\.txt row 2: no image file .*gone\.jpg"):
        read_dataset(tree)


def test_bad_input_damaged_xml_and_masks(tree):
    (tree / "Annotations/b.xml").write_text("<annotation>")
    with pytest.raises(TagmaskError, match=r"b\.xml: is no XML"):
        read_dataset(tree)
    write_mask(tree / "SegmentationClassAug/b.png", np.full((6, 8), 21))
    write_image(tree / "SegmentationClassAug/e.png")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tree, tag_source="masks")
    assert "b.png: the mask holds ids [21]; the class list ends at 20" in str(raised.value)
    assert "e.png: holds colours (RGB)" in str(raised.value)


def test_bad_input_no_tree_several_trees_or_no_annotations(tmp_path):
    with pytest.raises(TagmaskError, match="no VOC tree; expected the folders JPEGImages"):
        read_dataset(tmp_path, format="voc")
    for year in ("VOC2007", "VOC2012"):
        write_image(tmp_path / year / "JPEGImages/a.jpg")
    with pytest.raises(TagmaskError, match=r"holds several VOC trees \(VOC2007, VOC2012\)"):
        read_dataset(tmp_path)
    with pytest.raises(TagmaskError, match="no folder Annotations with XML files; tag_source: masks"):
        read_dataset(tmp_path / "VOC2012")
    with pytest.raises(TagmaskError, match="tag_source: masks needs a folder of masks"):
        read_dataset(tmp_path / "VOC2012", tag_source="masks")


def test_a_test_split_is_kept_though_nobody_knows_its_tags(tree: Path) -> None:
    for name in ("t", "u"):
        write_image(tree / f"JPEGImages/{name}.jpg")
    (tree / "ImageSets/Segmentation/test.txt").write_text("t\nu\n")
    dataset = read_dataset(tree)
    held = dataset.split("test").records
    assert [record.name for record in held] == ["t", "u"]
    assert all(record.tags == () and len(record.unknown) == 20 and record.mask is None for record in held)
    assert not any("t.jpg" in line for line in dataset.skipped)
    assert {"t", "u"}.isdisjoint(record.name for record in dataset.split("train_aug").records)


def test_tags_of_a_list_stand_over_the_annotations(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "train_cls.txt"
    file.write_text("a.jpg 3 19\nb 11\n")
    dataset = read_dataset(tree, tag_list=file)
    tags = {record.name: record.tags for record in dataset.records}
    assert tags["a"] == (3, 19)
    assert tags["b"] == (11,)
    assert tags["c"] == (PERSON,)
    assert dataset.tag_source.startswith("tags of train_cls.txt for 2 images; of the others: objects of")
    file.write_text("a.jpg 20\n")
    with pytest.raises(TagmaskError, match=r"train_cls\.txt row 1: '20' is no number of a class, 0\.\.19"):
        read_dataset(tree, tag_list=file)
    with pytest.raises(TagmaskError, match="tag_list: is for VOC trees"):
        read_dataset(write_table_beside(tmp_path), tag_list=file)


def write_table_beside(tmp_path: Path) -> Path:
    from tests.data.trees import write_table

    return write_table(tmp_path / "table", "image,tags\na.jpg,cat\nb.jpg,dog\n")
