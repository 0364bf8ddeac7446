"""A score against masks that tagmask wrote itself is never told without a word of warning."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tagmask
from tests.conftest import tiny_recipe


def test_every_verb_that_scores_warns_of_masks_that_tagmask_wrote(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos, run, masks = tmp_path / "photos", tmp_path / "run", tmp_path / "labelled"
    shutil.copytree(cooccur, photos)
    shutil.rmtree(photos / "masks")
    tagmask.train(photos, recipe=tiny_recipe("cam"), output=run)
    tagmask.label(run, photos, output=masks)
    assert not any("not ground truth" in message for message in caplog.messages)

    named = f"data.masks={masks}"
    for score in (
        lambda: tagmask.evaluate(run, photos, overrides=[named]),
        lambda: tagmask.evaluate(masks, photos, overrides=[named]),
        lambda: tagmask.report(run, photos, overrides=[named]),
        lambda: tagmask.train(photos, recipe=tiny_recipe("cam", named), output=tmp_path / "second"),
    ):
        caplog.clear()
        score()
        (told,) = [message for message in caplog.messages if "not ground truth" in message]
        assert told.startswith(f"2 of 2 masks to score against, such as {masks}")
    caplog.clear()
    tagmask.evaluate(run, cooccur)
    assert not any("not ground truth" in message for message in caplog.messages)
