"""Damaged and hostile files of every format: an error that names file and row, soon, and nothing else."""

import json
import time
from pathlib import Path

import pytest

from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tests.data.trees import write_image

DEEP = "[" * 100_000
DIGITS = "9" * 5000
ALIASES = "names: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"n{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 12))
    + "]><annotations>&a11;</annotations>"
)


def coco(**changes) -> str:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
        "annotations": [annotation | changes],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return json.dumps(content)


def studio(**changes) -> str:
    return json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": []} | changes]}])


def yolo(names: str = "[cat]", train: str = "images") -> str:
    return f"names: {names}\ntrain: {train}\n"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tags.jsonl", DEEP, r"tags\.jsonl row 1: is no JSON \(nested too deeply\)"),
        (
            "tags.jsonl",
            f'{{"image": "a.jpg", "tags": ["cat"], "n": {DIGITS}}}',
            r"row 1: is no JSON \(Exceeds the limit",
        ),
        ("metadata.jsonl", f'{{"file_name": {DEEP}', r"metadata\.jsonl row 1: is no JSON \(nested too deeply\)"),
        ("metadata.csv", f'file_name,tags\na.jpg,"{DEEP}"\n', r"row 2: tags .* and are none .*nested too deeply"),
        ("instances_a.json", DEEP, r"instances_a\.json: is no JSON \(nested too deeply\)"),
        ("instances_a.json", f'{{"images": [{DIGITS}]}}', r"instances_a\.json: is no JSON \(Exceeds the limit"),
        ("instances_a.json", coco(segmentation={"size": [6, 8], "counts": [float("inf")]}), "an outline is damaged"),
        ("instances_a.json", coco(segmentation={"size": [float("inf"), 8], "counts": "48"}), "an outline is damaged"),
        ("instances_a.json", coco(segmentation=[["x"] * 6]), "an outline is damaged"),
        ("export.json", "[{" + '"a":[' * 100_000, r"export\.json: is no JSON"),
        ("export.json", studio(result=5), "task 1: the `result` of an annotation is no list"),
        ("export.json", studio(result=[{"value": ["cat"]}]), "task 1: the `value` of a result is no object"),
        ("export.json", '[{"data": {"image": "http://[a.jpg"}}]', "task 1: its address .* is none"),
        ("annotations.xml", '<?xml version="1.0" encoding="nope"?><annotations/>', r"annotations\.xml: is no XML"),
        ("annotations.xml", '<?xml version="1.0" encoding="hex"?><annotations/>', r"annotations\.xml: is no XML"),
        ("annotations.xml", BOMB, r"annotations\.xml: is no XML"),
        ("data.yaml", yolo(names="{0: a, x: b}"), r"numbers are \[0, 'x'\]; expected 0, 1, 2"),
        ("data.yaml", yolo(train="1.5"), r"data\.yaml, train: is 1\.5; expected a folder"),
        ("data.yaml", yolo(train="x" * 5000), r"data\.yaml, train: no folder or list"),
        ("data.yaml", yolo(names=DIGITS), r"data\.yaml: is no YAML"),
        ("data.yaml", yolo(names="[" * 100_000), r"data\.yaml: is no YAML \(is nested deeper than 50 levels\)"),
        ("data.yaml", ALIASES + "train: images\n", r"data\.yaml: is no YAML \(holds more than \d+ values once"),
        (
            "labels/a.txt",
            "inf 0.5 0.5 0.1 0.1",
            r"a\.txt row 1: .* holds inf or nan",
        ),
        ("labels/a.txt", "0 nan 0.5 0.1 0.1", "holds inf or nan"),
    ],
    ids=range(24),
)
def test_bad_input_of_every_format(tmp_path: Path, file: str, text: str, message: str) -> None:
    for image in ("a.jpg", "images/a.jpg"):
        write_image(tmp_path / image)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    if file.startswith("labels"):
        path = tmp_path / "data.yaml"
        path.write_text(yolo())
    started = time.process_time()
    with pytest.raises(TagmaskError, match=message):
        read_dataset(path)
    assert time.process_time() - started < 5


def test_an_address_of_many_parts_is_looked_for_in_linear_time(tmp_path: Path) -> None:
    """10,000 parts took 10,000 addresses of that length each."""
    write_image(tmp_path / "images/a.jpg")
    task = {"id": 1, "data": {"image": "/data" * 20_000 + "/a.jpg"}}
    annotation = {"result": [{"value": {"choices": ["cat"]}}]}
    (tmp_path / "export.json").write_text(json.dumps([task | {"annotations": [annotation]}]))
    started = time.process_time()
    assert [record.name for record in read_dataset(tmp_path).records] == ["a"]
    assert time.process_time() - started < 2


def test_xml_of_voc_in_an_unknown_encoding(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text('<?xml version="1.0" encoding="nope"?><annotation/>')
    with pytest.raises(TagmaskError, match=r"a\.xml: is no XML \(unknown encoding"):
        read_dataset(tmp_path)
