"""What the shell offers on TAB, asked of typer as a shell asks."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tagmask.api.reproduce import EXPERIMENTS
from tagmask.cli import app
from tagmask.recipes import recipe_names


def offered(line: str) -> list[str]:
    """Return what bash offers for the last word of a line; an empty one after a space."""
    words = line.split(" ")
    asked = {"_TAGMASK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(app, prog_name="tagmask", env=asked).output.split()


@pytest.mark.parametrize("verb", ["train photos", "evaluate masks photos", "refine cams photos", "data check photos"])
@pytest.mark.parametrize("option", ["-r", "--recipe"])
def test_names_of_recipes(verb: str, option: str) -> None:
    beginning = [name for name in recipe_names() if name.startswith("ca")]
    assert "cam/default" in beginning
    assert offered(f"tagmask {verb} {option} ca") == beginning
    assert offered(f"tagmask {verb} {option} my.ya") == []  # then the shell offers files


def test_train_offers_auto_too() -> None:
    assert offered("tagmask train -r ") == ["auto", *recipe_names()]


def test_choices() -> None:
    assert offered("tagmask reproduce ") == list(EXPERIMENTS)
    assert offered("tagmask export masks masks -f co") == ["coco", "coco-polygons"]
    assert offered("tagmask label --sink p") == ["png", "parquet"]
