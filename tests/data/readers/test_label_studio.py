import json

import numpy as np
import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.data.writers.label_studio import brush_code
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

HASHED = "/data/upload/3/0a1b2c3d-b.jpg"


def choices(*names: str) -> dict:
    return {"type": "choices", "from_name": "tags", "to_name": "image", "value": {"choices": list(names)}}


def region(kind: str, *names: str) -> dict:
    return {"type": kind, "value": {"x": 1, "y": 2, "rotation": 0, kind: list(names)}}


def task(image: str, *annotations: list | None, **more) -> dict:
    """A task with an annotation for each list of results; None is one that was skipped."""
    found = [{"result": part or [], "was_cancelled": part is None} for part in annotations]
    return {"id": 7, "data": {"image": image}, "annotations": found} | more


def write_export(root, *tasks: dict, images: str = "a.jpg b.jpg", name: str = "project-1.json"):
    for image in images.split():
        write_image(root / "images" / image)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return path


def test_choices_and_labels_of_regions_are_tags(tmp_path):
    results = [choices("cat", "bird"), region("rectanglelabels", "dog"), region("brushlabels", "cat", "cow")]
    path = write_export(tmp_path, task("a.jpg", results), task(HASHED, []))
    assert detect(path)[0] == detect(tmp_path)[0] == "label_studio"
    dataset = read_dataset(tmp_path, untagged="negative")
    assert dataset.classes == ("bird", "cat", "cow", "dog")
    assert [(record.name, record.tags, record.unknown) for record in dataset.records] == [
        ("a", (0, 1, 2, 3), ()),
        ("b", (), ()),
    ]


def test_what_annotators_disagree_on_is_unknown_and_nothing_said_is_all_unknown(tmp_path):
    write_export(
        tmp_path,
        task("a.jpg", [choices("cat", "dog")], [region("polygonlabels", "cat")], None),
        task("b.jpg", None, predictions=[{"result": [choices("cat")]}]),
    )
    dataset = read_dataset(tmp_path, untagged="negative")
    assert [(record.tags, record.unknown) for record in dataset.records] == [((0,), (1,)), ((), (0, 1))]
    assert len(read_dataset(tmp_path)) == 1


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("photos/sub/ü 1.jpg", "sub/ü 1.jpg"),
        ("/data/local-files/?d=photos/sub/%C3%BC%201.jpg", "sub/ü 1.jpg"),
        ("s3://bucket/photos/b.jpg", "b.jpg"),
        ("https://example.org/x/b.jpg?size=large", "b.jpg"),
        (HASHED, "b.jpg"),
        (HASHED, "0a1b2c3d-b.jpg"),
        ("C:\\photos\\b.jpg", "b.jpg"),
        ("../../etc/b.jpg", "etc/b.jpg"),
    ],
)
def test_images_are_found_by_ever_shorter_ends_of_their_address(tmp_path, address, file):
    write_image(tmp_path / "mine" / file)
    write_export(tmp_path, task(address, [choices("cat")]), images="")
    dataset = read_dataset(tmp_path, image_folder=tmp_path / "mine")
    assert dataset.records[0].image == tmp_path / "mine" / file
    assert dataset.records[0].name == file.removesuffix(".jpg")


def test_class_list_beside_and_data_under_another_key(tmp_path):
    own = task("", [choices("cat")]) | {"data": {"photo": "a.jpg", "caption": "a cat"}}
    write_export(tmp_path, own)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("dog", "cat")
    assert dataset.records[0].tags == (1,)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"image": "a.jpg", "choice": "cat"}], "export from Label Studio as JSON, not as JSON-MIN"),
        ([{"data": {"text": "hello"}}], r"task 1: expected one image among its `data`, found 0 \(keys: text\)"),
        ([{"data": {"left": "a.jpg", "right": "b.jpg"}}], r"found 2 \(keys: left, right\); call it `image`"),
        ([{"data": {"image": "a.jpg"}, "annotations": [3]}], "its `annotations` are no list of objects"),
        ([task("gone.jpg", [choices("cat")])], r"task 7: no image file .*gone\.jpg"),
    ],
)
def test_bad_input_tasks(tmp_path, tasks, message):
    path = write_export(tmp_path, *tasks)
    with pytest.raises(TagmaskError, match=message):
        read_dataset(path)


def test_bad_input_files(tmp_path):
    path = write_export(tmp_path, task("a.jpg", [choices("cat")]))
    (tmp_path / "second.json").write_text(path.read_text())
    with pytest.raises(TagmaskError, match=r"holds several exports \(project-1\.json, second\.json\); name one"):
        read_dataset(tmp_path)
    path.write_text('[{"data":')
    with pytest.raises(TagmaskError, match="is no JSON"):
        read_dataset(path)


def drawn(kind: str, name: str, value: dict, size: tuple[int, int] = (6, 8), **more) -> dict:
    """A region of an image of (height, width), as Label Studio exports it."""
    sides = {"original_height": size[0], "original_width": size[1], "image_rotation": 0}
    return {"type": kind, "value": value | {kind: [name]}} | sides | more


def brush(inside: np.ndarray, name: str, **more) -> dict:
    return drawn("brushlabels", name, {"format": "rle", "rle": brush_code(inside)}, inside.shape, **more)


