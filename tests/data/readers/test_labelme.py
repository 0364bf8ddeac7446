import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

SQUARE = [[2.0, 0.0], [6.0, 0.0], [6.0, 3.0], [2.0, 3.0]]


def shape(label: str, points: list, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def drawn_mask(label: str, inside: np.ndarray, left: int, top: int) -> dict:
    stream = io.BytesIO()
    Image.fromarray(inside).save(stream, format="PNG")
    box = [[left, top], [left + inside.shape[1] - 1, top + inside.shape[0] - 1]]
    return shape(label, box, "mask", mask=base64.b64encode(stream.getvalue()).decode())


def write_labelme(root, *shapes: dict, name: str = "a", image: str | None = None, **more):
    """A JSON file in LabelMe's order of keys, beside its 8 x 6 image."""
    write_image(root / f"{name}.jpg")
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image or f"{name.split('/')[-1]}.jpg"}
    path = root / f"{name}.json"
    path.write_text(json.dumps(content | {"imageData": None, "imageHeight": 6, "imageWidth": 8} | more))
    return path


def test_polygons_and_masks_are_the_ground_truth_and_later_ones_lie_above(tmp_path):
    corner = np.array([[True, True], [False, True]])
    path = write_labelme(tmp_path, shape("dog", SQUARE), drawn_mask("cat", corner, 1, 2), name="train/a")
    write_labelme(tmp_path, name="val/b")
    assert detect(tmp_path) == ("labelme", tmp_path)
    assert detect(path)[0] == "labelme"
    dataset = read_dataset(tmp_path, untagged="negative")
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[0:3, 2:6] = 2
    expected[2, 1:3] = expected[3, 2] = 1
    assert dataset.classes == ("cat", "dog")
    assert [(record.name, record.tags, record.split) for record in dataset.records] == [
        ("train/a", (0, 1), "train"),
        ("val/b", (), "val"),
    ]
    np.testing.assert_array_equal(dataset.records[0].mask.load(6, 8), expected)
    assert not dataset.records[1].mask.load(6, 8).any()


def test_a_shape_called_background_is_id_0_and_no_class(tmp_path):
    everywhere = [[0, 0], [8, 0], [8, 6], [0, 6]]
    write_labelme(
        tmp_path, shape("cat", everywhere), shape("_background_", SQUARE), shape("dog", [*SQUARE[:2], [4, 2]])
    )
    dataset = read_dataset(tmp_path)
    expected = np.ones((6, 8), dtype=np.uint8)
    expected[0:3, 2:6] = 0
    labels = dataset.records[0].mask.load(6, 8)
    assert dataset.classes == ("cat", "dog")
    assert dataset.records[0].tags == (0, 1)
    assert (labels[labels != 2] == expected[labels != 2]).all()
    assert (labels == 2).any()


@pytest.mark.parametrize("label", [None, "", " "])
def test_bad_input_a_shape_without_a_label(tmp_path, label):
    path = write_labelme(tmp_path, shape("cat", SQUARE), shape(label, SQUARE))
    with pytest.raises(TagmaskError, match=rf"{path}: a shape has no label.*name it in LabelMe"):
        read_dataset(tmp_path)


def test_flags_are_tags_and_what_is_boxed_or_flagged_alone_leaves_no_mask(tmp_path):
    write_labelme(tmp_path, shape("cat", SQUARE), name="a", flags={"dog": False, "cat": True})
    write_labelme(tmp_path, shape("cat", SQUARE), name="b", flags={"dog": True})
    write_labelme(tmp_path, shape("cat", SQUARE), shape("cat", SQUARE[:2], "rectangle"), name="c")
    dataset = read_dataset(tmp_path)
    assert [(record.tags, record.mask is None) for record in dataset.records] == [
        ((0,), False),
        ((0, 1), True),
        ((0,), True),
    ]
    assert "2 of 3 images have no ground truth mask" in dataset.skipped[0]


@pytest.mark.parametrize("image", ["..\\\\photos\\\\a.jpg", "old name.jpg", "/home/someone/a.jpg"])
def test_images_are_found_by_the_name_of_the_file_where_their_path_is_gone(tmp_path, image):
    write_labelme(tmp_path, shape("cat", SQUARE), image=image)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.tags) for record in dataset.records] == [("a", (1,))]
    assert (dataset.records[0].mask.load(6, 8)[0:3, 2:6] == 2).all()


def test_images_in_a_folder_of_their_own(tmp_path):
    write_labelme(tmp_path / "ann", shape("cat", SQUARE))
    (tmp_path / "ann/a.jpg").rename(write_image(tmp_path / "img/a.jpg"))
    (record,) = read_dataset(tmp_path / "ann", image_folder=tmp_path / "img").records
    assert record.image == tmp_path / "img/a.jpg"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (shape("cat", [[1, 2], [3]]), "the polygon of 'cat' is damaged"),
        (shape("cat", [[1, 2], [3, None], [1, 1]]), "the polygon of 'cat' is damaged"),
        (shape("cat", None), "the polygon of 'cat' is damaged"),
        (shape("cat", [[0, 0], [1, 1]], "mask"), "the mask of 'cat' is damaged"),
        (shape("cat", [[0, 0], [1, 1]], "mask", mask="?"), "the mask of 'cat' is damaged"),
        (7, "its `shapes` are no list of objects"),
    ],
)
def test_bad_input_shapes(tmp_path, bad, message):
    write_labelme(tmp_path, bad)
    with pytest.raises(TagmaskError, match=rf"a\.json: {message}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (drawn_mask("cat", np.ones((2, 2), bool), 7, 0), r"a\.json: a mask lies at \(7, 0\), 2 x 2, outside the 8 x 6"),
        (shape("cat", [[0, 0]], "mask", mask="AAAA"), r"a\.json: .*these bytes are no mask"),
    ],
)
def test_bad_input_masks(tmp_path, bad, message):
    write_labelme(tmp_path, bad)
    (record,) = read_dataset(tmp_path).records
    with pytest.raises(TagmaskError, match=message):
        record.mask.load(6, 8)


def test_bad_input_files(tmp_path):
    path = write_labelme(tmp_path, shape("cat", SQUARE))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(TagmaskError, match=r"a\.json: no image file .*a\.jpg"):
        read_dataset(tmp_path)
    path.write_text('{"version": "5", "shapes": [')
    with pytest.raises(TagmaskError, match=r"a\.json: is no JSON"):
        read_dataset(tmp_path)
