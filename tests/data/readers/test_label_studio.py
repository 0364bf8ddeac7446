import json

import pytest

from tagmask.data.readers import detect, read_dataset
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
