"""Tables that are read: columns, names, splits, classes, separators, encodings."""

import json
import pickle
import re

import numpy as np
import pytest

from tagmask.data.readers import collect, read_dataset
from tagmask.data.readers.problems import Problems
from tagmask.errors import TagmaskError
from tests.data.trees import by_name, write_image, write_mask, write_table


def test_csv_with_tags_and_splits(tmp_path):
    table = write_table(tmp_path, "image,tags,split\na.jpg,dog;cat,train\nsub/b.jpg, cat ,val\n", "a.jpg sub/b.jpg")
    for path in (tmp_path, table):
        dataset = read_dataset(path)
        assert dataset.classes == ("cat", "dog")
        assert by_name(dataset) == {"a": ("cat", "dog"), "sub/b": ("cat",)}
        assert [record.split for record in dataset.records] == ["train", "val"]
        assert [record.image for record in dataset.records] == [
            tmp_path / "images/a.jpg",
            tmp_path / "images/sub/b.jpg",
        ]
        assert dataset.tag_source == "tags given in tags.csv"
        assert dataset.background
        assert dataset.skipped == ()


def test_columns_in_any_order_with_others_between_and_a_byte_order_mark(tmp_path):
    write_table(tmp_path, "\ufeffid,Tags,image_id,Image\n1,cat,x,a.jpg\n\n2,dog,y,b.jpg\n")
    assert by_name(read_dataset(tmp_path)) == {"a": ("cat",), "b": ("dog",)}


def test_json_lines_with_lists_strings_and_unknown_tags(tmp_path):
    lines = [
        {"image": "a.jpg", "tags": ["cat"], "unknown": ["dog"], "split": "train"},
        {"image": "b.jpg", "tags": "dog;~cat", "note": "kept aside"},
    ]
    table = write_table(tmp_path, "\n".join(map(json.dumps, lines)), name="tags.jsonl")
    dataset = read_dataset(table)
    assert [(record.tags, record.unknown, record.split) for record in dataset.records] == [
        ((0,), (1,), "train"),
        ((1,), (0,), ""),
    ]


