import io
import json

import pytest
from PIL import Image

from tagmask.data.readers import detect, read_dataset
from tagmask.data.readers.parquet import unpack_parquet
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write_parquet(path, columns: dict, features: dict | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def encoded(format: str = "JPEG", colour: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 20, 30)).save(stream, format=format)
    return stream.getvalue()


def test_paths_with_names_numbers_and_nothing_known(tmp_path):
    for name in ("a.jpg", "sub/ü.jpg", "c.jpg"):
        write_image(tmp_path / name)
    features = {
        "image": {"_type": "Image"},
        "labels": {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}},
    }
    path = write_parquet(
        tmp_path / "data.parquet",
        {"image": ["a.jpg", "sub/ü.jpg", "c.jpg"], "labels": [[0, 1], [], None], "split": ["train", "val", "train"]},
        features,
    )
    assert detect(path)[0] == detect(tmp_path)[0] == "parquet"
    dataset = read_dataset(path, untagged="negative")
    assert dataset.classes == ("cat", "dog")
    assert [(record.name, record.tags, record.unknown, record.split) for record in dataset.records] == [
        ("a", (0, 1), (), "train"),
        ("sub/ü", (), (), "val"),
        ("c", (), (0, 1), "train"),
    ]


def test_several_files_with_splits_in_their_names(tmp_path):
    for split, tag in (("train", "cat"), ("test", "dog")):
        write_image(tmp_path / f"photos/{split}.jpg")
        image = {"bytes": None, "path": f"{split}.jpg"}
        write_parquet(tmp_path / f"set/data/{split}-00000-of-00001.parquet", {"image": [image], "tags": [tag]})
    dataset = read_dataset(tmp_path / "set", image_folder=tmp_path / "photos")
    assert [(record.name, record.tags, record.split) for record in dataset.records] == [
        ("test", (1,), "test"),
        ("train", (0,), "train"),
    ]


def test_images_inside_are_refused_then_unpacked_and_read(tmp_path):
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "a;b"]}}
    pictures = [
        {"bytes": encoded(), "path": "ü 1.jpeg"},
        {"bytes": encoded("PNG"), "path": None},
        {"bytes": encoded(colour=9), "path": "../../ü 1.jpg"},
        {"bytes": encoded("WEBP"), "path": "C:\\x\\w.bin"},
    ]
    path = write_parquet(tmp_path / "train-00000.parquet", {"image": pictures, "label": [1, 0, 0, None]}, names)
    with pytest.raises(TagmaskError, match=r"row 1: holds the image itself.*tagmask data unpack .* -o FOLDER"):
        read_dataset(path)
    output = tmp_path / "out"
    assert unpack_parquet(path, output) == 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "train-00000.parquet"]
    dataset = read_dataset(output, untagged="negative")
    assert dataset.classes == ("cat", "a;b")
    assert [(record.name, record.image.name, record.tags, record.unknown) for record in dataset.records] == [
        ("ü 1", "ü 1.jpg", (1,), ()),
        ("000001", "000001.png", (0,), ()),
        ("ü 1-000002", "ü 1-000002.jpg", (0,), ()),
        ("x/w", "w.webp", (), (0, 1)),
    ]
    assert dataset.splits == ("train",)
    assert dataset.records[0].image.read_bytes() == pictures[0]["bytes"]
    with pytest.raises(TagmaskError, match="out: is not an empty folder; choose another output"):
        unpack_parquet(path, output)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"no image"], "tags": ["cat"]}, "row 1: the image does not open"),
        ({"image": [encoded()], "tags": [5]}, "row 1: tag 5 is a number, and nobody says its name"),
        ({"image": [None], "tags": ["cat"]}, "row 1: has no image; remove the row"),
        ({"image": ["a.jpg"], "tags": ["cat"]}, "row 1: holds no image; read the file as it is"),
        ({"image": [encoded()], "caption": ["x"]}, "has no column of tags; expected one called tags"),
        (
            {"picture": [encoded()], "tags": ["cat"]},
            "has no column of images; expected one called image, found picture",
        ),
    ],
)
def test_bad_input_unpacked_leaves_nothing_behind(tmp_path, columns, message):
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(TagmaskError, match=message):
        unpack_parquet(path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_bad_input_missing_image_and_damaged_file(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"file_name": ["gone.jpg"], "tags": [["cat"]]})
    with pytest.raises(TagmaskError, match=r"a\.parquet row 1: no image file .*gone\.jpg"):
        read_dataset(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TagmaskError, match=r"a\.parquet: is no whole parquet file"):
        read_dataset(path)


def test_bad_input_names_that_no_folder_can_hold(tmp_path):
    pictures = [{"bytes": encoded("PNG"), "path": name} for name in ("a", "a.png/b")]
    path = write_parquet(tmp_path / "a.parquet", {"image": pictures, "tags": ["cat", "dog"]})
    with pytest.raises(TagmaskError, match=r"row 2: 'a\.png/b\.png' cannot be written"):
        unpack_parquet(path, tmp_path / "out")
    path = write_parquet(tmp_path / "a.parquet", {"image": [{"bytes": encoded(), "path": "x" * 300}], "tags": ["cat"]})
    with pytest.raises(TagmaskError, match=r"row 1: image name 'x+' has a part of over 240 bytes"):
        unpack_parquet(path, tmp_path / "out")
    with pytest.raises(TagmaskError, match=r"a\.parquet is a file, not a folder; choose another output"):
        unpack_parquet(write_parquet(tmp_path / "a.parquet", {"image": [encoded()], "tags": ["cat"]}), path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_bad_input_cells_and_features_of_great_depth(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"file_name": ["a.jpg"], "tags": ["[" * 100_000]})
    with pytest.raises(TagmaskError, match=r"row 1: tags .* begin as a JSON list and are none .*nested too deeply"):
        read_dataset(path)
    feature: dict = {"_type": "List"}
    for _ in range(300):
        feature = {"_type": "List", "feature": feature}
    write_image(tmp_path / "a.jpg")
    path = write_parquet(tmp_path / "a.parquet", {"image": ["a.jpg"], "tags": [["cat"]]}, {"tags": feature})
    assert read_dataset(path).classes == ("cat",)
