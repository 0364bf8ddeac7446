import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tagmask.cli.check_report import render
from tagmask.data.check import check_dataset, cooccurrence
from tests.data.trees import write_image, write_mask, write_table


def text_of(report) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(report))
    return console.export_text()


def messages(problems) -> list[str]:
    return [str(problem) for problem in problems]


def errors_of(report, kind: str) -> list[str]:
    return messages(error for error in report.errors if error.kind == kind)


def test_clean_data(tmp_path):
    write_table(tmp_path, "image,tags,split\na.jpg,cat;dog,train\nb.jpg,cat;~dog,val\n")
    write_image(tmp_path / "images/b.jpg", (40, 50))
    for name, shape in {"a": (6, 8), "b": (50, 40)}.items():
        write_mask(tmp_path / f"masks/{name}.png", np.ones(shape))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    report = check_dataset(tmp_path)
    assert report.ok
    assert (report.images, report.untagged, report.with_mask) == (2, 0, 2)
    assert report.splits == {"train": 1, "val": 1}
    assert report.class_counts == {"train": (1, 1), "val": (1, 0)}
    assert (report.class_totals, report.unknown_totals) == ((2, 1), (0, 1))
    assert (report.smallest, report.largest) == ((8, 6), (40, 50))
    np.testing.assert_array_equal(report.cooccurrence, [[1, 0.5], [1, 1]])
    text = text_of(report)
    assert "2 images, 2 classes; tags given in tags.csv" in text
    assert "sizes from 8 x 6 to 40 x 50" in text
    assert "not known" in text
    assert "0 errors" in text


def test_cooccurrence_is_given_the_row():
    tags = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(cooccurrence(tags), [[1, 0.5, 0], [1, 1, 0], [np.nan, np.nan, np.nan]])


def test_cooccurrence_does_not_overflow():
    assert cooccurrence(np.ones((300, 2), dtype=np.uint8)).tolist() == [[1, 1], [1, 1]]


def test_everything_wrong_is_found_in_one_pass(tmp_path):
    rows = ["a.jpg,cat", "gone.jpg,cat", "b.jpg,cta", "b.png,cat", "cut.jpg,cat", "a.jpg,dog", "c.jpg,", "d.jpg,dog"]
    write_table(tmp_path, "image,tags\n" + "\n".join(rows), "a.jpg b.jpg b.png c.jpg d.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\ncow\n")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "images/cut.jpg")
    (tmp_path / "images/cut.jpg").write_bytes((tmp_path / "images/cut.jpg").read_bytes()[:900])
    write_mask(tmp_path / "masks/a.png", np.full((6, 8), 9))
    write_mask(tmp_path / "masks/c.png", np.ones((5, 5)))
    report = check_dataset(tmp_path)
    assert not report.ok
    table = tmp_path / "tags.csv"
    found = {kind: errors_of(report, kind) for kind in {error.kind for error in report.errors}}
    assert found.keys() == {"missing image", "unknown tag", "duplicate name", "unreadable image", "mask"}
    assert found["missing image"][0].startswith(f"{table} row 3: no image file {tmp_path}/images/gone.jpg")
    assert found["unknown tag"] == [f"{table} row 4: tag 'cta' is not in the class list; did you mean 'cat'?"]
    assert found["duplicate name"][0].startswith(f"{table} row 5: {tmp_path}/images/b.png and {tmp_path}/images/b.jpg")
    assert found["duplicate name"][1].startswith(f"{table} row 7: image 'a' stands twice (first: {table} row 2)")
    assert found["unreadable image"][0].startswith(f"{table} row 6: {tmp_path}/images/cut.jpg: damaged or cut short")
    assert found["mask"][0].startswith(f"{table} row 2: {tmp_path}/masks/a.png: ids 9 are no class")
    assert found["mask"][1].startswith(f"{table} row 8: {tmp_path}/masks/c.png: mask is 5 x 5 (width x height)")
    assert (report.images, report.untagged, report.with_mask) == (5, 2, 2)
    assert f"no tags: {table} row 8: image 'c' has no tags" in [
        f"{warning.kind}: {warning}" for warning in report.warnings
    ]
    assert "class 'cow': no image bears it; nothing can be learned of it" in messages(report.warnings)
    text = text_of(report)
    assert "7 errors" in text
    for error in report.errors:
        assert error.where in text