def test_tilde_marks_an_unknown_tag(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat;~dog\nb.jpg,dog\n")
    assert [(record.tags, record.unknown) for record in read_dataset(tmp_path).records] == [((0,), (1,)), ((1,), ())]


def test_images_beside_the_table_in_a_named_folder_or_at_an_absolute_path(tmp_path):
    elsewhere = write_image(tmp_path / "elsewhere/c.jpg")
    write_image(tmp_path / "set/b.jpg")
    write_table(tmp_path / "set", f"image,tags\nimages/a.jpg,cat\nb.jpg,cat\n{elsewhere},cat\n", "a.jpg")
    dataset = read_dataset(tmp_path / "set")
    assert [record.name for record in dataset.records][:2] == ["a", "b"]
    assert dataset.records[2].image == elsewhere
    assert dataset.records[2].name.endswith("elsewhere/c")
    assert not dataset.records[2].name.startswith("/")
    (tmp_path / "set/tags.csv").write_text("image,tags\nc.jpg,cat\n")
    assert by_name(read_dataset(tmp_path / "set", image_folder=tmp_path / "elsewhere")) == {"c": ("cat",)}


def test_relative_paths(tmp_path, monkeypatch):
    write_table(tmp_path, "image,tags\na.jpg,cat\nother/b.jpg,cat\n", "a.jpg ../other/b.jpg")
    monkeypatch.chdir(tmp_path)
    for path in (".", "tags.csv"):
        dataset = read_dataset(path)
        assert [record.name for record in dataset.records] == ["a", "other/b"]
        assert all(record.image.is_file() for record in dataset.records)


def test_records_travel_to_other_processes(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n", "a.jpg")
    write_mask(tmp_path / "masks/a.png", np.ones((6, 8)))
    dataset = read_dataset(tmp_path, classes=["cat"])
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    assert (copy.records[0].mask.load(6, 8) == 1).all()


def test_class_list_gives_order_and_classes_without_images(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,dog\n")
    (tmp_path / "classes.txt").write_text("dog\ncow\ncat\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("dog", "cow", "cat")
    np.testing.assert_array_equal(dataset.tag_matrix(), [[0, 0, 1], [1, 0, 0]])


def test_subset_of_classes_drops_tags_and_maps_masks(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,grass;cow\nb.jpg,grass;sky\n")
    (tmp_path / "classes.txt").write_text("grass\nsky\ncow\n")
    ids = np.resize([0, 1, 2, 3, 255], (6, 8))
    write_mask(tmp_path / "masks/a.png", ids)
    whole = read_dataset(tmp_path, background=False)
    np.testing.assert_array_equal(whole.records[0].mask.load(6, 8), np.where(ids == 0, 255, ids))
    assert whole.records[1].mask is None
    things = read_dataset(tmp_path, classes=["cow"])
    assert by_name(things) == {"a": ("cow",)}
    assert len(things.skipped) == 1
    assert things.skipped[0].startswith(f"{tmp_path / 'tags.csv'} row 3: image 'b' bears none of the chosen classes")
    np.testing.assert_array_equal(things.records[0].mask.load(6, 8), np.choose(np.minimum(ids, 4), [0, 0, 0, 1, 255]))
    closed = read_dataset(tmp_path, classes=["cow"], background=False)
    np.testing.assert_array_equal(closed.records[0].mask.load(6, 8), np.where(ids == 3, 1, 255))


@pytest.mark.parametrize("name", ["set", "Subset", "partition", "fold"])
def test_a_column_of_splits_by_another_name_is_known_by_its_first_row(tmp_path, name):
    write_table(tmp_path, f"image,tags,{name}\na.jpg,cat,Train\nb.jpg,cat,val\n", "a.jpg b.jpg")
    assert [record.split for record in read_dataset(tmp_path).records] == ["Train", "val"]
    write_table(tmp_path, f"image,tags,{name}\na.jpg,cat,1\nb.jpg,cat,val\n")
    assert [record.split for record in read_dataset(tmp_path).records] == ["", ""]


def test_a_list_beside_the_masks_says_what_their_ids_mean(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat;dog\n", "a.jpg")
    ids = np.zeros((6, 8), np.uint8)
    ids[0, :3] = 1, 2, 3
    write_mask(tmp_path / "masks/a.png", ids)
    (tmp_path / "masks" / "classes.txt").write_text("bird\ndog\ncat\n")

    def labels(**options):
        return read_dataset(tmp_path, **options).records[0].mask.load(6, 8)[0, :3].tolist()

    assert labels() == [0, 2, 1]  # cat is 1 and dog 2, as in the alphabet
    assert labels(classes=["dog", "cat"]) == [0, 1, 2]  # those of a run
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert labels() == [0, 2, 1]
    assert labels(mask_classes=["dog", "cat", "bird"]) == [2, 1, 0]
    (tmp_path / "masks" / "classes.txt").write_text("bird\ndog\n")
    with pytest.raises(TagmaskError, match=r"masks/classes\.txt: .cat. is missing, so the masks in"):
        read_dataset(tmp_path)


def test_mask_classes_name_the_ids_of_the_masks(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n", "a.jpg")
    write_mask(tmp_path / "truth/a.png", np.full((6, 8), 2))
    dataset = read_dataset(tmp_path, masks=tmp_path / "truth", mask_classes=["dog", "cat"], classes=["cat"])
    assert (dataset.records[0].mask.load(6, 8) == 1).all()
    dataset = read_dataset(tmp_path, masks=tmp_path / "truth", mask_classes=["dog", "cat"])
    assert dataset.classes == ("dog", "cat")


def test_masks_that_tagmask_wrote_name_their_ids_themselves(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,dog;cat\n", "a.jpg")
    write_mask(tmp_path / "written/a.png", np.full((6, 8), 2))
    (tmp_path / "written/classes.txt").write_text("dog\ncat\n")
    dataset = read_dataset(tmp_path, masks=tmp_path / "written")
    assert dataset.classes == ("cat", "dog")
    assert (dataset.records[0].mask.load(6, 8) == 1).all()


def test_tags_outside_the_given_classes_are_dropped_and_counted_where_there_is_no_list(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat;sky\nb.jpg,dog;~sky\nc.jpg,cat\n", "a.jpg b.jpg c.jpg")
    dataset = read_dataset(tmp_path, classes=["cat"])
    assert by_name(dataset) == {"a": ("cat",), "c": ("cat",)}
    assert dict(dataset.dropped) == {"sky": 2, "dog": 1}
    assert dataset.records[0].unknown == ()
    assert by_name(read_dataset(tmp_path, classes=["cat"], untagged="negative"))["b"] == ()
    with pytest.raises(TagmaskError, match=r"tags\.csv row 3: tag 'dog' is not in the class list"):
        read_dataset(tmp_path, classes=["cat", "sky"], other_tags="refuse")


def test_rows_below_a_line_for_spreadsheets_have_their_own_numbers(tmp_path):
    write_table(tmp_path, "sep=;\nimage;tags\na.jpg;cat\n;dog\n")
    with pytest.raises(TagmaskError, match="row 4: names no image"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "image_name,tags\na.jpg,cat;dog\nb.jpg,dog\n",
        "filename,labels\na.jpg,cat;dog\nb.jpg,dog\n",
        "Image_ID,Label\na,cat;dog\nb,dog\n",
        "id,category\na,cat;dog\nb,dog\n",
        "id,image,classes\n0,a.jpg,cat;dog\n1,b.jpg,dog\n",
        "file_name,cat,dog\na.jpg,1,1\nb.jpg,0,1\n",
        "filename, cat, dog\na.jpg,1.0,1.0\nb.jpg,0.0,1.0\n",
    ],
)
def test_tables_as_other_people_write_them(tmp_path, text):
    write_table(tmp_path, text)
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert [(record.name, record.tags, record.unknown) for record in dataset.records] == [
        ("a", (0, 1), ()),
        ("b", (1,), ()),
    ]


def test_columns_of_classes_keep_their_order_and_say_what_nobody_knows(tmp_path):
    write_table(tmp_path, "image,split,Dog,cat\na.jpg,train,1,-1\nb.jpg,val,,1\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("Dog", "cat")
    assert [(record.split, record.tags, record.unknown) for record in dataset.records] == [
        ("train", (0,), (1,)),
        ("val", (1,), (0,)),
    ]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("filename;tags\na.jpg;cat,dog\nb.jpg;dog\n", {"separator": ";", "tag_separator": ","}),
        ('filename;tags\na.jpg;"cat;dog"\nb.jpg;dog\n', {"separator": ";"}),
        ("image_name\ttags\na\tcat dog\nb\tdog\n", {"separator": "tab", "tag_separator": "space"}),
        ("image;cat;dog\na.jpg;1;1\nb.jpg;0;1\n", {"separator": ";"}),
        ('image,tags\na.jpg,"cat, dog"\nb.jpg,dog\n', {"tag_separator": "comma"}),
        ("sep=,\nimage,tags\na.jpg,cat;dog\nb.jpg,dog\n", {}),
        ('"sep=|"\r\nimage|tags\r\na.jpg|cat;dog\r\nb.jpg|dog\r\n', {}),
    ],
)
def test_separators_by_name(tmp_path, text, options):
    table = write_table(tmp_path, text, name="tags.csv")
    dataset = read_dataset(table, **options)
    assert dataset.classes == ("cat", "dog")
    assert [(record.name, record.tags) for record in dataset.records] == [("a", (0, 1)), ("b", (1,))]


def test_encodings_by_name(tmp_path):
    table = write_table(tmp_path, "")
    table.write_bytes("image,tags\na.jpg,Käfer\n".encode("latin-1"))
    assert read_dataset(table, encoding="latin-1").classes == ("Käfer",)
    assert read_dataset(table, encoding="cp1252").classes == ("Käfer",)
    with pytest.raises(TagmaskError, match=r"tags\.csv: is not UTF-8 .* its encoding \(--set data\.encoding=latin-1"):
        read_dataset(table)
    (tmp_path / "wide.csv").write_text("image,tags\na.jpg,Käfer\n", encoding="utf-16")
    with pytest.raises(TagmaskError, match=r"its encoding \(--set data\.encoding=utf-16"):
        read_dataset(tmp_path / "wide.csv")
    with pytest.raises(TagmaskError, match=r"tags\.csv: is not UTF-16 text"):
        read_dataset(table, encoding="utf-16")


def test_lines_of_json_with_other_keys(tmp_path):
    write_table(tmp_path, '{"file_name": "a.jpg", "labels": ["cat"], "id": 7}\n', name="tags.jsonl")
    assert read_dataset(tmp_path).classes == ("cat",)


def test_rows_read_the_quick_way_are_those_of_the_careful_one(tmp_path, monkeypatch):
    images = "a.jpg sub/b.jpg d.JPG é.jpg .sub/e.jpg sub/f.g.jpg h.jpg x_-/i.jpg"
    again = "./a.jpg sub//b.jpg sub/../h.jpg images/a.jpg sub/f.g sub\\b.jpg h"
    rows = "".join(f"{name}, cat;dog ;~cow;;dog,train\n" for name in f"{images} {again}".split())
    write_table(tmp_path, "image,tags,split\n" + rows, images)

    def read():
        problems = Problems()
        collected = collect(tmp_path, problems)
        return collected.dataset, collected.places(), problems.found

    quick = read()
    monkeypatch.setattr("tagmask.data.readers.table._PLAIN", re.compile("(?!)"))  # matches nothing
    assert read() == quick
    dataset, _, problems = quick
    assert [record.name for record in dataset.records] == [name.rpartition(".")[0] for name in images.split()]
    assert {(record.tags, record.unknown, record.split) for record in dataset.records} == {((0, 2), (1,), "train")}
    assert [problem.kind for problem in problems] == ["duplicate name"] * 7


def test_of_a_thousand_classes_some_are_chosen(tmp_path):
    names = [f"c{number}" for number in range(1000)]
    table = write_table(tmp_path, "image,tags\na.jpg,c1;c999\nb.jpg,c500\n")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    dataset = read_dataset(table)
    assert len(dataset.classes) == 1001
    assert [dataset.classes[tag] for tag in dataset.records[0].tags] == ["c1", "c999"]
    dataset = read_dataset(table, classes=("c999", "c7"), untagged="negative")
    assert [(record.name, record.tags) for record in dataset.records] == [("a", (0,)), ("b", ())]
    write_mask(tmp_path / "masks" / "a.png", np.zeros((6, 8)))
    with pytest.raises(TagmaskError, match=r"masks, list .*data\.mask_classes.*: 1000 classes, .* write ignored_255"):
        read_dataset(table, classes=("c999", "c7"))
    read_dataset(table, classes=("c999", "c7"), mask_classes=("c7", "c999"))
