import json

import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image


def write_metadata(folder, *lines: dict, images: str = "a.jpg b.jpg"):
    for image in images.split():
        write_image(folder / image)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_lists_strings_numbers_objects_and_what_nobody_knows(tmp_path):
    write_metadata(
        tmp_path,
        {"file_name": "a.jpg", "tags": ["cat", "dog"], "caption": "x"},
        {"file_name": "b.jpg", "tags": "dog;~cat"},
        {"file_name": "sub/ü.jpg", "tags": [1], "unknown": ["bird"]},
        {"file_name": "d.jpg", "tags": {"bbox": [[0, 0, 1, 1]], "categories": [2, 2]}},
        {"file_name": "e.jpg", "tags": None},
        {"file_name": "f.jpg", "tags": []},
        images="a.jpg b.jpg sub/ü.jpg d.jpg e.jpg f.jpg",
    )
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    assert detect(tmp_path)[0] == detect(tmp_path / "metadata.jsonl")[0] == "imagefolder"
    dataset = read_dataset(tmp_path, untagged="negative")
    assert [(record.name, record.tags, record.unknown) for record in dataset.records] == [
        ("a", (0, 1), ()),
        ("b", (1,), (0,)),
        ("sub/ü", (1,), (2,)),
        ("d", (2,), ()),
        ("e", (), (0, 1, 2)),
        ("f", (), ()),
    ]


def test_csv_with_joined_names_or_json(tmp_path):
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    (tmp_path / "metadata.csv").write_text('file_name,labels\na.jpg,"[""cat"", ""dog""]"\nb.jpg,dog; cat\n')
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert [record.tags for record in dataset.records] == [(0, 1), (0, 1)]


@pytest.mark.parametrize("above", ["", "data/"])
def test_splits_are_folders(tmp_path, above):
    write_metadata(tmp_path / f"{above}train", {"file_name": "a.jpg", "label": "cat"}, images="a.jpg")
    write_metadata(tmp_path / f"{above}test", {"file_name": "a.jpg", "label": "dog"}, images="a.jpg")
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.split) for record in dataset.records] == [
        (f"{above}test/a", "test"),
        (f"{above}train/a", "train"),
    ]


def test_images_in_a_named_folder(tmp_path):
    path = write_metadata(tmp_path / "set", {"file_name": "a.jpg", "tags": "cat"}, images="")
    image = write_image(tmp_path / "photos/a.jpg")
    assert read_dataset(path, image_folder=tmp_path / "photos").records[0].image == image


def test_a_table_called_metadata_stays_a_table(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "metadata.csv").write_text("image,tags\na.jpg,cat\n")
    assert detect(tmp_path)[0] == "table"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"tags": ["cat"]}, "row 1: names no image"),
        ({"file_name": "a.jpg", "caption": "x"}, "has no column of tags; expected one called tags, labels"),
        ({"file_name": "gone.jpg", "tags": "cat"}, r"row 1: no image file .*gone\.jpg"),
        ({"file_name": "a.jpg", "tags": 3}, "tag 3 is a number, and nobody says its name; write classes.txt"),
        ({"file_name": "a.jpg", "tags": True}, "neither a name nor a number"),
        ({"file_name": "a.jpg", "tags": 0.5}, "tags are 0.5; expected a list of names"),
        ({"file_name": "a.jpg", "tags": "[cat"}, "begin as a JSON list and are none"),
        ({"file_name": "a.jpg", "tags": ["cat", "~cat"]}, "tag 'cat' is both given and unknown"),
        (["file_name"], "row 1: is no object"),
    ],
)
def test_bad_input_row(tmp_path, line, message):
    path = write_metadata(tmp_path, line)
    with pytest.raises(TagmaskError, match=message):
        read_dataset(path, format="imagefolder")


def test_bad_input_number_outside_the_class_list_and_no_json(tmp_path):
    path = write_metadata(tmp_path, {"file_name": "a.jpg", "tags": [2]})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with path.open("a") as stream:
        stream.write("\n{")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(path)
    assert "row 1: tag 2 is outside the class list, which goes from 0 to 1" in str(raised.value)
    assert "row 2: is no JSON" in str(raised.value)
