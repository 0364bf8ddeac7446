"""Tables that cannot be read, and what is said of them."""

import shlex

import numpy as np
import pytest

from tagmask.data.readers import read_dataset
from tagmask.data.splits import reader_options
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig, load_recipe
from tests.data.trees import by_name, write_image, write_mask, write_table


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


def test_bad_input_image_whose_name_is_encoded_otherwise(tmp_path):
    write_table(tmp_path, "image,tags\n\u00e4.png,cat\n", "a\u0308.png")
    with pytest.raises(TagmaskError, match=r"one is there whose letters are encoded otherwise \(Unicode NFC and NFD"):
        read_dataset(tmp_path)


def test_bad_input_masks_of_more_classes_than_are_chosen_without_a_list(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat;dog\n", "a.jpg")
    write_mask(tmp_path / "masks/a.png", np.ones((6, 8)))
    for more in ({"classes": ["dog"]}, {"classes": ["dog"], "context": ["cat"]}):
        with pytest.raises(TagmaskError, match=r"masks: nobody says which id .* write classes\.txt"):
            read_dataset(tmp_path, **more)
    assert read_dataset(tmp_path, classes=["dog", "cat"]).records[0].mask.load(6, 8).max() == 1
