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
    for image in ("cat/a.jpg", "loose.jpg"):
        write_image(tmp_path / image)
    assert read_dataset(tmp_path).skipped == (f"{tmp_path}/loose.jpg: image 'loose' has no tags",)
    assert names(read_dataset(tmp_path, untagged="negative"))[1] == ("loose", (), "")


def test_bad_input_names_that_collide(tmp_path):
    for image in ("cat/a.jpg", "cat/a.png"):
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
    with pytest.raises(TagmaskError, match=r"the folder 'images' would be the only class; name .*a/images if"):
        read_dataset(tmp_path / "a")
    for split in ("train", "valid"):
        write_image(tmp_path / "b" / split / "1.png")
    with pytest.raises(TagmaskError, match="train, valid are named after splits, not after classes"):
        read_dataset(tmp_path / "b")
