"""A training that is stopped by Ctrl+C says what is kept and what goes on; the next start says where it goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tagmask
from tagmask.cli import app
from tagmask.recipes.load import Recipe
from tests.conftest import staged_recipe, tiny_recipe


@pytest.mark.parametrize(
    ("recipe", "stage", "saved", "steps"),
    [
        (tiny_recipe("cam", "training.checkpoint_every=2"), None, 2, 6),
        (staged_recipe("cam", segmenter={"start": "weights"}), "segmenter", 2, 4),
    ],
)
def test_ctrl_c_says_what_is_kept_and_which_command_goes_on(
    recipe: Recipe,
    stage: str | None,
    saved: int,
    steps: int,
    cooccur: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "my run"

    def interrupted(step: int, values: dict[str, Any]) -> None:
        if values.get("stage") == stage and step == 3:
            raise KeyboardInterrupt

    caplog.set_level("INFO", "tagmask")
    with pytest.raises(KeyboardInterrupt):
        tagmask.train(cooccur, recipe=recipe, output=run, on_log=interrupted)
    where = f"at step {saved} of {steps}" + (f" in stage {stage}" if stage else "")
    told = f"stopped; {run} keeps all that was saved, and `tagmask train -o '{run}'` goes on {where}"
    assert [line for line in caplog.messages if line.startswith("stopped")] == [told]
    caplog.clear()

    done = CliRunner().invoke(app, ["train", "-o", str(run)])  # the command that was told
    assert done.exit_code == 0, done.output
    assert f"going on at step {saved} of {steps}" in caplog.messages
    assert re.search(rf"^run: {run} \(\d+\.\d minutes, this start alone\)$", done.stdout, re.MULTILINE)


def test_the_time_of_a_first_start_is_all_there_is(cooccur: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe("cam").dump())
    done = CliRunner().invoke(app, ["train", str(cooccur), "-r", str(recipe), "-o", str(tmp_path / "run")])
    assert re.search(r"^run: \S+ \(\d+\.\d minutes\)$", done.stdout, re.MULTILINE)
