import numpy as np
import pytest
from PIL import Image

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:10,200,30::\nstem:250,0,5:tip,root:\n"
BLACK, LEAF, STEM = (0, 0, 0), (10, 200, 30), (250, 0, 5)
IVORY = (224, 224, 192)


def write_tree(root, labelmap: str = LABELMAP, names: str = "a sub/b", photos: str | None = "JPEGImages"):
    """A tree as CVAT's "Segmentation mask 1.1", with 8 x 6 masks whose upper half is leaf, one pixel stem."""
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pixels[:3] = LEAF
    pixels[5, 7] = STEM
    pixels[5, 0] = IVORY
    for name in names.split():
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        if photos is not None:
            write_image(root / photos / f"{name}.png")
    (root / "labelmap.txt").write_text(labelmap, encoding="utf-8")
    return root


def write_list(root, text: str, name: str = "default", folder: str = "Segmentation"):
    path = root / "ImageSets" / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def expected() -> np.ndarray:
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[:3] = 1
    labels[5, 7], labels[5, 0] = 2, 255
    return labels


@pytest.mark.parametrize("photos", ["JPEGImages", "images", "", "../photos"])
def test_classes_and_colours_are_those_of_the_labelmap(tmp_path, photos):
    root = write_tree(tmp_path / "tree", photos=photos)
    write_list(root, 'a\n"sub/b"\n')
    assert detect(root) == ("voc", root)
    dataset = read_dataset(root, image_folder=tmp_path / "photos" if photos.startswith("..") else None)
    assert dataset.classes == ("leaf", "stem")
    assert [(record.name, record.tags, record.split) for record in dataset.records] == [
        ("a", (0, 1), "default"),
        ("sub/b", (0, 1), "default"),
    ]
    for record in dataset.records:
        np.testing.assert_array_equal(record.mask.load(6, 8), expected())
    stem = read_dataset(root, image_folder=dataset.records[0].image.parent, classes=["stem"])
    np.testing.assert_array_equal(
        stem.records[0].mask.load(6, 8), np.select([expected() == 2, expected() == 255], [1, 255])
    )


def test_without_lists_masks_name_the_images_and_lists_may_overlap(tmp_path):
    root = write_tree(tmp_path, names="a b")
    assert [record.name for record in read_dataset(root).records] == ["a", "b"]
    write_list(root, "a\nb\n", "trainval")
    write_list(root, "b\n", "val")
    dataset = read_dataset(root)
    assert len(dataset.split("trainval")) == 2
    assert [record.name for record in dataset.split("val").records] == ["b"]


def test_objects_of_the_xml_files_are_tags_too_and_an_image_with_neither_is_unknown(tmp_path):
    root = write_tree(tmp_path, LABELMAP + "pot:1,1,1::\n", names="a")
    for name in "bc":
        write_image(root / "JPEGImages" / f"{name}.jpg")
    (root / "Annotations").mkdir()
    for name in "ab":
        text = "<annotation><object><name>pot</name></object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    write_list(root, "a\nb\nc\n", folder="Main")
    write_list(root, "a -1\nb 1\n", "pot_default", folder="Main")
    dataset = read_dataset(root, untagged="negative")
    assert [(record.tags, record.unknown, record.mask is None) for record in dataset.records] == [
        ((0, 1, 2), (), False),
        ((2,), (), True),
        ((), (0, 1, 2), True),
    ]


def test_a_labelmap_without_colours_has_those_of_voc_in_its_order(tmp_path):
    root = write_tree(tmp_path, "background:::\ncat:::\ndog:::\n", names="a")
    Image.new("RGB", (8, 6), (0, 128, 0)).save(root / "SegmentationClass/a.png")  # VOC's second colour
    (record,) = read_dataset(root).records
    assert record.tags == (1,)


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        ("cat:1,2::\n", r"labelmap\.txt row 1: '1,2' is no colour; expected a line a class such as"),
        ("cat:1,2,256::\n", "'1,2,256' is no colour"),
        ("cat:1,2,3::\ndog:1,2,3::\n", r"row 2: another class has the colour 1,2,3, too"),
        ("cat:1,2,3::\ndog:::\n", "class 'dog' has no colour, and others have"),
        ("background:0,0,0::\n", "no classes; name at least one"),
        ("cat:1,2,3::\ncat:3,2,1::\n", "class 'cat' stands twice"),
        (LABELMAP.replace("250", "251"), r"a\.png: 1 colours are in no line of labelmap\.txt \(the first: 250,0,5\)"),
    ],
)
def test_bad_input_labelmaps(tmp_path, labelmap, message):
    write_tree(tmp_path, labelmap, names="a")
    with pytest.raises(TagmaskError, match=message):
        read_dataset(tmp_path)


def test_bad_input_trees(tmp_path):
    root = write_tree(tmp_path, photos=None)
    with pytest.raises(TagmaskError, match=r"no photograph of 2 .* \*save images\*; name their folder \(image_folder"):
        read_dataset(root)
    write_image(root / "JPEGImages/a.jpg")
    with pytest.raises(TagmaskError, match=r"b\.png: no image file .*JPEGImages/sub/b\.jpg"):
        read_dataset(root)
    write_image(root / "JPEGImages/sub/b.jpg")
    (root / "SegmentationClass/a.png").write_bytes(b"x")
    with pytest.raises(TagmaskError, match=r"a\.png: none of the formats"):
        read_dataset(root)


def test_bad_input_mask_of_another_size_and_jpeg(tmp_path):
    root = write_tree(tmp_path, names="a")
    (record,) = read_dataset(root).records
    with pytest.raises(TagmaskError, match=r"a\.png: mask is 8 x 6 .* its image 9 x 6"):
        record.mask.load(6, 9)
    Image.new("RGB", (8, 6)).save(root / "SegmentationClass/a.png", format="JPEG")
    with pytest.raises(TagmaskError, match=r"a\.png: JPEG blurs the colours of a mask"):
        read_dataset(root)
