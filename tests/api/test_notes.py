"""What `train` says of the data before its first step and of the masks at its end, and that the report repeats it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tagmask import api
from tagmask.api.report import report
from tagmask.data.check import check_dataset
from tagmask.errors import TagmaskError
from tagmask.methods.cam import Cam
from tests.conftest import staged_recipe, tiny_recipe


@pytest.fixture
def boats(cooccur: Path, tmp_path: Path) -> Path:
    """The synthetic set, with the tag boat on every image."""
    folder = tmp_path / "boats"
    shutil.copytree(cooccur, folder)
    rows = [line.split(",") for line in (folder / "tags.csv").read_text().splitlines()]
    tagged = [[name, ";".join(sorted({*tags.split(";"), "boat"})), split] for name, tags, split in rows[1:]]
    (folder / "tags.csv").write_text("\n".join(",".join(row) for row in [rows[0], *tagged]) + "\n")
    return folder


def test_untaught_classes_are_told_before_the_first_step(
    boats: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tagmask")
    api.train(boats, recipe=staged_recipe("cam"), output=tmp_path / "run")
    said = [record.message for record in caplog.records]
    sentence = next(line for line in said if line.startswith("class 'boat': in 100 % of the images (all of them)"))
    assert "add images without it, or leave it out (data.classes)" in sentence
    assert said.index(sentence) < next(i for i, line in enumerate(said) if line.startswith("stage 1"))
    assert json.loads((tmp_path / "run" / "notes.json").read_text())[0] == sentence
    page = report(tmp_path / "run", output=tmp_path / "report.html").read_text()
    assert "What speaks against these masks" in page
    assert "in 100 % of the images (all of them)" in page


def test_full_supervision_is_not_told_what_tags_cannot_teach(
    boats: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.train(boats, recipe=tiny_recipe("full"), output=tmp_path / "run", overrides=["training.steps=1"])
    assert "of the images" not in caplog.text
    assert not (tmp_path / "run" / "notes.json").exists()


def test_the_check_says_it_too(boats: Path) -> None:
    assert [str(each) for each in check_dataset(boats).warnings if "in 100 % of the images" in str(each)]


def test_masks_in_which_a_class_is_never_won_are_told_at_the_end(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No CAM exceeds a background score of 1, so no class is in any mask."""
    nothing = staged_recipe("cam", refine={"name": "none", "background_score": 1.0})
    run = api.train(cooccur, recipe=nothing, output=tmp_path / "run")
    last = caplog.records[-1].message
    assert last.startswith("what speaks against this run's masks: 'train', 'cow': in next to none of the masks")
    assert "training.steps" in last
    before, told = json.loads((run / "notes.json").read_text())
    assert "in fewer than 10 images to learn from" in before
    assert told == last.removeprefix("what speaks against this run's masks: ")


def test_a_decoder_that_never_finds_a_class_is_told_at_the_end(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def blind(method: Cam, images: Tensor) -> Tensor:
        scores = torch.zeros(len(images), 4, 3, 3)
        scores[:, 0] = 1
        return scores

    monkeypatch.setattr(Cam, "scores", blind)
    api.train(cooccur, recipe=tiny_recipe("cam", "training.steps=3"), output=tmp_path / "run")
    assert "what speaks against this run's masks: 'train', 'cow': in next to none of the masks" in caplog.text


def test_a_decoder_that_never_learnt_is_not_judged(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        Cam, "scores", lambda method, images: torch.eye(4)[0, :, None, None].expand(len(images), 4, 3, 3)
    )
    for begins, judged in ((3, False), (2, True)):
        recipe = tiny_recipe("cam", "training.steps=3", f"method.decoder_from={begins}")
        run = api.train(cooccur, recipe=recipe, output=tmp_path / f"from{begins}")
        assert ("what speaks against this run's masks" in caplog.text) == judged
        assert ("in next to none of the masks" in (run / "notes.json").read_text()) == judged


def test_a_class_list_without_the_last_class_is_refused_before_training(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"data.last: no class 'boot'; did you mean 'boat'\?"):
        api.train(cooccur, recipe=staged_recipe("cam", data={"last": ["boot"]}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_damaged_notes_are_named(cooccur: Path, tmp_path: Path) -> None:
    run = api.train(cooccur, recipe=staged_recipe("cam"), output=tmp_path / "run")
    (run / "notes.json").write_text("{")
    with pytest.raises(TagmaskError, match=r"notes.json: damaged"):
        report(run, output=tmp_path / "report.html")
