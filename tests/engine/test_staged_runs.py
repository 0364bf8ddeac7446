"""What people do with a run works with one of several stages, too, whose models lie in folders of their own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tests.api.test_hub import stored as stored  # the fixture: a hub in a folder
from tests.conftest import staged_recipe
from tests.evaluation.conftest import staged_run

METHODS = ("sccam", "rca")


@pytest.fixture(scope="module")
def runs(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("staged")
    return {name: tagmask.train(cooccur, recipe=staged_recipe(name), output=folder / name) for name in METHODS}


@pytest.fixture(scope="module")
def bare(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a segmenter: it has CAMs alone."""
    return staged_run(tmp_path_factory.mktemp("staged") / "bare", cooccur, segmenter=False)


@pytest.mark.parametrize("method", METHODS)
def test_predicts_reports_and_travels(
    method: str, runs: dict[str, Path], cooccur: Path, photo: Path, stored: Any, tmp_path: Path
) -> None:
    assert tagmask.predict(runs[method], cooccur / "images", output=tmp_path / "masks").images == 24
    page = tagmask.report(runs[method], output=tmp_path / "report.html", shown=1).read_text(encoding="utf-8")
    assert "segmenter" in page, "what the stages cost"
    tagmask.push(runs[method], "ada/staged")
    near, far = api.load(runs[method], device="cpu"), api.load("hf-hub:ada/staged", device="cpu")
    np.testing.assert_array_equal(near.predict(photo), far.predict(photo))


@pytest.mark.parametrize("method", METHODS)
def test_is_exported(method: str, runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    done = tagmask.export_onnx(runs[method], tmp_path / "model.onnx")
    assert done.agreement > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_is_explained_on_the_page(method: str, runs: dict[str, Path], photo: Path) -> None:
    model = api.load(runs[method], device="cpu")
    with Image.open(photo) as image:
        found = model.predict(image, [model.classes[0]])
    assert set(np.unique(found.labels)) <= {0, 1}
    assert found.tag_scores.shape == (len(model.classes),)
    assert len(found.cams) == len(model.classes)


def test_without_a_segmenter_the_way_out_is_named(bare: Path, cooccur: Path, tmp_path: Path) -> None:
    from tagmask.serve.server import serving

    def serve() -> None:
        with serving(bare):
            pass

    attempts = {
        "predict": lambda: tagmask.predict(bare, cooccur / "images", output=tmp_path / "masks"),
        "label": lambda: tagmask.label(bare, cooccur, output=tmp_path / "masks"),
        "evaluate": lambda: tagmask.evaluate(bare, cooccur),
        "onnx": lambda: tagmask.export_onnx(bare, tmp_path / "model.onnx"),
        "serve": serve,
    }
    for attempt in attempts.values():
        with pytest.raises(TagmaskError, match=r"--source cam .*--from cams --set") as caught:
            attempt()
        assert str(bare) in str(caught.value)
    assert not (tmp_path / "masks").exists()
    assert not (tmp_path / "model.onnx").exists()
    assert tagmask.label(bare, cooccur, output=tmp_path / "cams", source="cam").images == 24
    assert tagmask.report(bare, output=tmp_path / "report.html", shown=1).is_file()


def test_the_way_out_leads_out(cooccur: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tagmask.train(cooccur, recipe=staged_recipe("rca", refine=None, segmenter=None), output=run)
    with pytest.raises(TagmaskError, match="tagmask train") as caught:
        tagmask.predict(run, cooccur / "images", output=tmp_path / "masks")
    command = shlex.split(str(caught.value).split("`")[1])
    result = CliRunner().invoke(app, command[1:])
    assert result.exit_code == 0, result.output
    assert tagmask.predict(run, cooccur / "images", output=tmp_path / "masks").images == 24
