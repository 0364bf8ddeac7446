import numpy as np
import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

BOX = "0.5 0.5 0.2 0.2"


def write_yolo(root, labels: dict[str, str], description: str | None = "train: images\nnames: [cat, dog]\n"):
    """8 x 6 images `images/NAME.jpg` with label files of the given text; None leaves the file out."""
    for name, text in labels.items():
        write_image(root / f"images/{name}.jpg")
        if text is not None:
            (root / f"labels/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
            (root / f"labels/{name}.txt").write_text(text)
    if description is not None:
        (root / "data.yaml").write_text(description)
    return root


def tags(dataset) -> dict[str, tuple[str, ...]]:
    return {record.name: tuple(dataset.classes[tag] for tag in record.tags) for record in dataset.records}


def test_class_numbers_become_tags_and_a_missing_file_means_none(tmp_path):
    write_yolo(tmp_path, {"a": f"1 {BOX}\n0 {BOX}\n1 {BOX}\n", "b": "", "ü/c": f"0.0 {BOX}\n", "d": None})
    assert detect(tmp_path) == ("yolo", tmp_path)
    for path in (tmp_path, tmp_path / "data.yaml"):
        dataset = read_dataset(path, untagged="negative")
        assert dataset.classes == ("cat", "dog")
        assert tags(dataset) == {"a": ("cat", "dog"), "b": (), "d": (), "ü/c": ("cat",)}
        assert all(record.unknown == () and record.mask is None for record in dataset.records)
        assert {record.split for record in dataset.records} == {"train"}


@pytest.mark.parametrize("train", ["images/train", "./images/train", "[images/train]", "train.txt", "../images/train"])
def test_splits_as_folders_and_lists(tmp_path, train):
    write_yolo(tmp_path / "set", {"train/a": f"0 {BOX}", "val/b": f"1 {BOX}"}, None)
    (tmp_path / "set/train.txt").write_text("./images/train/a.jpg\n")
    (tmp_path / "data.yaml").write_text(f"path: set\ntrain: {train}\nval: images/val\nnames: {{0: cat, 1: dog}}\n")
    dataset = read_dataset(tmp_path / "data.yaml")
    assert [(record.name, record.split) for record in dataset.records] == [("train/a", "train"), ("val/b", "val")]


def test_splits_that_name_the_same_folder(tmp_path):
    write_yolo(tmp_path, {"a": f"0 {BOX}"}, "train: images\nval: images\nnames: [cat]\n")
    dataset = read_dataset(tmp_path)
    assert dataset.splits == ("train", "val")
    assert len(dataset) == len(dataset.split("val")) == 1


def test_without_description_classes_stand_in_a_list(tmp_path):
    write_yolo(tmp_path, {"train/a": f"0 {BOX}", "b": f"1 {BOX}"}, None)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert detect(tmp_path)[0] == "yolo"
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.split, record.tags) for record in dataset.records] == [
        ("b", "", (1,)),
        ("train/a", "train", (0,)),
    ]


def test_labels_beside_the_images_where_no_folder_is_called_images(tmp_path):
    write_image(tmp_path / "photos/a.jpg")
    (tmp_path / "photos/a.txt").write_text(f"1 {BOX}")
    (tmp_path / "data.yaml").write_text("train: photos\nnames: [cat, dog]\n")
    assert tags(read_dataset(tmp_path)) == {"a": ("dog",)}


def test_outlines_are_masks_the_smaller_above(tmp_path):
    whole, small = "0 0 1 0 1 1 0 1", "0.25 0 0.5 0 0.5 0.5 0.25 0.5"
    write_yolo(tmp_path, {"a": f"1 {small}\n0 {whole}\n", "b": "", "c": f"0 {whole}\n1 {small} 0.3 0.1\n"})
    dataset = read_dataset(tmp_path, untagged="negative", classes=["dog"])
    expected = np.zeros((6, 8))
    expected[:3, 2:4] = 1
    np.testing.assert_array_equal(dataset.records[0].mask.load(6, 8), expected)
    assert not dataset.records[1].mask.load(6, 8).any()


@pytest.mark.parametrize(
    ("label", "extra"),
    [(f"0 {BOX}", ""), ("0 0 0 1 0 1 1 0 1", ""), ("0 0 0 1 0 1 1", "kpt_shape: [1, 2]\n")],
    ids=["boxes", "turned boxes", "key points"],
)
def test_boxes_and_key_points_are_no_masks(tmp_path, label, extra):
    write_yolo(tmp_path, {"a": label}, f"train: images\nnames: [cat]\n{extra}")
    assert read_dataset(tmp_path).records[0].mask is None


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("2 0.1 0.1 0.1 0.1", r"a\.txt: class number 2 is not in `names` of .*data\.yaml, which ends at 1"),
        ("cat 0.1 0.1 0.1 0.1", r"a\.txt: .*row 1: 'cat 0\.1.* is not numbers"),
        ("-1 0.1 0.1", "has no class number"),
        ("1", "has no class number"),
        ("0.5 0.1 0.1", "has no class number"),
    ],
)
def test_bad_input_label_file(tmp_path, label, message):
    write_yolo(tmp_path, {"a": label})
    with pytest.raises(TagmaskError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("train: images\nnames: cat\n", "key `names` is missing or no list"),
        ("names: [cat]\n", "names no images; expected one of the keys train, val, test"),
        ("train: images\nnames: {1: cat, 2: dog}\n", r"numbers are \[1, 2\]; expected 0, 1, 2"),
        ("train: pictures\nnames: [cat]\n", "train: no folder or list .*pictures; correct the path"),
        ("train: images\nnames: [cat, cat]\n", "class 'cat' stands twice"),
        ("names: [\n", "is no YAML"),
    ],
)
def test_bad_input_description(tmp_path, description, message):
    write_yolo(tmp_path, {"a": f"0 {BOX}"}, description)
    with pytest.raises(TagmaskError, match=message):
        read_dataset(tmp_path / "data.yaml")


def test_bad_input_folder_that_lacks_a_part(tmp_path):
    write_yolo(tmp_path, {"a": f"0 {BOX}"}, None)
    with pytest.raises(TagmaskError, match=r"nobody says the names of the class numbers; write .*classes\.txt"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(TagmaskError, match="says itself where its images are"):
        read_dataset(tmp_path, image_folder=tmp_path)
    (tmp_path / "labels/a.txt").rename(tmp_path / "labels/b.txt")
    with pytest.raises(TagmaskError, match=r"no image has a label file; for .*a\.jpg expected .*labels/a\.txt"):
        read_dataset(tmp_path)
    (tmp_path / "one.yaml").write_text("names: [cat]\n")
    (tmp_path / "two.yml").write_text("names: [cat]\n")
    with pytest.raises(TagmaskError, match=r"holds several descriptions \(one\.yaml, two\.yml\)"):
        read_dataset(tmp_path)


def test_bad_input_listed_image_that_is_missing(tmp_path):
    write_yolo(tmp_path, {"a": f"0 {BOX}"}, "train: train.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_text("images/a.jpg\nimages/gone.jpg\n")
    with pytest.raises(TagmaskError, match=r"data\.yaml: no image file .*gone\.jpg"):
        read_dataset(tmp_path)
