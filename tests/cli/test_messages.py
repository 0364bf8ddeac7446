"""Messages on the console are text: brackets in file and class names mean nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tagmask.cli import app
from tests.conftest import staged_recipe, tiny_recipe

NAME = "a[/old] [red]"


@pytest.fixture
def bracketed(cooccur: Path, tmp_path: Path) -> Path:
    """The synthetic set with a class of that name, and a damaged image of that name in every split."""
    folder = tmp_path / "set"
    shutil.copytree(cooccur, folder)
    table, listed = folder / "tags.csv", folder / "classes.txt"
    listed.write_text(listed.read_text().replace("cow", NAME))
    head, *rows = table.read_text().splitlines()
    rows = [row.replace("cow", NAME) for row in rows]
    for split in ("train", "val", "test"):
        broken = folder / "images" / f"{NAME}-{split}.png"
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"damaged")
        rows.append(f"{NAME}-{split}.png,{NAME},{split}")
    table.write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.mark.parametrize("stages", [False, True])
def test_brackets_in_names_are_text_in_every_message(bracketed: Path, tmp_path: Path, stages: bool) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    chosen = staged_recipe("cam") if stages else tiny_recipe("cam")
    recipe.write_text(chosen.dump())
    for arguments in (
        ["train", str(bracketed), "-r", str(recipe), "-o", str(run)],
        ["evaluate", str(run), str(bracketed)],
        ["label", str(run), str(bracketed), "-o", str(tmp_path / "masks")],
        ["predict", str(run), str(bracketed / "images"), "-o", str(tmp_path / "predicted")],
        ["data", "check", str(bracketed)],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == (1 if "check" in arguments else 0), (arguments, done.output, done.exception)
        assert NAME in done.output, arguments
    assert (run / "recipe.yaml").exists()
