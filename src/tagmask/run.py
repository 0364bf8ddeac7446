"""The run folder: what a training leaves behind and everything later starts from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask import __version__
from tagmask.data.dataset import check_class_list
from tagmask.errors import TagmaskError
from tagmask.recipe import Recipe, load_recipe

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run folder's description.

    Attributes:
        folder: where it lies.
        recipe: fully resolved.
        classes: K names in id order.
    """

    folder: Path
    recipe: Recipe
    classes: tuple[str, ...]


def create_run(folder: Path, recipe: Recipe, classes: tuple[str, ...], *, free: Sequence[str] = ()) -> Run:
    """Make a run folder, or take up the one that is there if it is of the same recipe and classes.

    Args:
        free: sections of the recipe that may have changed, since what follows from them is made anew.

    Raises:
        TagmaskError: the folder holds something else; nothing in it is touched.
    """
    run = Run(folder, recipe, classes)
    if folder.exists() and not folder.is_dir():
        raise TagmaskError(f"{folder}: a file, not a folder; choose another output")
    if (folder / "run.json").exists():
        old = open_run(folder)
        if old.classes != classes or _what_matters(old.recipe, free) != _what_matters(recipe, free):
            raise TagmaskError(
                f"{folder}: holds a run of another recipe or other classes; choose another output, or remove the folder"
            )
        if free:
            write_text(folder / "recipe.yaml", recipe.dump())
        return run
    if folder.exists() and any(folder.iterdir()):
        raise TagmaskError(f"{folder}: not empty and no run folder; choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", recipe.dump())
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    write_text(folder / "run.json", json.dumps({"format": FORMAT, "tagmask": __version__}) + "\n")
    return run


def open_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        TagmaskError: no run folder, or of another version of the format.
    """
    description = folder / "run.json"
    if not description.is_file():
        what = "no run folder (run.json is missing)" if folder.is_dir() else "no such run folder"
        raise TagmaskError(f"{folder}: {what}; give the --output of a `tagmask train` or `tagmask import`")
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
        version, writer = values["format"], values.get("tagmask", "?")
    except (ValueError, KeyError, TypeError):
        raise TagmaskError(f"{description}: damaged; expected a JSON object with the key 'format'") from None
    if version != FORMAT:
        raise TagmaskError(
            f"{folder}: a run of format {version}, written by tagmask {writer}; this is tagmask {__version__}, which "
            f"reads format {FORMAT}: use that version, or train again"
        )
    recipe = load_recipe(folder / "recipe.yaml")
    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    return Run(folder, recipe, check_class_list(names, str(folder / "classes.txt")))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _what_matters(recipe: Recipe, free: Sequence[str]) -> dict[str, object]:
    """The recipe without what may differ between two starts of one run."""
    values = recipe.model_dump(mode="json")
    for key in ("workers", "log_every", "checkpoint_every", "evaluate_every"):
        del values["training"][key]
    del values["inference"]
    del values["data"]["path"]
    return {name: value for name, value in values.items() if name not in free}
