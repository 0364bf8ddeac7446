"""The gate for names of images, splits and classes: nothing unfit gets past Record, Dataset or any reader."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tagmask.data import names
from tagmask.data.check import check_dataset
from tagmask.data.dataset import Dataset, Record, check_class_list
from tagmask.data.names import printable
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_table

# Whatever str.splitlines splits at, and what no file name or XML holds.
UNFIT = [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\0", "\x1b", "\x7f", "\ud800", "\udce9", "\uffff"]


def record(name: str = "a", split: str = "", image: str = "a.png") -> Record:
    return Record(name, Path(image), (0,), split=split)


@pytest.mark.parametrize("sign", UNFIT, ids=ascii)
def test_signs_that_no_name_may_hold(sign):
    for make in (
        lambda: record(f"a{sign}b"),
        lambda: record(split=f"a{sign}b"),
        lambda: check_class_list(["cat", f"a{sign}b"], "classes"),
        lambda: Dataset((), (f"a{sign}b",)),
        lambda: Dataset((), ("cat",), context=(f"a{sign}b",)),
    ):
        with pytest.raises(TagmaskError, match=r"line break or control character|is not UTF-8") as raised:
            make()
        assert str(raised.value).isprintable()
    assert printable(f"a{sign}b").isprintable()


@pytest.mark.parametrize(
    "name", ["", "/etc/a", "../a", "a/../b", "a/..", "./a", "a//b", "a/", "..\\a", "\\a", "C:\\a", "c:/a", "x" * 241]
)
def test_image_names_that_are_no_path_below_a_folder(name):
    with pytest.raises(TagmaskError, match=r"image name .*(absolute|part)"):
        record(name)


@pytest.mark.parametrize("name", ["a", "sub/ü b", "a.b", "...", "x" * 240, "é" * 120 + "/b", "a:b", "[/old]", "~cat"])
def test_fit_names_pass(name):
    assert record(name).name == name
    assert check_class_list([name], "classes") == (name,)


@pytest.mark.parametrize("split", ["../../victim", "a/b", "a\\b", "..", ".", "x" * 241])
def test_splits_that_are_paths(tmp_path, split):
    with pytest.raises(TagmaskError, match=r"split .* of image 'a' (is a path|has a part)"):
        record(split=split)
    write_table(tmp_path, f"image,tags,split\na.jpg,cow,{split}\n")
    with pytest.raises(TagmaskError, match=r"tags\.csv row 2: split"):
        read_dataset(tmp_path)
    assert [error.kind for error in check_dataset(tmp_path).errors] == ["name"]


def test_image_paths_that_are_not_utf8():
    with pytest.raises(TagmaskError, match=r"'caf\\udce9/a.png' is not UTF-8"):
        record(image="caf\udce9/a.png")


@pytest.mark.parametrize(("first", "second"), [("a", "A"), ("sub/a", "Sub/a"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_differ_in_capitals_alone(tmp_path, first, second):
    with pytest.raises(TagmaskError, match=r"images .* and .* differ in capitals alone"):
        Dataset((record(first), record(second)), ("cat",))
    with pytest.raises(TagmaskError, match=r"splits .* and .* differ in capitals alone"):
        Dataset((record("1", split=first.replace("/", "")), record("2", split=second.replace("/", ""))), ("cat",))
    write_table(tmp_path, f"image,tags\n{first}.jpg,cat\n{second}.jpg,cat\n", f"{first}.jpg {second}.jpg")
    table = tmp_path / "tags.csv"
    with pytest.raises(TagmaskError, match=rf"row 3: images .* and .* \({table} row 2\) differ in capitals alone"):
        read_dataset(tmp_path)
    assert [error.kind for error in check_dataset(tmp_path).errors] == ["duplicate name"]


def test_splits_of_a_table_that_differ_in_capitals_alone(tmp_path):
    write_table(tmp_path, "image,tags,split\na.jpg,cat,Train\nb.jpg,cat,train\n")
    with pytest.raises(TagmaskError, match=r"row 3: split 'train' is 'Train' in other capitals \(first: .* row 2\)"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x1c"], ids=ascii)
def test_classes_with_line_breaks(tmp_path, sign):
    """They were accepted by reader and check, and the finished run could not be opened."""
    write_table(tmp_path, f"image,tags\na.jpg,c{sign}w\nb.jpg,cat\n")
    with pytest.raises(TagmaskError, match="line break or control character"):
        read_dataset(tmp_path)
    assert not check_dataset(tmp_path).ok
    (tmp_path / "classes.txt").write_text(f"cat\nc{sign}w\n", encoding="utf-8")
    with pytest.raises(TagmaskError, match=r"classes\.txt: class 2, .* line break or control character"):
        read_dataset(tmp_path)


def test_folders_with_names_that_are_not_utf8(tmp_path):
    """They were read with 0 errors, and training and prediction ended in a traceback."""
    for image in ("cat/a.jpg", "dog/b.jpg"):
        write_image(tmp_path / image)
    os.rename(tmp_path / "cat/a.jpg", os.fsencode(tmp_path / "cat") + b"/caf\xe9.jpg")
    with pytest.raises(TagmaskError, match=r"caf\\udce9\.jpg: image name 'cat/caf\\udce9' is not UTF-8"):
        read_dataset(tmp_path)
    report = check_dataset(tmp_path)
    assert [error.kind for error in report.errors] == ["name"]
    assert str(report.errors[0]).isprintable()
    os.rename(tmp_path / "dog", os.fsencode(tmp_path) + b"/d\xf6g")
    report = check_dataset(tmp_path)
    assert "class 2, 'd\\udcf6g', is not UTF-8" in str(report.errors[-1])


NAMES = ["a\0b.jpg", "a\ud800.jpg", "x" * 5000 + ".jpg", "a\nb.jpg"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_images_that_no_file_system_holds(tmp_path, name):
    """Each was a traceback of the first reader that asked the disk for it."""
    coco = {
        "images": [{"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": name}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    sources = {
        "table/tags.jsonl": {"image": name, "tags": ["cat"]},
        "folder/metadata.jsonl": {"file_name": name, "tags": ["cat"]},
        "coco/instances_train.json": coco,
        "studio/export.json": [
            {"id": 1, "data": {"image": name}, "annotations": [{"result": [{"value": {"choices": ["cat"]}}]}]}
        ],
    }
    for place, content in sources.items():
        path = tmp_path / place
        write_image(path.parent / "b.jpg")
        path.write_text(json.dumps(content))
        with pytest.raises(TagmaskError, match="no image file"):
            read_dataset(path)
        report = check_dataset(path)
        assert not report.ok
        assert all(str(error).isprintable() for error in report.errors)


@pytest.mark.parametrize(
    "name",
    ["a", "-a", "0/1/a.b c", ".a", "a/.b", "a/..", "a//b", "/a", "a/", "", "é", "a\n", "a\\..\\b", "x" * 241, " a"],
)
@pytest.mark.parametrize("fault", [names.image_name_fault, names.split_name_fault])
def test_the_quick_look_at_a_name_says_what_the_closer_one_says(monkeypatch, name, fault):
    quick = fault(name)
    monkeypatch.setattr(names, "_PLAIN", re.compile("(?!)"))  # matches nothing
    assert quick == fault(name)


def test_a_part_of_a_data_set_is_one_of_its_own():
    whole = Dataset((record("a", "train"), record("b", "val")), ("cat",))
    assert (whole.splits, len(whole.digest())) == (("train", "val"), 16)
    part = whole.keep(whole.records[:1])
    assert part == Dataset(whole.records[:1], ("cat",))
    assert part.splits == ("train",)
    assert part.digest() == Dataset(whole.records[:1], ("cat",)).digest() != whole.digest()


def test_the_digest_of_many_records_is_that_of_their_json(monkeypatch):
    many = Dataset(tuple(Record(f"ü{number}", Path("a.png"), (number % 2,), (2,)) for number in range(5)), tuple("abc"))
    text = json.dumps([(each.name, each.tags, each.unknown, each.context) for each in many.records], ensure_ascii=False)
    monkeypatch.setattr("tagmask.data.dataset.PIECE", 2)
    assert many.digest() == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert Dataset((), ("a",)).digest() == hashlib.sha256(b"[]").hexdigest()[:16]


def test_a_record_gives_its_image_as_a_path():
    made = record(image="sub/a.png")
    assert made.image == Path("sub/a.png")
    assert replace(made, name="b").image == Path("sub/a.png")
    assert made == record(image="sub/a.png") != record(image="a.png")
    assert repr(made.image) in repr(made)
    with pytest.raises(TypeError, match="image"):
        Record("a")  # pyright: ignore
