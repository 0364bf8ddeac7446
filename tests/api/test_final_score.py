"""A finished training ends with the score that `tagmask evaluate` would give."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tagmask import api
from tagmask.api import final_score
from tagmask.errors import TagmaskError
from tagmask.evaluation.tables import to_json
from tests.conftest import staged_recipe, tiny_recipe

SCORES = final_score.SCORES


@pytest.fixture(scope="module")
def trained(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(cooccur, tmp_path_factory.mktemp("final") / "run")


def train(data: Path, output: Path) -> Path:
    settings = ("training.steps=2", "method.decoder_from=0", "inference.scales=[0.5,1.0]", "inference.refine=crf")
    return api.train(data, recipe=tiny_recipe("cam", *settings), output=output)


def test_it_is_what_evaluate_measures_and_the_training_says_it(trained: Path) -> None:
    result, _ = api.evaluate(trained)
    held = json.loads((trained / SCORES).read_text())
    assert held["miou"] == pytest.approx(result.scores.miou, abs=1e-6)
    assert held["conditions"]["scales"] == [0.5, 1.0]
    assert api.next_steps(trained)[0] == (
        f"score: mIoU {100 * result.scores.miou:.1f} % on {result.images} held-out images, without tags "
        "(scales 0.5, 1; refinement crf)"
    )


def test_scores_newer_than_the_model_are_kept_and_older_ones_replaced(trained: Path, cooccur: Path) -> None:
    path = trained / SCORES
    right = path.read_text()
    other = json.dumps({**json.loads(right), "miou": 0.125})
    path.write_text(other)
    train(cooccur, trained)
    assert path.read_text() == other
    made = (trained / "model.safetensors").stat().st_mtime
    os.utime(path, (made - 10, made - 10))
    train(cooccur, trained)
    assert json.loads(path.read_text())["miou"] == pytest.approx(json.loads(right)["miou"], abs=1e-6)


def test_a_file_of_that_name_which_holds_no_scores_is_left_and_the_log_has_the_word(
    trained: Path, cooccur: Path
) -> None:
    path = trained / SCORES
    held = path.read_text()
    path.write_text("mine")
    os.utime(path, (0, 0))
    train(cooccur, trained)
    assert path.read_text() == "mine"
    assert "held-out images, without tags, at one scale" in api.next_steps(trained)[0]
    path.write_text(held)


def test_scores_of_a_run_with_cams_alone_are_kept_until_it_is_trained_anew(cooccur: Path, tmp_path: Path) -> None:
    recipe, run = staged_recipe("cam", segmenter=None), tmp_path / "run"
    api.train(cooccur, recipe=recipe, output=run)
    assert not (run / SCORES).exists()
    (run / SCORES).write_text(json.dumps(to_json(api.evaluate(run, source="cam")[0])))
    api.train(cooccur, recipe=recipe, output=run)
    assert (run / SCORES).exists()
    os.utime(run / SCORES, (0, 0))
    api.train(cooccur, recipe=recipe, output=run)
    assert not (run / SCORES).exists()


def test_too_many_images_are_left_to_evaluate(trained: Path, cooccur: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_score, "MOST", 1)
    path = trained / SCORES
    held = path.read_text()
    os.utime(path, (0, 0))  # of a model that was there before
    train(cooccur, trained)
    assert not path.exists()
    assert "at one scale" in api.next_steps(trained)[0]
    path.write_text(held)


def test_masks_that_do_not_open_cost_the_score_and_not_the_run(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TagmaskError("no image can be compared")

    monkeypatch.setattr(final_score, "evaluate_method", refuse)
    run = train(cooccur, tmp_path / "run")
    assert (run / "model.safetensors").exists()
    assert not (run / SCORES).exists()
    assert "the run has no score: no image can be compared" in caplog.text
