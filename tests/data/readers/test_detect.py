import pytest

from tagmask.data.readers import detect, read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_table


def test_formats_are_told_apart(tmp_path):
    write_table(tmp_path / "table", "image,tags\na.jpg,cat\n")
    write_table(tmp_path / "only", "image,tags\na.jpg,cat\n", name="labels.csv")
    write_image(tmp_path / "folders/cat/a.jpg")
    write_image(tmp_path / "splits/train/cat/a.jpg")
    write_image(tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages/a.jpg")
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").touch()
    assert detect(tmp_path / "table") == ("table", tmp_path / "table/tags.csv")
    assert detect(tmp_path / "only") == ("table", tmp_path / "only/labels.csv")
    assert detect(tmp_path / "folders") == ("folders", tmp_path / "folders")
    assert detect(tmp_path / "splits")[0] == "folders"
    assert detect(tmp_path / "voc")[0] == "voc"
    assert detect(tmp_path / "coco")[0] == "coco"
    assert detect(tmp_path / "coco/annotations/instances_val2017.json")[0] == "coco"


def test_bad_input_empty_folder(tmp_path):
    with pytest.raises(TagmaskError, match=rf"{tmp_path}: is empty; expected images with their tags"):
        read_dataset(tmp_path)


def test_bad_input_folder_of_images_without_tags(tmp_path):
    write_image(tmp_path / "a.jpg")
    with pytest.raises(TagmaskError, match=r"holds images and no tags; looked for .* Write tags\.csv"):
        read_dataset(tmp_path)


def test_bad_input_folder_of_no_format(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TagmaskError, match=r"no format is recognised; looked for .*JPEGImages.*; found notes\.txt"):
        read_dataset(tmp_path)


def test_bad_input_several_tables(tmp_path):
    for name in ("a.csv", "b.csv"):
        write_table(tmp_path, "image,tags\na.jpg,cat\n", name=name)
    with pytest.raises(TagmaskError, match=r"holds several tables \(a\.csv, b\.csv\); name one"):
        read_dataset(tmp_path)


def test_bad_input_path_that_is_missing_or_of_another_kind(tmp_path):
    image = write_image(tmp_path / "a.jpg")
    with pytest.raises(TagmaskError, match="gone: no such file or folder"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(TagmaskError, match="gone: no such file or folder"):
        read_dataset(tmp_path / "gone", format="voc")
    with pytest.raises(TagmaskError, match=r"a\.jpg: expected a table"):
        read_dataset(image)
    with pytest.raises(TagmaskError, match=r"a\.jpg: is a file; format 'folders' reads a folder"):
        read_dataset(image, format="folders")


def test_bad_input_the_images_of_a_table_alone_lead_to_its_folder(tmp_path):
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    with pytest.raises(TagmaskError, match=f"no tags, which are in tags.csv beside it; give {tmp_path}$"):
        read_dataset(tmp_path / "images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tabel"}, "format: 'tabel' is not known; did you mean 'table'?"),
        ({"untagged": "drop"}, "untagged: 'drop' is not known; expected one of skip, negative, error"),
        ({"tag_source": "masks"}, "tag_source: masks is for VOC trees"),
        ({"image_folder": "nowhere"}, "nowhere: no such folder of images; correct data.image_folder"),
        ({"classes": []}, "classes: no classes; name at least one"),
    ],
)
def test_bad_input_options(tmp_path, options, message):
    write_table(tmp_path, "image,tags\na.jpg,cat\n")
    with pytest.raises(TagmaskError) as raised:
        read_dataset(tmp_path, **options)
    assert message in str(raised.value)
