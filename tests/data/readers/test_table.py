import json
import pickle
import re
import shlex

import numpy as np
import pytest

from tagmask.data.readers import collect, read_dataset
from tagmask.data.readers.problems import Problems
from tagmask.data.splits import reader_options
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig, load_recipe
from tests.data.trees import write_image, write_mask, write_table


def by_name(dataset) -> dict[str, tuple[str, ...]]:
    return {record.name: tuple(dataset.classes[tag] for tag in record.tags) for record in dataset.records}


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


def test_bad_input_masks_whose_order_nobody_says(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n", "a.jpg")
    write_mask(tmp_path / "masks/a.png", np.ones((6, 8)))
    with pytest.raises(TagmaskError, match=r"masks: nobody says which id .* write classes\.txt"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, classes=["cat"]).records[0].mask is not None
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(TagmaskError, match="mask_classes: 'cat' is missing"):
        read_dataset(tmp_path, mask_classes=["dog"])


def test_bad_input_masks_folder_missing_or_of_other_images(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n", "a.jpg")
    with pytest.raises(TagmaskError, match="no such folder; `masks` names a folder of PNG files"):
        read_dataset(tmp_path, masks=tmp_path / "nowhere", classes=["cat"])
    write_mask(tmp_path / "masks/other.png", np.ones((6, 8)))
    with pytest.raises(TagmaskError, match=r"no mask fits any image; for image 'a' expected a\.png"):
        read_dataset(tmp_path, masks=tmp_path / "masks", classes=["cat"])
    assert "no mask fits any image" in read_dataset(tmp_path, classes=["cat"]).skipped[0]


def test_bad_input_csv_naming_a_missing_image(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpeg,cat\nc.jpg,dog\n")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{tmp_path}: 2 problems"
    assert lines[1] == f"  {tmp_path}/tags.csv row 3: no image file {tmp_path}/images/b.jpeg; did you mean 'b.jpg'?"
    assert "row 4: no image file" in lines[2]


def test_bad_input_directory_where_an_image_should_be(tmp_path):
    write_table(tmp_path, "image,tags\nfolder.jpg,cat\n")
    (tmp_path / "images/folder.jpg").mkdir()
    with pytest.raises(TagmaskError, match=r"tags\.csv row 2: .*folder\.jpg is a folder, expected an image file"):
        read_dataset(tmp_path)


def test_bad_input_directory_where_a_table_or_class_list_should_be(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    (tmp_path / "other.csv").mkdir()
    with pytest.raises(TagmaskError, match=r"other\.csv: is empty"):
        read_dataset(tmp_path / "other.csv")
    with pytest.raises(TagmaskError, match=r"other\.csv: is a folder without a table"):
        read_dataset(tmp_path / "other.csv", format="table")
    (tmp_path / "classes.txt").mkdir()
    with pytest.raises(TagmaskError, match=r"classes\.txt: is a folder, expected a file"):
        read_dataset(tmp_path)


def test_bad_input_unknown_tag(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,Cat;zebra\nb.jpg,~dgo\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[1].endswith("tags.csv row 2: tag 'Cat' is not in the class list; did you mean 'cat'?")
    assert lines[2].endswith("tags.csv row 2: tag 'zebra' is not in the class list; expected one of cat, dog")
    assert lines[3].endswith("tags.csv row 3: tag 'dgo' is not in the class list; did you mean 'dog'?")


def test_tags_outside_the_given_classes_are_dropped_and_counted_where_there_is_no_list(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat;sky\nb.jpg,dog;~sky\nc.jpg,cat\n", "a.jpg b.jpg c.jpg")
    dataset = read_dataset(tmp_path, classes=["cat"])
    assert by_name(dataset) == {"a": ("cat",), "c": ("cat",)}
    assert dict(dataset.dropped) == {"sky": 2, "dog": 1}
    assert dataset.records[0].unknown == ()
    assert by_name(read_dataset(tmp_path, classes=["cat"], untagged="negative"))["b"] == ()
    with pytest.raises(TagmaskError, match=r"tags\.csv row 3: tag 'dog' is not in the class list"):
        read_dataset(tmp_path, classes=["cat", "sky"], other_tags="refuse")


def test_bad_input_misspelt_class_that_no_row_has_is_one_error(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,sheep\nb.jpg,sheep;sky\nc.jpg,cat\n", "a.jpg b.jpg c.jpg")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path, classes=["sheeep", "cat"])
    assert str(raised.value) == (
        f"class 'sheeep' of data.classes is in no row of {tmp_path / 'tags.csv'}; did you mean 'sheep'?"
    )
    assert by_name(read_dataset(tmp_path, classes=["sheeep", "cat"], other_tags="drop")) == {"c": ("cat",)}
    # A class that is spelt like no other tag, or like one that was chosen, too, may have no image.
    assert read_dataset(tmp_path, classes=["zebra", "cat"]).classes == ("zebra", "cat")
    assert read_dataset(tmp_path, classes=["sheeep", "sheep"]).classes == ("sheeep", "sheep")


def test_bad_input_chosen_class_that_the_data_does_not_have(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    (tmp_path / "classes.txt").write_text("cat\nsheep\n")
    with pytest.raises(TagmaskError, match=r"classes: 'shep' is not in .*classes\.txt; did you mean 'sheep'\?"):
        read_dataset(tmp_path, classes=["cat", "shep"])


def test_bad_input_image_without_tags(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,\n")
    skipping = read_dataset(tmp_path)
    assert by_name(skipping) == {"a": ("cat",)}
    assert skipping.skipped == (f"{tmp_path}/tags.csv row 3: image 'b' has no tags",)
    keeping = read_dataset(tmp_path, untagged="negative")
    assert by_name(keeping) == {"a": ("cat",), "b": ()}
    assert keeping.skipped == ()
    with pytest.raises(TagmaskError, match=r"tags\.csv row 3: image 'b' has no tags; tag it"):
        read_dataset(tmp_path, untagged="error")
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,\n")
    with pytest.raises(TagmaskError, match="no image bears a tag"):
        read_dataset(tmp_path)
    with pytest.raises(TagmaskError, match="no image to learn from; all 1 were left out as untagged"):
        read_dataset(tmp_path, classes=["cat"])


def test_bad_input_class_list_with_duplicates(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(TagmaskError, match=r"classes\.txt: class 'cat' stands twice, as 1 and 3"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(TagmaskError, match="classes: class 'cat' stands twice"):
        read_dataset(tmp_path, classes=["cat", "cat"])


def test_bad_input_duplicate_rows_and_names_that_collide(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n./a.jpg,dog\na.png,cat\n", "a.jpg a.png")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[1].endswith(
        f"row 3: image 'a' stands twice (first: {tmp_path}/tags.csv row 2); join the two, their tags by `;`"
    )
    assert "row 4:" in lines[2]
    assert lines[2].endswith("both have the name 'a', which masks are written under; rename one")


def test_bad_input_one_image_in_two_splits(tmp_path):
    write_table(tmp_path, "image,tags,split\na.jpg,cat,train\na.jpg,cat,val\n")
    with pytest.raises(
        TagmaskError, match=r"row 3: image 'a' stands twice, in split 'train' \(.* row 2\) and in 'val'; k"
    ):
        read_dataset(tmp_path)


def test_rows_below_a_line_for_spreadsheets_have_their_own_numbers(tmp_path):
    write_table(tmp_path, "sep=;\nimage;tags\na.jpg;cat\n;dog\n")
    with pytest.raises(TagmaskError, match="row 4: names no image"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tags.csv: is empty"),
        ("image,tags\n", "tags.csv: has no rows"),
        ("a.jpg,cat\n", "row 1: 'a.jpg,cat' lacks the column 'image'; expected a header `image,tags`"),
        ("image,animal\na.jpg,cat\n", "row 1: 'image,animal' lacks the column 'tags'"),
        ("image,cat,cat\na.jpg,1,0\n", "row 1: column 'cat' stands twice"),
        ("image,cat\na.jpg,1\nb.jpg,yes\n", "row 3: column 'cat' holds 'yes'; expected 1, 0, or -1 for not known"),
        ("image;tags\na.jpg;cat\n", "row 1: columns are separated by ';'; say so (--set data.separator=';')"),
        ("image\ttags\na.jpg\tcat\n", r"row 1: columns are separated by '\t'; say so (--set data.separator=tab)"),
        ("Filename;Labels\na.jpg;cat\n", "row 1: columns are separated by ';'; say so (--set data.separator=';')"),
        ("image,tags,tags\na.jpg,cat,dog\n", "row 1: column 'tags' stands twice"),
        ("image,tags,splits\na.jpg,cat,val\n", "row 1: column 'splits' is not known; did you mean 'split'?"),
        ("image,tags\na.jpg,cat,dog\n", "row 2: 3 cells under a header of 2; join tags by `;`"),
        ("image,tags\n,cat\n", "row 2: names no image"),
        ("image,tags\na.jpg,cat;~cat\n", "row 2: tag 'cat' is both given and unknown"),
        ('image,tags\n"a.jpg,cat\n', "unexpected end of data; check the row's quotes"),
    ],
)
def test_bad_input_malformed_csv(tmp_path, text, message):
    write_table(tmp_path, text)
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'image': 1}", "row 1: is no JSON (Expecting property name"),
        ('["a.jpg"]', 'row 1: expected an object like {"image": "a.jpg"'),
        ('{"image": "a.jpg"}', "row 1: lacks the key 'tags'"),
        ('{"image": "a.jpg", "tags": 3}', "row 1: `tags` is 3; expected a list of names"),
        (
            '{"image": "a.jpg", "tags": [], "unkown": []}',
            "row 1: column 'unkown' is not known; did you mean 'unknown'?",
        ),
    ],
)
def test_bad_input_malformed_json_lines(tmp_path, text, message):
    write_table(tmp_path, text + '\n{"image": "b.jpg", "tags": ["cat"]}', name="tags.jsonl")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    assert message in str(raised.value)


NAMES = "The names: `image`, or filename, file_name, image_name, image_id, id; "
NAMES += "`tags`, or labels, label, classes, category"


def test_bad_input_header_of_other_names_and_another_separator_is_one_error(tmp_path):
    text = "Photo;What is on it\na.jpg;cat, dog\nb.jpg;cow, cat, dog\n"
    table = write_table(tmp_path, text)
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    assert str(raised.value) == (
        f"{table} row 1: columns are separated by ';'; say so (--set data.separator=';' --set data.tag_separator="
        "comma, for its tags are joined by commas), and name them so that tagmask knows them: 'Photo;What is on it' "
        f"has no such names. {NAMES}"
    )
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path, separator="semicolon")
    assert "row 1: 'Photo;What is on it' lacks the column 'image'" in str(raised.value)
    assert str(raised.value).endswith(NAMES)


def test_bad_input_tags_joined_by_commas_under_a_header_with_semicolons(tmp_path):
    write_table(tmp_path, "image;tags\na.jpg;cat, dog\nb.jpg;cat\n")
    with pytest.raises(TagmaskError, match=r"data\.separator=';' --set data\.tag_separator=comma, for its tags"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, separator=";", tag_separator="comma").classes == ("cat", "dog")
    write_table(tmp_path, "image;tags\na.jpg;cat;dog\nb.jpg;cat\n")
    with pytest.raises(TagmaskError, match=r"row 2: 3 cells under a header of 2; join tags by another mark than ';'"):
        read_dataset(tmp_path, separator=";")


def test_bad_input_table_in_another_encoding(tmp_path):
    table = write_table(tmp_path, "")
    table.write_bytes("image,tags\na.jpg,bär\n".encode("cp1252"))
    with pytest.raises(TagmaskError, match=r"tags\.csv: is not UTF-8 text .* save it as UTF-8"):
        read_dataset(tmp_path)


def test_bad_input_only_ten_of_many_problems_are_shown(tmp_path):
    write_table(tmp_path, "image,tags\n" + "".join(f"{number}.png,cat\n" for number in range(25)))
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("25 problems")
    assert len(lines) == 12
    assert lines[-1] == f"  and 15 more; `tagmask data check {tmp_path}` lists all of them"


def test_the_command_that_lists_all_problems_says_how_the_data_are_read(tmp_path):
    write_table(tmp_path, "image|tags\n" + "".join(f"{number}.jpg|cat, red\n" for number in range(12)))
    chosen = DataConfig(separator="|", tag_separator="comma", classes=("cat", "it's red"), background=False)
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path, **reader_options(chosen))
    last = str(raised.value).splitlines()[-1]
    command = shlex.split(last.split("`")[1])
    overrides = command[5::2]
    assert command[:4] == ["tagmask", "data", "check", str(tmp_path)]
    assert set(command[4::2]) == {"--set"}
    assert load_recipe({"method": "cam"}, overrides).data == chosen
    with pytest.raises(TagmaskError) as raised:  # the classes of a run are no option of the check
        read_dataset(tmp_path, **reader_options(DataConfig(separator="|"), ("cat", "red")))
    assert f"`tagmask data check {tmp_path} --set 'data.separator=|'`" in str(raised.value)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ";;"}, "separator: ';;' is no single character; write one, such as ';', or a word: "),
        ({"separator": "semikolon"}, "or a word: tab, space, comma, semicolon, bar"),
        ({"tag_separator": "coma"}, "tag_separator: 'coma' is none of tab, space, comma, semicolon, bar; did you mean"),
        ({"tag_separator": "Comma"}, "did you mean 'comma'?"),
        ({"separator": ""}, "separator: '' is no single character"),
        ({"tag_separator": ""}, "tag_separator: is empty; write what stands between tags, also as a word: tab, space"),
        ({"encoding": "latin1000"}, "encoding: 'latin1000' is not known; write utf-8, latin-1"),
        ({"encoding": "base64"}, "encoding: 'base64' is not known"),
    ],
)
def test_bad_input_separators_and_encodings(tmp_path, options, message):
    table = write_table(tmp_path, "image,tags\na.jpg,cat\n")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(table, **options)
    assert message in str(raised.value)
    write_image(tmp_path / "folders/cat/a.jpg")
    write_image(tmp_path / "folders/dog/b.jpg")
    with pytest.raises(TagmaskError, match=r"separator: is for tables, and .* is read as folders; remove the key"):
        read_dataset(tmp_path / "folders", separator=";")


def test_bad_input_spreadsheets_and_archives(tmp_path):
    for name in ("tags.xlsx", "tags.ods"):
        (tmp_path / name).touch()
        with pytest.raises(TagmaskError, match=rf"{name}: is a spreadsheet; save it .*\*CSV UTF-8\*"):
            read_dataset(tmp_path / name)
    with pytest.raises(TagmaskError, match=r"holds no table but the spreadsheet tags\.ods; save it"):
        read_dataset(tmp_path)
    (tmp_path / "shard-0000.zip").touch()
    with pytest.raises(TagmaskError, match=r"shard-0000\.zip: is an archive; unpack it"):
        read_dataset(tmp_path / "shard-0000.zip")


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
