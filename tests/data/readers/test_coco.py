import json
from pathlib import Path

import numpy as np
import pytest

from tagmask.data.images import open_image
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import shared_data, write_image, write_mask


def square(left: float, top: float, side: float) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def content(*, annotations: list | None = None, images: tuple[str, ...] = ("a.jpg", "b.jpg")) -> dict:
    """Two 8 x 6 images; the first with a dog (id 18) under a small cat (id 17), the second bare."""
    if annotations is None:
        annotations = [
            {"id": 1, "image_id": 1, "category_id": 17, "segmentation": square(1, 1, 2), "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 18, "segmentation": square(0, 0, 5), "iscrowd": 0},
        ]
    return {
        "images": [
            {"id": number, "file_name": name, "width": 8, "height": 6} for number, name in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }


def write_coco(root: Path, file: str = "instances_train2017.json", folder: str = "train2017", **parts) -> Path:
    found = content(**parts)
    for image in found["images"]:
        write_image(root / folder / image["file_name"])
    path = root / "annotations" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def test_tags_and_masks_of_one_file_per_split(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, "instances_val2017.json", "val2017")
    dataset = read_dataset(tmp_path, untagged="negative")
    assert dataset.classes == ("cat", "dog")
    assert [(record.name, record.tags, record.split) for record in dataset.records] == [
        ("train2017/a", (0, 1), "train"),
        ("train2017/b", (), "train"),
        ("val2017/a", (0, 1), "val"),
        ("val2017/b", (), "val"),
    ]
    expected = np.zeros((6, 8))
    expected[:5, :5] = 2
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(dataset.records[0].mask.load(6, 8), expected)
    assert not dataset.records[1].mask.load(6, 8).any()
    assert "instances_train2017.json, instances_val2017.json" in dataset.tag_source


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images", "annotations/train2017", "annotations"])
def test_one_file_by_its_path_with_images_beside(tmp_path, folder):
    path = write_coco(tmp_path, folder=folder)
    assert [record.name for record in read_dataset(path).records] == ["a"]


def test_image_folder_can_be_named(tmp_path):
    path = write_coco(tmp_path / "one", folder="../two/photos")
    with pytest.raises(TagmaskError, match=r"its images \(the first is a\.jpg\) are in none of .* \(image_folder\)"):
        read_dataset(path)
    assert len(read_dataset(path, image_folder=tmp_path / "two/photos")) == 1


def test_chosen_classes_leave_the_others_as_ground(tmp_path):
    path = write_coco(tmp_path)
    dataset = read_dataset(path, classes=["cat"])
    expected = np.zeros((6, 8))
    expected[1:3, 1:3] = 1
    np.testing.assert_array_equal(dataset.records[0].mask.load(6, 8), expected)
    closed = read_dataset(path, classes=["cat"], background=False).records[0].mask.load(6, 8)
    np.testing.assert_array_equal(closed, np.where(expected == 1, 1, 255))


def test_a_folder_of_pngs_takes_the_place_of_outlines(tmp_path):
    path = write_coco(tmp_path)
    write_mask(tmp_path / "png/a.png", np.full((6, 8), 2))
    dataset = read_dataset(path, masks=tmp_path / "png", classes=["dog"])
    assert (dataset.records[0].mask.load(6, 8) == 1).all()


def test_crowds_count_as_tags_and_are_ignored_in_masks(tmp_path):
    runs = {"counts": [0, 48], "size": [6, 8]}
    crowd = {"id": 1, "image_id": 1, "category_id": 17, "segmentation": runs, "iscrowd": 1}
    dataset = read_dataset(write_coco(tmp_path, annotations=[crowd]))
    assert dataset.records[0].tags == (0,)
    assert (dataset.records[0].mask.load(6, 8) == 255).all()


def test_a_category_background_is_no_class(tmp_path):
    path = write_coco(tmp_path)
    found = content()
    found["categories"].append({"id": 0, "name": "Background"})
    found["annotations"].append({"id": 9, "image_id": 2, "category_id": 0, "segmentation": square(0, 0, 5)})
    path.write_text(json.dumps(found))
    dataset = read_dataset(tmp_path, untagged="negative")
    assert dataset.classes == ("cat", "dog")
    assert not dataset.records[1].mask.load(6, 8).any()


def test_brush_regions_of_cvat_are_no_crowds(tmp_path):
    """Datumaro, by which CVAT exports, sets `iscrowd` on every mask."""
    runs = {"counts": [0, 6, 42], "size": [6, 8]}
    brush = {"id": 1, "image_id": 1, "category_id": 17, "segmentation": runs, "iscrowd": 1}
    path = write_coco(tmp_path, annotations=[brush])
    path.write_text(json.dumps(content(annotations=[brush]) | {"licenses": [{"name": "", "id": 0, "url": ""}]}))
    (record,) = read_dataset(tmp_path).records
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:, 0] = 1
    np.testing.assert_array_equal(record.mask.load(6, 8), expected)


def test_objects_without_outline_leave_the_image_without_mask(tmp_path):
    bare = {"id": 1, "image_id": 1, "category_id": 17}
    degenerate = {"id": 2, "image_id": 2, "category_id": 18, "segmentation": [[0, 0, 3, 3]]}
    whole = {"id": 3, "image_id": 2, "category_id": 18, "segmentation": square(0, 0, 2)}
    dataset = read_dataset(write_coco(tmp_path, annotations=[bare, degenerate, whole]))
    assert [record.mask for record in dataset.records] == [None, None]
    dataset = read_dataset(write_coco(tmp_path, annotations=[bare, whole]))
    assert [record.mask is None for record in dataset.records] == [True, False]
    dataset = read_dataset(write_coco(tmp_path, annotations=[bare]), untagged="negative")
    assert [record.mask for record in dataset.records] == [None, None]


def test_bad_input_missing_image_in_coco(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "train2017/b.jpg").unlink()
    with pytest.raises(TagmaskError, match=r"instances_train2017\.json image 2: no image file .*b\.jpg"):
        read_dataset(path)


def test_bad_input_annotation_of_unknown_tag_or_image(tmp_path):
    annotations = [
        {"id": 7, "image_id": 1, "category_id": 99, "segmentation": square(0, 0, 2)},
        {"id": 8, "image_id": 5, "category_id": 17, "segmentation": square(0, 0, 2)},
        {"id": 9, "image_id": 2, "category_id": 17, "segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
        {"id": 10, "image_id": 1, "category_id": 17, "segmentation": {"counts": [1]}},
        {"id": 11, "image_id": [1], "category_id": 17},
        {"id": 12, "image_id": 1, "category_id": None},
    ]
    with pytest.raises(TagmaskError) as raised:
        read_dataset(write_coco(tmp_path, annotations=annotations))
    text = str(raised.value)
    assert "annotation 7: category_id 99 is not among the categories" in text
    assert "annotation 8: image_id 5 is not among the images" in text
    assert "image 2: an outline is damaged (a polygon has an odd number of coordinates)" in text
    assert "image 1: an outline is damaged ('size')" in text
    assert "annotation 11: image_id [1] is not among the images" in text
    assert "annotation 12: category_id None is not among the categories" in text


def test_bad_input_images_of_one_id_or_none(tmp_path):
    path = write_coco(tmp_path, images=("a.jpg", "b.jpg", "c.jpg"))
    changed = json.loads(path.read_text())
    changed["images"][1]["id"] = 1
    del changed["images"][2]["id"]
    path.write_text(json.dumps(changed))
    with pytest.raises(TagmaskError) as raised:
        read_dataset(path)
    assert "image 1: the id stands twice; give every image its own" in str(raised.value)
    assert "image None: has no `id`" in str(raised.value)


def test_bad_input_files_of_one_split_or_of_other_categories(tmp_path):
    write_coco(tmp_path)
    other = write_coco(tmp_path, "instances_train2014.json", "train2014")
    with pytest.raises(TagmaskError, match="stands for the split 'train' as instances_train2014"):
        read_dataset(tmp_path)
    changed = json.loads(other.read_text())
    changed["categories"][0]["name"] = "wolf"
    other.unlink()
    (tmp_path / "annotations/instances_val2014.json").write_text(json.dumps(changed))
    with pytest.raises(TagmaskError, match="its categories differ from those of"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "key 'images' is missing"),
        ('{"images": [1]}', "key 'images' is missing or no list of objects"),
        ('{"images": [{}], "annotations": []}', "key 'categories' is missing"),
        ('{"images": [], "annotations": [], "categories": []}', "names no image"),
        ('{"images": [{}], "annotations": [], "categories": [{"id": 1}]}', "needs an `id` (whole number) and a `name`"),
        (
            '{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "categories 'a' and 'b' both have the id 1",
        ),
        (
            '{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            "class 'a' stands twice",
        ),
    ],
)
def test_bad_input_malformed_coco_file(tmp_path, text, message):
    path = tmp_path / "instances_train.json"
    path.write_text(text)
    with pytest.raises(TagmaskError) as raised:
        read_dataset(path)
    assert message in str(raised.value)


