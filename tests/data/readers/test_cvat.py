import numpy as np
import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><name>photos</name><labels>
<label><name>dog</name><type>any</type></label><label><name>cat</name></label><label><name>bird</name></label>
</labels></task></meta>
"""
IMAGES = """
<image id="0" name="a.jpg" width="8" height="6"><tag label="cat" source="manual"></tag></image>
<image id="1" name="sub/b.jpg" subset="val" width="8" height="6">
<polygon label="dog" points="0,0;1,0;1,1"></polygon><box label="cat" xtl="0" ytl="0" xbr="2" ybr="2"/>
<mask label="dog" rle="3, 2" left="0" top="0" width="5" height="1"/></image>
<image id="2" name="c.jpg" width="8" height="6"></image>
"""


def write_cvat(root, images: str = IMAGES, head: str = HEAD, files: str = "a.jpg sub/b.jpg c.jpg", place="images"):
    for name in files.split():
        write_image(root / place / name)
    path = root / "annotations.xml"
    root.mkdir(exist_ok=True)
    path.write_text(f"{head}{images}</annotations>", encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["images", ""])
def test_tags_and_shapes_count(tmp_path, place):
    path = write_cvat(tmp_path, place=place)
    assert detect(tmp_path) == ("cvat", tmp_path)
    for source in (tmp_path, path):
        dataset = read_dataset(source, untagged="negative")
        assert dataset.classes == ("dog", "cat", "bird")
        assert [(record.name, record.tags, record.split) for record in dataset.records] == [
            ("a", (1,), ""),
            ("sub/b", (0, 1), "val"),
            ("c", (), ""),
        ]
    assert dataset.tag_source == "tags and shapes of annotations.xml (CVAT)"


def test_a_label_background_is_id_0_and_no_class(tmp_path):
    """Datumaro lists it among the labels, and draws it, where the masks came from a VOC tree."""
    head = HEAD.replace("<labels>", "<labels><label><name>background</name></label>")
    images = """<image id="1" name="a.jpg" width="8" height="6">
    <mask label="cat" rle="0,48" left="0" top="0" width="8" height="6" z_order="0"/>
    <mask label="background" rle="0,8" left="0" top="5" width="8" height="1" z_order="1"/></image>"""
    write_cvat(tmp_path, images, head, "a.jpg")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("dog", "cat", "bird")
    assert dataset.records[0].tags == (1,)
    labels = dataset.records[0].mask.load(6, 8)
    assert (labels[:5] == 2).all()
    assert (labels[5] == 0).all()


def test_projects_and_images_under_their_subset(tmp_path):
    head = HEAD.replace("task>", "project>")
    write_cvat(tmp_path, '<image name="b.jpg" subset="val"><tag label="dog"/></image>', head, "val/b.jpg")
    dataset = read_dataset(tmp_path)
    assert [(record.name, record.split) for record in dataset.records] == [("val/b", "val")]
    assert dataset.classes == ("dog", "cat", "bird")


def test_images_in_a_named_folder_and_classes_without_labels(tmp_path):
    write_cvat(tmp_path / "set", '<image name="ä.jpg"><tag label="Käfer"/></image>', "<annotations>", "")
    write_image(tmp_path / "photos/ä.jpg")
    dataset = read_dataset(tmp_path / "set", image_folder=tmp_path / "photos")
    assert dataset.classes == ("Käfer",)
    assert dataset.records[0].image == tmp_path / "photos/ä.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>", "is no XML"),
        ("<annotation/>", "begins with <annotation>, expected <annotations>"),
        ("<annotations/>", "names no image; export the task as"),
        ('<annotations><track id="0" label="cat"/></annotations>', 'holds tracks of "CVAT for video"'),
        ("<annotations><image/></annotations>", "has no `name`"),
        ('<annotations><image name="gone.jpg"/></annotations>', r"image gone\.jpg: no image file .*gone\.jpg"),
    ],
)
def test_bad_input_file(tmp_path, text, message):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(TagmaskError, match=message):
        read_dataset(tmp_path)


def test_bad_input_label_that_the_task_lacks(tmp_path):
    write_cvat(tmp_path, '<image name="a.jpg"><tag label="cow"/></image>')
    with pytest.raises(TagmaskError, match=r"image a\.jpg: tag 'cow' is not in the class list"):
        read_dataset(tmp_path)


def test_bad_input_archive(tmp_path):
    (tmp_path / "task.zip").touch()
    with pytest.raises(TagmaskError, match=r"task\.zip: is an archive; unpack it and name the folder"):
        read_dataset(tmp_path / "task.zip")


def masks_of(dataset) -> list[np.ndarray | None]:
    return [record.mask and record.mask.load(6, 8) for record in dataset.records]


def test_polygons_and_masks_are_the_ground_truth_in_the_order_of_z(tmp_path):
    write_cvat(
        tmp_path,
        '<image name="a.jpg" width="8" height="6">'
        '<polygon label="dog" points="0.00,0.00;4.00,0.00;4.00,3.00;0.00,3.00" z_order="1"/>'
        '<mask label="cat" rle="1, 4, 1" left="2" top="1" width="3" height="2" z_order="0"/></image>'
        '<image name="c.jpg" width="8" height="6"/>',
        files="a.jpg c.jpg",
    )
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[1, 3:5] = expected[2, 2:4] = 2  # row by row in its box: . X X / X X .
    expected[0:3, 0:4] = 1
    first, empty = masks_of(read_dataset(tmp_path, untagged="negative"))
    np.testing.assert_array_equal(first, expected)
    assert empty is not None
    assert not empty.any()


def test_what_is_boxed_or_tagged_and_not_outlined_leaves_no_mask(tmp_path):
    write_cvat(tmp_path, IMAGES.replace("<box", "<polygon points='2,2;5,2;5,5' "))
    outlined = read_dataset(tmp_path, untagged="negative")
    assert [mask is None for mask in masks_of(outlined)] == [True, False, False]
    assert "1 of 3 images have no ground truth mask" in outlined.skipped[0]
    write_cvat(tmp_path)
    assert masks_of(read_dataset(tmp_path, untagged="negative")) == [None, None, None]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<polygon label="cat" points="1,2;x"/>', "a shape is damaged"),
        ('<polygon label="cat" points="1,2;3,nan;1,1"/>', "a shape is damaged"),
        ('<mask label="cat" rle="3, 2" left="0" top="0" width="5"/>', "a shape is damaged"),
        ('<mask label="cat" rle="99999999999999999999" left="0" top="0" width="5" height="1"/>', "a shape is damaged"),
    ],
)
def test_bad_input_shapes(tmp_path, shape, message):
    write_cvat(tmp_path, f'<image name="a.jpg" width="8" height="6">{shape}</image>')
    with pytest.raises(TagmaskError, match=rf"image a\.jpg: {message}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ('rle="3, 3" left="0" top="0" width="5" height="1"', "an rle covers 6 pixels, its box has 5"),
        ('rle="0, 5" left="4" top="0" width="5" height="1"', r"lies at \(4, 0\), 5 x 1, outside the 8 x 6 image"),
        ('rle="0, 5" left="-1" top="0" width="5" height="1"', r"outside the 8 x 6 image"),
        ('rle="-5, 10" left="0" top="0" width="5" height="1"', "an rle covers 5 pixels"),
    ],
)
def test_bad_input_run_lengths(tmp_path, mask, message):
    write_cvat(tmp_path, f'<image name="a.jpg" width="8" height="6"><mask label="cat" {mask}/></image>')
    (record,) = read_dataset(tmp_path).records
    with pytest.raises(TagmaskError, match=rf"annotations\.xml image a\.jpg: .*{message}"):
        record.mask.load(6, 8)


MASK = '<mask label="dog" rle="9, 2, 37" left="0" top="0" width="8" height="6" group_id="7"/>'
BOX = '<box label="dog" xtl="1" ytl="1" xbr="3" ybr="2" group_id="7"/>'
POLYGON = '<polygon label="dog" points="0,0;4,0;4,3;0,3" group_id="7"/>'


@pytest.mark.parametrize(
    ("shapes", "whole"),
    [
        (MASK + BOX, True),
        (POLYGON + BOX, True),
        (MASK + BOX.replace("7", "8"), False),
        (MASK.replace("7", "0") + BOX.replace("7", "0"), False),  # 0 is no group
        (MASK + BOX.replace("dog", "cat"), False),
        (MASK + BOX + BOX, False),
        (POLYGON + BOX.replace('"3"', '"7"'), False),  # a person grouped two dogs, of which one has a box
    ],
)
def test_the_box_that_datumaro_writes_beside_each_outline_is_part_of_it(tmp_path, shapes, whole):
    write_cvat(tmp_path, f'<image name="a.jpg" width="8" height="6">{shapes}<tag label="dog"/></image>')
    (record,) = read_dataset(tmp_path).records
    assert (record.mask is not None) == whole
    if whole and "mask" in shapes:
        assert np.argwhere(record.mask.load(6, 8)).tolist() == [[1, 1], [1, 2]]


def test_a_file_of_another_name_is_found_and_several_are_not_guessed_at(tmp_path):
    path = write_cvat(tmp_path)
    other = path.rename(tmp_path / "task_7.xml")
    (tmp_path / "notes.xml").write_text("<notes/>")
    assert len(read_dataset(tmp_path, untagged="negative")) == 3
    (tmp_path / "val.xml").write_text(other.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(TagmaskError, match=r"holds several files of CVAT \(task_7\.xml, val\.xml\); name one of them"):
        read_dataset(tmp_path)
