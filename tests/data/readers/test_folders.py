import os

import pytest

from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image


def names(dataset) -> list[tuple[str, tuple[str, ...], str]]:
    return [
        (record.name, tuple(dataset.classes[tag] for tag in record.tags), record.split) for record in dataset.records
    ]


def test_a_folder_a_class(tmp_path):
    for image in ("dog/b.jpg", "cat/a.png", "cat/deep/a.jpg"):
        write_image(tmp_path / image)
    (tmp_path / "cat/notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert names(dataset) == [("cat/a", ("cat",), ""), ("cat/deep/a", ("cat",), ""), ("dog/b", ("dog",), "")]
    assert set(dataset.skipped) == {
        f"{tmp_path}/cat/notes.txt: no image",
        f"{tmp_path}/empty: no image in it, so it is no class",
    }


def test_split_folders_above_class_folders(tmp_path):
    for image in ("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/a.jpg"):
        write_image(tmp_path / image)
    assert names(read_dataset(tmp_path)) == [
        ("train/cat/a", ("cat",), "train"),
        ("train/dog/b", ("dog",), "train"),
        ("val/cat/a", ("cat",), "val"),
    ]


def test_a_class_called_train_is_no_split(tmp_path):
    for image in ("train/a.jpg", "boat/b.jpg"):
        write_image(tmp_path / image)
    assert read_dataset(tmp_path).classes == ("boat", "train")


def test_classes_can_be_chosen_and_listed(tmp_path):
    for image in ("dog/b.jpg", "cat/a.png"):
        write_image(tmp_path / image)
    assert names(read_dataset(tmp_path, classes=["dog"])) == [("dog/b", ("dog",), "")]
    assert len(read_dataset(tmp_path, classes=["dog"], untagged="negative")) == 2
    (tmp_path / "classes.txt").write_text("dog\ncow\n")
    with pytest.raises(TagmaskError, match=r"cat/a\.png: tag 'cat' is not in the class list"):
        read_dataset(tmp_path)


def test_bad_input_image_without_tags_beside_the_class_folders(tmp_path):
    for image in ("cat/a.jpg", "dog/b.jpg", "loose.jpg"):
        write_image(tmp_path / image)
    assert read_dataset(tmp_path).skipped == (f"{tmp_path}/loose.jpg: image 'loose' has no tags",)
    assert names(read_dataset(tmp_path, untagged="negative"))[2] == ("loose", (), "")


def test_bad_input_names_that_collide(tmp_path):
    for image in ("cat/a.jpg", "cat/a.png", "dog/b.jpg"):
        write_image(tmp_path / image)
    with pytest.raises(TagmaskError, match=r"a\.png and .*a\.jpg .* both have the name 'cat/a'"):
        read_dataset(tmp_path)


def test_bad_input_class_folder_beside_split_folders(tmp_path):
    for image in ("train/cat/a.jpg", "val/cat/a.jpg", "dog/b.jpg"):
        write_image(tmp_path / image)
    with pytest.raises(TagmaskError, match=r"holds split folders \(train, val\) and the folder 'dog' beside them"):
        read_dataset(tmp_path)


def test_bad_input_folder_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(TagmaskError, match="no folder in it holds images; expected CLASS/IMAGE"):
        read_dataset(tmp_path, format="folders")


def test_bad_input_folders_that_are_no_classes(tmp_path):
    write_image(tmp_path / "a" / "images" / "cat" / "1.png")
    with pytest.raises(TagmaskError, match=r"looks like images beside .* \(the folder 'images'\); name that folder"):
        read_dataset(tmp_path / "a")
    for split in ("train", "valid"):
        write_image(tmp_path / "b" / split / "1.png")
    with pytest.raises(TagmaskError, match="train, valid are named after splits, not after classes"):
        read_dataset(tmp_path / "b")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # People's exports, each of which was read as a folder a class before, with 0 errors.
        ("obj_train_data/a.jpg obj_train_data/a.txt obj.names obj.data", r"looks like Darknet YOLO.*obj_train_data"),
        ("annotations/a.png images/a.jpg", r"looks like COCO.*'annotations'"),
        ("images/a.jpg masks/a.png", "looks like images beside labels or masks"),
        ("val2017/a.jpg annotations/captions_val2017.json", "looks like COCO.*'val2017'"),
        ("Images/a.jpg Masks/a.png", "looks like images beside labels or masks"),
        ("photos/a.jpg photos/a.json more/b.jpg", r"looks like a JSON of LabelMe, COCO or VIA.*a\.json is among"),
        ("photos/a.jpg photos/a.xml more/b.jpg", "looks like PASCAL VOC XML"),
        ("photos/a.jpg photos/a.txt more/b.jpg", "looks like Darknet YOLO"),
        ("train/photos/a.jpg train/photos/_annotations.coco.json train/more/b.jpg", "COCO or VIA"),
        ("train/images/a.jpg train/extra/a.png", "looks like images beside"),
        (
            "photos/a.jpg notes.txt",
            "the folder 'photos' would be the only class; expected a folder for each",
        ),
    ],
)
def test_bad_input_exports_of_other_formats(tmp_path, files, message):
    for file in files.split():
        if file.endswith((".jpg", ".png")):
            write_image(tmp_path / file)
        else:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("{}")
    with pytest.raises(TagmaskError, match=message) as raised:
        read_dataset(tmp_path, format="folders")
    assert "write their names into classes.txt" in str(raised.value)


def test_a_class_list_says_that_folders_are_classes(tmp_path):
    write_image(tmp_path / "masks/a.jpg")
    (tmp_path / "masks/about.json").write_text("{}")
    (tmp_path / "classes.txt").write_text("gloves\nmasks\n")
    assert read_dataset(tmp_path).classes == ("gloves", "masks")


def test_notes_among_the_images_are_left_out(tmp_path):
    for image in ("cat/a.jpg", "dog/b.jpg"):
        write_image(tmp_path / image)
    (tmp_path / "cat/README.txt").write_text("cats of 2024")
    assert read_dataset(tmp_path).skipped == (f"{tmp_path}/cat/README.txt: no image",)


def test_links_that_lead_back_are_not_followed_and_pipes_are_not_opened(tmp_path):
    for image in ("cat/a.jpg", "dog/b.jpg"):
        write_image(tmp_path / image)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "cat/again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    dataset = read_dataset(tmp_path)
    assert names(dataset) == [("cat/a", ("cat",), ""), ("dog/b", ("dog",), "")]
    assert f"{tmp_path}/cat/pipe.jpg: no image" in dataset.skipped