def test_tiny_coco_is_read_whole():
    dataset = read_dataset(shared_data("tiny_coco"), untagged="negative")
    assert len(dataset.split("train")) == len(dataset.split("val")) == 50
    assert len(dataset.classes) == 80
    assert dataset.classes[0] == "person"
    assert (dataset.split("train").tag_matrix().any(0).sum(), dataset.split("val").tag_matrix().any(0).sum()) == (
        49,
        48,
    )
    for record in dataset.records[:6]:
        image = open_image(record.image)
        ids = set(np.unique(record.mask.load(image.height, image.width))) - {0}
        assert ids - {255} <= {tag + 1 for tag in record.tags}
        assert record.tags == () or ids


def test_the_authors_label_maps_are_found_by_split_and_number(tmp_path: Path) -> None:
    from tests.api.test_reproduce import coco_tree

    data = coco_tree(tmp_path)
    dataset = read_dataset(data, masks=data / "SegmentationClass")
    record = next(record for record in dataset.records if record.name.endswith("000000000042"))
    assert record.mask is not None
    assert set(np.unique(record.mask.load(32, 40))) == {0, 1}
    assert {len(np.unique(record.mask.load(32, 40))) for record in dataset.records if record.mask} == {2}
    assert sum(record.mask is not None for record in dataset.records) == 6


def test_the_export_of_label_studio_as_coco_is_read(tmp_path):
    write_image(tmp_path / "images" / "0a1b-a.jpg")
    content = {
        "images": [{"id": 0, "width": 8, "height": 6, "file_name": "images/0a1b-a.jpg"}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]], "iscrowd": 0}],
    }
    (tmp_path / "result.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    assert (dataset.classes, dataset.splits) == (("cat", "dog"), ("",))
    assert [(record.name, record.tags) for record in dataset.records] == [("images/0a1b-a", (1,))]
    assert dataset.records[0].mask is not None
