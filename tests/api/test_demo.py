"""The parts of the demonstration: what waits, what says how far it is, what is drawn. The whole takes minutes."""

import json
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask.api.demo as api_demo
from tagmask.api import demo_part, train
from tagmask.api.demo import PHASES, Part, cost
from tagmask.api.demo_part import SCORES, train_and_score
from tagmask.api.demo_pictures import early_sheet, sheet
from tagmask.cli import app
from tagmask.data.synthetic import begin_demo_set, demo_folder, demo_set, make_demo_set
from tagmask.engine import progress
from tagmask.engine.progress import Waiting
from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe
from tests.conftest import tiny_recipe


def test_phases_end_with_the_recipes() -> None:
    for name, phases in PHASES.items():
        assert phases[-1][0] == load_recipe(f"{name}/demo").training.steps
        assert [begin for begin, _ in phases] == sorted(begin for begin, _ in phases)


def test_cost_counts_each_step_by_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHASES, "cam", ((0, 1.0), (10, 3.0), (20, 5.0)))
    assert [cost("cam", step) for step in (0, 4, 10, 12, 20, 99)] == [0, 4, 10, 16, 40, 40]
    assert cost("cam", None) == 45


def test_a_part_that_fails_names_what_it_said(tmp_path: Path) -> None:
    with ExitStack() as started:
        part = Part("cam", tmp_path, started, 0, 1, 0)  # there is no data set
        assert not part.is_done()
        assert part.step() == 0
        assert part.seconds() is None
        part.begin()
        part.process.wait(timeout=300)
        with pytest.raises(TagmaskError, match=r"cam\.log: training cam failed: .*data"):
            part.is_done()


def test_a_part_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with ExitStack() as started:
        part = Part("cam", tmp_path, started, 0, 1, 0)
        assert part.process.stdin is not None
        part.process.stdin.close()
        assert part.process.wait(timeout=300) == 0  # it was never told to begin


def test_time_left_is_reckoned_from_what_was_done(tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    with ExitStack() as started:
        part = Part("cam", tmp_path, started, 0, 1, 0)
        part.begun = time.monotonic() - 10
        (tmp_path / "cam" / "metrics.jsonl").write_text('{"step": 100}\n{"step": 300}\n')
        assert part.step() == 300
        assert part.seconds() == pytest.approx(10 * (cost("cam", None) / cost("cam", 300) - 1), rel=0.05)


def test_sheets_are_drawn_during_and_after_a_training(cooccur: Path, tmp_path: Path) -> None:
    assert early_sheet(tmp_path / "run", cooccur) is None
    run = train(cooccur, recipe=tiny_recipe("cam", "training.checkpoint_every=2"), output=tmp_path / "run")
    early = early_sheet(run, cooccur)
    assert early is not None
    late = sheet({"a": run, "b": run}, cooccur)
    assert late.width / early.width == 6 / 4  # photograph and ground truth, and two columns a run
    assert late.height == early.height
    first = next(iter(sorted((cooccur / "images").iterdir())[-5:]))
    assert Image.open(first).size == (48, 48)
    assert np.asarray(late).std() > 30


def test_scores_are_written_last_and_not_made_again(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    recipe = tiny_recipe("cam")

    def shortly(data: Path, *, output: Path, **_: object) -> Path:
        asked.append("train")
        return train(data, recipe=recipe, output=output)

    monkeypatch.setattr(demo_part, "train", shortly)
    train_and_score(cooccur, tmp_path / "cam", "cam", 0)
    scores = json.loads((tmp_path / "cam" / SCORES).read_text())
    assert 0 <= scores["decoder"]["miou"] <= 1
    of_validation = (cooccur / "tags.csv").read_text().count(",val")
    assert 0 < of_validation == len(list((tmp_path / "cam" / "masks").glob("*.png")))
    monkeypatch.setattr(demo_part, "load", lambda run: pytest.fail("was scored already"))
    train_and_score(cooccur, tmp_path / "cam", "cam", 0)
    assert asked == ["train", "train"]


def test_time_left_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", logger="tagmask")
    monkeypatch.setattr(progress, "QUIET", 0)
    with Waiting("training") as shown:
        shown.update("cam step 20", None)
        shown.update("cam step 40", 130)
        shown.update("cam step 60", 47)
    assert [record.getMessage() for record in caplog.records] == [
        "training: cam step 20",
        "training: cam step 40; about 2 min left",
        "training: cam step 60; about 50 s left",
    ]


def test_the_command_has_the_set_made_while_it_loads_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[str]] = []

    def then(output: Path, **_: object) -> dict[str, float]:
        found.append(sorted(entry.name for entry in (demo_folder(output, 3) / "data").iterdir()))
        return {}

    monkeypatch.setattr(demo_set, "IMAGES", 4)
    monkeypatch.setattr(api_demo, "demo", then)
    monkeypatch.setattr(demo_set, "get_context", lambda _: get_context("fork"))  # which inherits the four
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert found == [["classes.txt", "cooccur.json", "images", "masks", "scenes.csv", "tags.csv"]]
    assert len(list((tmp_path / "seed3/data/images").iterdir())) == 4


def test_what_is_wrong_with_the_place_of_the_set_is_said_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "seed0/data").mkdir(parents=True)
    (tmp_path / "seed0/data/thesis.txt").write_text("mine")
    making = begin_demo_set(tmp_path, 0)
    making.join(timeout=120)
    assert making.exitcode == 0  # it says nothing itself
    with pytest.raises(TagmaskError, match=r"holds 'thesis\.txt', which no synthetic set made"):
        make_demo_set(tmp_path, 0)