def test_images_without_tags_are_errors_where_refused(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,\n")
    assert check_dataset(tmp_path).ok
    report = check_dataset(tmp_path, untagged="error")
    assert errors_of(report, "no tags")[0].startswith(f"{tmp_path}/tags.csv row 3: image 'b' has no tags")


def test_bad_input_empty_folder(tmp_path):
    report = check_dataset(tmp_path)
    assert messages(report.errors) == [f"{tmp_path}: is empty; expected images with their tags"]
    assert "1 error" in text_of(report)


def test_bad_input_class_list_with_duplicates(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\ngone.jpg,cat\n")
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    report = check_dataset(tmp_path)
    assert [error.kind for error in report.errors] == ["missing image", "file"]
    assert "classes.txt: class 'cat' stands twice" in str(report.errors[1])


def test_report_fits_a_narrow_console(tmp_path):
    names = [f"class{number:02d}" for number in range(40)]
    write_table(tmp_path, f"image,tags\na.jpg,{';'.join(names)}\n", "a.jpg")
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(render(check_dataset(tmp_path)))
    companions = console.export_text().split("P(column | row)")[1].split("40 warnings")[0]
    assert "…" not in companions
    assert companions.count(" 100") == 10 * 9


def test_progress_is_told(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,cat\n")
    told: list[tuple[int, int]] = []
    check_dataset(tmp_path, workers=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_splits_that_are_missing_in_some_rows_and_small_images_are_warned_of(tmp_path):
    write_table(tmp_path, "image,tags,split\na.jpg,cat,train\nb.jpg,cat,\n")
    warnings = messages(check_dataset(tmp_path).warnings)
    assert "splits: 1 images have no split, and others have one" in warnings
    assert "sizes: 2 images have a side under 32 pixels" in warnings
    assert "class 'cat': only 2 images bear it" in warnings


def test_names_that_look_like_several_tags_or_like_each_other_are_warned_of(tmp_path):
    write_table(tmp_path, 'image,tags\na.jpg,"cow,boat"\nb.jpg,Cow\nc.jpg,cow\n', "a.jpg b.jpg c.jpg")
    warnings = messages(check_dataset(tmp_path).warnings)
    mend = "(in a table by ',', too: --set data.tag_separator=comma)"
    assert f"class 'cow,boat': holds ','; several tags are joined by ';' {mend}" in warnings
    assert "class 'cow': differs from 'Cow' in capitals alone" in warnings


def test_a_rare_class_that_is_spelt_nearly_as_a_common_one_is_warned_of(tmp_path):
    names = [f"{number}.jpg" for number in range(33)]
    tags = ["sheep", "horse"] * 15 + ["sheeep", "house", "sheepdog"]
    rows = "".join(f"{name},{tag}\n" for name, tag in zip(names, tags, strict=True))
    write_table(tmp_path, "image,tags\n" + rows, " ".join(names))
    warnings = messages(check_dataset(tmp_path).warnings)
    said = "class 'sheeep': in 1 image only, and spelt nearly as 'sheep', which is in 15; did you mean that?"
    assert [line for line in warnings if "nearly" in line] == [said]


def test_images_in_no_row_of_a_table_are_warned_of(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,\ngone.jpg,cat\n", "a.jpg b.jpg c.jpg d.jpg")
    (tmp_path / "images/notes.txt").write_text("no image")
    warnings = messages(check_dataset(tmp_path).warnings)
    assert f"{tmp_path / 'images'}: 2 images are in no row and left out, such as c.jpg" in warnings


def test_images_in_no_row_are_told_apart_from_masks_and_wrong_rows(tmp_path, monkeypatch):
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    write_mask(tmp_path / "a.png", np.ones((6, 8)))
    (tmp_path / "classes.txt").write_text("cat\n")
    monkeypatch.chdir(tmp_path)
    for path in (".", "tags.csv"):
        (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
        assert f"{tmp_path}: an image is in no row and left out, such as b.jpg" in messages(
            check_dataset(path, masks=tmp_path).warnings
        )
    (tmp_path / "tags.csv").write_text(f"image,tags\n{tmp_path / 'a.jpg'},cat\nb.jpg,cat\n")
    assert "in no row" not in " ".join(messages(check_dataset(".", masks=tmp_path).warnings))


def test_one_class_alone_has_no_table_of_companions(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert "P(column" not in text_of(check_dataset(tmp_path))
    write_table(tmp_path, "image,tags\na.jpg,cat\nb.jpg,dog\n")
    assert "P(column" in text_of(check_dataset(tmp_path))


@pytest.mark.parametrize(
    ("rows", "doubted"),
    [
        # Kaggle's "Planet: understanding the Amazon from space" joins tags by spaces.
        (["agriculture clear primary water", "clear primary"], "agriculture clear primary water"),
        (["haze primary", "cloudy", "clear primary haze", "clear"], "clear primary haze"),
        (["golden retriever", "cat"], None),
        (["golden retriever", "german shepherd"], None),
        (["golden retriever;red cat", "red cat"], None),
        (["['cat', 'dog']", "cat"], "['cat', 'dog']"),
        (["'cat'", "dog"], "'cat'"),
        (["bird's nest", "cat"], None),
    ],
)
def test_tags_that_are_joined_otherwise_are_warned_of(tmp_path, rows, doubted):
    table = "".join(f'{name}.jpg,"{cell}"\n' for name, cell in zip("abcd", rows, strict=False))
    write_table(tmp_path, "image,tags\n" + table, "a.jpg b.jpg c.jpg d.jpg")
    warned = [warning for warning in messages(check_dataset(tmp_path).warnings) if "several tags" in warning]
    assert [warning.split(": ")[0] for warning in warned] == ([] if doubted is None else [f"class {doubted!r}"])


def test_a_package_that_is_missing_for_every_mask_is_told_once(tmp_path, monkeypatch):
    outline = {"segmentation": [[1, 1, 6, 1, 6, 6]], "bbox": [1, 1, 5, 5], "category_id": 1, "iscrowd": 0, "area": 12}
    for number in (1, 2, 3):
        write_image(tmp_path / "images" / f"{number}.jpg", (8, 8))
    (tmp_path / "instances.json").write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": f"{n}.jpg", "width": 8, "height": 8} for n in (1, 2, 3)],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": n, "image_id": n, **outline} for n in (1, 2, 3)],
            }
        )
    )
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    report = check_dataset(tmp_path / "instances.json", image_folder=tmp_path / "images")
    found = [str(problem) for problem in report.errors]
    assert len(found) == 1, found
    assert found[0].endswith("needs pycocotools; pip install 'tagmask[coco]' (said once for all such images)")


def test_masks_of_two_values_are_an_error_where_all_are(tmp_path):
    table = write_table(tmp_path, "image,tags\na.jpg,cow\nb.jpg,cow;grass\n")
    (tmp_path / "classes.txt").write_text("cow\ngrass\n")
    for name in "ab":
        write_image(tmp_path / f"images/{name}.jpg", (8, 6))
        write_mask(tmp_path / f"masks/{name}.png", np.full((6, 8), 255))
    found = " ".join(messages(check_dataset(table).errors))
    assert "all masks that were looked at (2) hold only 0 and 255, and 255 means ignored" in found
    write_mask(tmp_path / "masks/b.png", np.ones((6, 8)))
    report = check_dataset(table)
    assert report.ok
    assert "masks: 1 of 2 show no class, though their images bear tags" in " ".join(messages(report.warnings))


def test_splits_that_are_misspelt_are_warned_of(tmp_path):
    rows = "a.jpg,cat,train\nb.jpg,cat,vall\nc.jpg,cat,Val2\nd.jpg,cat,left\n"
    write_table(tmp_path, "image,tags,split\n" + rows, "a.jpg b.jpg c.jpg d.jpg")
    warned = [each for each in messages(check_dataset(tmp_path).warnings) if each.startswith("split '")]
    assert warned == [
        "split 'vall': spelt nearly as 'val', and learnt from unless data.train says otherwise; did you mean that?"
    ]


def test_one_name_in_two_encodings_is_warned_of(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,K\u00fche\nb.jpg,Ku\u0308he\n", "a.jpg b.jpg")
    warned = [each for each in messages(check_dataset(tmp_path).warnings) if "Unicode" in each]
    assert len(warned) == 1
    assert "how its letters are encoded (Unicode NFC and NFD); write both alike" in warned[0]


def test_masks_whose_ids_are_in_another_order_are_doubted(tmp_path):
    table = write_table(tmp_path, "image,tags\na.jpg,cow\nb.jpg,grass\nc.jpg,cow;grass\n")
    (tmp_path / "classes.txt").write_text("cow\ngrass\n")
    for name, label in (("a", 2), ("b", 1), ("c", 1)):
        write_image(tmp_path / f"images/{name}.jpg", (8, 6))
        write_mask(tmp_path / f"masks/{name}.png", np.full((6, 8), label))
    report = check_dataset(table)
    assert report.ok
    said = " ".join(messages(report.warnings))
    assert "2 of 3 show a class that is no tag of their image" in said
    assert "are the ids in the class list's order?" in said
    write_mask(tmp_path / "masks/a.png", np.ones((6, 8)))
    said = " ".join(messages(check_dataset(table).warnings))
    assert "1 of 3 show a class that is no tag of their image" in said
    assert "order?" not in said


def test_many_names_that_hold_a_comma_are_one_warning(tmp_path):
    write_table(tmp_path, "image;tags\na.jpg;cow, boat\nb.jpg;boat, cow\nc.jpg;cow\n", "a.jpg b.jpg c.jpg")
    warned = [each for each in messages(check_dataset(tmp_path, separator=";").warnings) if "several tags" in each]
    mend = "(in a table by ',', too: --set data.tag_separator=comma)"
    assert warned == [f"class 'boat, cow' and 1 more: hold ','; several tags are joined by ';' {mend}"]
    assert check_dataset(tmp_path, separator=";", tag_separator="comma").classes == ("boat", "cow")