def square(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    inside = np.zeros((6, 8), dtype=bool)
    inside[top:bottom, left:right] = True
    return inside


def test_brushes_and_polygons_are_the_ground_truth_and_later_ones_lie_above(tmp_path):
    corners = [[25, 0], [75, 0], [75, 50], [25, 50]]  # percent: columns 2 to 5, rows 0 to 2
    results = [brush(square(1, 1, 6, 8), "dog"), drawn("polygonlabels", "cat", {"points": corners, "closed": True})]
    write_export(tmp_path, task("a.jpg", results), task("b.jpg", []))
    dataset = read_dataset(tmp_path, untagged="negative")
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[1:6, 1:8] = 2
    expected[0:3, 2:6] = 1
    assert dataset.classes == ("cat", "dog")
    np.testing.assert_array_equal(dataset.records[0].mask.load(6, 8), expected)
    np.testing.assert_array_equal(dataset.records[1].mask.load(6, 8), np.zeros((6, 8)))
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    chosen = read_dataset(tmp_path, classes=["cat"], untagged="negative")
    np.testing.assert_array_equal(chosen.records[0].mask.load(6, 8), expected == 1)


def test_a_region_called_background_is_id_0_and_no_tag_nor_unknown(tmp_path):
    ground = [brush(square(0, 0, 6, 8), "dog"), brush(square(2, 2, 4, 4), "Background")]
    write_export(tmp_path, task("a.jpg", ground), task("b.jpg", ground[:1], ground))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("dog",)
    assert [(record.tags, record.unknown) for record in dataset.records] == [((0,), ())] * 2
    assert (dataset.records[0].mask.load(6, 8) == ~square(2, 2, 4, 4)).all()
    assert (dataset.records[1].mask.load(6, 8) == np.where(square(2, 2, 4, 4), 255, 1)).all()


def test_where_annotators_differ_the_mask_is_ignored(tmp_path):
    write_export(tmp_path, task("a.jpg", [brush(square(0, 0, 4, 4), "cat")], [brush(square(0, 0, 4, 6), "cat")]))
    (record,) = read_dataset(tmp_path).records
    np.testing.assert_array_equal(record.mask.load(6, 8), square(0, 0, 4, 4) + 255 * square(0, 4, 4, 6))


def test_a_region_with_two_labels_is_ignored(tmp_path):
    both = brush(square(0, 0, 2, 2), "cat")
    both["value"]["brushlabels"] = ["cat", "dog"]
    write_export(tmp_path, task("a.jpg", [both]))
    (record,) = read_dataset(tmp_path).records
    np.testing.assert_array_equal(record.mask.load(6, 8), 255 * square(0, 0, 2, 2))


@pytest.mark.parametrize(
    "also",
    [
        choices("dog"),
        region("rectanglelabels", "cat"),
        region("keypointlabels", "dog"),
        brush(square(0, 0, 1, 1), "cat", image_rotation=90),
    ],
)
def test_what_is_tagged_or_boxed_and_not_outlined_leaves_no_mask(tmp_path, also):
    cat = brush(square(0, 0, 2, 2), "cat")
    write_export(tmp_path, task("a.jpg", [cat, choices("cat")]), task("b.jpg", [cat, also]))
    dataset = read_dataset(tmp_path)
    assert [record.mask is None for record in dataset.records] == [False, True]
    assert "1 of 2 images have no ground truth mask" in dataset.skipped[0]


def test_where_nothing_is_outlined_there_are_no_masks(tmp_path):
    write_export(tmp_path, task("a.jpg", [choices("cat")]), task("b.jpg", []))
    dataset = read_dataset(tmp_path, untagged="negative")
    assert [record.mask for record in dataset.records] == [None, None]
    assert dataset.skipped == ()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (brush_code(square(0, 0, 2, 2))[:-2], "ends too soon; export it again"),
        (brush_code(np.ones((3, 3), bool)), "made for 9 pixels, the image has 48"),
        ([255, 255, 255, 255, 0], "made for 1.07374e.09 pixels"),
        ([0, 0, 0, 192], "ends too soon"),
    ],
)
def test_bad_input_brush_codes(tmp_path, code, message):
    write_export(tmp_path, task("a.jpg", [drawn("brushlabels", "cat", {"format": "rle", "rle": code})]))
    (record,) = read_dataset(tmp_path).records
    with pytest.raises(TagmaskError, match=rf"project-1\.json task 7: a brush code .*{message}"):
        record.mask.load(6, 8)


@pytest.mark.parametrize(
    "value",
    [
        {"rle": [1, 300]},
        {"rle": "x"},
        {"rle": 9**20},
        {"points": [1, 2]},
        {"points": [[1, "x"]]},
        {"points": [[1, None]] * 3},
    ],
)
def test_bad_input_regions(tmp_path, value):
    write_export(tmp_path, task("a.jpg", [drawn("brushlabels", "cat", value)]))
    with pytest.raises(TagmaskError, match=r"task 7: the region of 'cat' is damaged"):
        read_dataset(tmp_path)


def test_a_polygon_that_encloses_nothing_is_no_region(tmp_path):
    stray, cat = drawn("polygonlabels", "cat", {"points": [[1, 1], [2, 2]]}), brush(square(0, 0, 2, 2), "cat")
    write_export(tmp_path, task("a.jpg", [stray, cat]), task("b.jpg", [stray]))
    first, second = read_dataset(tmp_path).records
    np.testing.assert_array_equal(first.mask.load(6, 8), square(0, 0, 2, 2))
    assert (second.tags, second.mask) == ((0,), None)


def test_results_that_are_none_are_passed_over(tmp_path):
    write_export(tmp_path, task("a.jpg", [None, 3, brush(square(0, 0, 2, 2), "cat")]))
    (record,) = read_dataset(tmp_path).records
    np.testing.assert_array_equal(record.mask.load(6, 8), square(0, 0, 2, 2))


def test_bad_input_mask_of_another_size_than_its_image(tmp_path):
    write_export(tmp_path, task("a.jpg", [brush(np.ones((8, 6), bool), "cat")]))
    (record,) = read_dataset(tmp_path).records
    with pytest.raises(TagmaskError, match=r"task 7: mask is 6 x 8 .* if the image is turned by its EXIF tag"):
        record.mask.load(6, 8)
