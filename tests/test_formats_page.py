"""The page of data formats, literally: the files it shows are written, and its commands read them."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tagmask.cli import app
from tagmask.data.readers import read_dataset
from tests.data.readers.test_foreign import LAYOUTS

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
IN = PAGE.partition("\n## Formats in\n")[2].partition("\n## Formats out\n")[0]
SECTIONS = dict(re.findall(r"^\(in-([\w-]+)\)=\n(.*?)(?=^\(in-|\Z)", IN, re.DOTALL | re.MULTILINE))
FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COUNTS = {
    **{"table": 3, "folders": 3, "coco": 1, "voc": 1, "yolo": 1, "label-studio": 1, "cvat": 2, "labelme": 1},
    "imagefolder": 2,
}


def write_example(section: str, root: Path) -> None:
    """The files that a section shows, and the images of its tree."""
    for name, text in FILE.findall(section):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for tree in re.findall(r"^```text\n(\w+/\n.*?)^```$", section, re.DOTALL | re.MULTILINE):
        top, *lines = (line.strip() for line in tree.splitlines())
        for line in lines:
            path = root / top / line
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".jpg":
                Image.new("RGB", (64, 48), (90, 20, 30)).save(path)
            assert path.exists() or path.suffix == ".npy", f"the tree shows {path.name}, and no block its content"


@pytest.mark.parametrize(
    "name", [name for name in SECTIONS if name not in ("parquet", "tar", "cls-labels", "all", "layouts")]
)
def test_examples_in_are_read_by_the_commands_shown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_example(SECTIONS[name], tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ tagmask (data check .*)$", SECTIONS[name], re.MULTILINE)
    assert commands
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
        assert len(read_dataset(shlex.split(command)[2])) == COUNTS[name]


def test_class_vectors_as_the_page_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = SECTIONS["cls-labels"]
    write_example(section, tmp_path)
    monkeypatch.chdir(tmp_path / "vectors")
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    exec(block, {})
    dataset = read_dataset(tmp_path / "vectors")
    assert [(record.tags, record.split) for record in dataset.records] == [((0,), "train"), ((0, 1), "train")]
    np.testing.assert_array_equal(dataset.tag_matrix(), [[1, 0], [1, 1]])


def test_each_layout_of_the_table_has_the_test_it_names() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)`: (.+?) \|$", SECTIONS["layouts"], re.MULTILINE)
    assert len(rows) == SECTIONS["layouts"].count("\n| ") - 2  # without the head and its line
    for _, _, name, tests in rows:
        text = (Path(__file__).parent / "data" / "readers" / f"test_{name}.py").read_text(encoding="utf-8")
        assert [test for test in tests.split(", ") if f"def test_{test}(" not in text] == []


def test_every_foreign_layout_is_on_the_page() -> None:
    told = re.search(r"^\| (.+?) \| told \| `foreign`", SECTIONS["layouts"], re.MULTILINE)
    assert told
    names = [re.sub(r" \((JSON|CSV|XML)\)| segmentation$", "", name) for name in LAYOUTS]
    short = [re.sub(r"^(COCO|Roboflow) ", "", name) for name in names]
    assert [name for name in short if name.removesuffix(" segmentation") not in told.group(1)] == []
