"""A run folder is made whole or not at all, and a recipe never stands beside products of another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tagmask
from tagmask.data import files
from tagmask.engine import run as run_module
from tagmask.engine import stage as stage_module
from tagmask.engine.run import CAMS, create_run, open_run
from tagmask.engine.stage import DONE
from tagmask.engine.stage_rules import changeable
from tagmask.errors import TagmaskError
from tests.conftest import staged_recipe, tiny_recipe

CLASSES = ("boat", "train", "cow")


class Killed(BaseException):
    """Ends the work as a kill does: nobody catches it."""


def killed_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die where a file of this name should take its place, as a half-written one beside it."""
    original = files.write_bytes

    def write(path: Path, content: bytes) -> None:
        if path.name == name:
            (path.parent / ".tagmask-4194304-0123abcd.tmp").write_bytes(content[:5])
            raise Killed
        original(path, content)

    monkeypatch.setattr(files, "write_bytes", write)


@pytest.mark.parametrize("missing", ["recipe.yaml", "classes.txt", "run.json"])
def test_a_run_that_was_killed_while_it_was_made_is_made_at_the_next_start(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("cam")
    with monkeypatch.context() as patch:
        killed_before(missing, patch)
        with pytest.raises(Killed):
            create_run(tmp_path / "run", recipe, CLASSES)
    files._swept.clear()  # the next start is another process
    create_run(tmp_path / "run", recipe, CLASSES)
    assert open_run(tmp_path / "run").classes == CLASSES
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.yaml", "classes.txt", "run.json"}


@pytest.mark.parametrize(
    "content", [{"recipe.yaml": "method: cam\n"}, {"classes.txt": "boat\n"}, {"recipe.yaml": "", "notes": ""}]
)
def test_bad_input_files_of_the_user_are_no_beginning_of_a_run(content: dict[str, str], tmp_path: Path) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(TagmaskError, match="not empty and no run folder; choose another output"):
        create_run(tmp_path, tiny_recipe("cam"), CLASSES)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


@pytest.mark.parametrize("changed", ["cam_head=auxiliary", "scale_from=photograph"])
def test_cams_half_written_are_not_gone_on_with_by_another_head_or_other_scales(changed: str, tmp_path: Path) -> None:
    key, _, value = changed.partition("=")
    before = staged_recipe("seco")
    run = create_run(tmp_path / "run", before, CLASSES).folder
    after = before.model_copy(update={"inference": before.inference.model_copy(update={key: value})})
    with pytest.raises(TagmaskError, match=rf"holds a run with other inference\.{key};.* --from STAGE makes it anew"):
        create_run(run, after, CLASSES)
    create_run(run, after, CLASSES, free=changeable(after, CAMS))
    assert getattr(open_run(run).recipe.inference, key) == value
    # A run of one stage has no CAMs on disk: it only looks at its training otherwise.
    create_run(tmp_path / "one", tiny_recipe("seco"), CLASSES)
    create_run(tmp_path / "one", tiny_recipe("seco", f"inference.{changed}"), CLASSES)


def test_a_run_of_before_there_were_these_keys_goes_on(tmp_path: Path) -> None:
    recipe = staged_recipe("seco")
    run = create_run(tmp_path / "run", recipe, CLASSES).folder
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.strip() not in ("cam_head: class", "scale_from: size")]
    assert len(kept) == len(lines) - 2
    (run / "recipe.yaml").write_text("".join(kept))
    assert create_run(run, recipe, CLASSES).recipe == recipe


def test_a_kill_on_the_way_to_another_recipe_keeps_the_old_one(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = (staged_recipe("seco", refine={"name": "none", "background_score": score}) for score in (0.1, 0.9))
    run = tagmask.train(cooccur, recipe=before, output=tmp_path / "run")
    masks = {path.name: path.read_bytes() for path in (run / "refine").glob("*.png")}

    # Killed after the old products are gone and before the new recipe is written; and while the first are removed.
    for number, (module, name) in enumerate([(run_module, "write_text"), (stage_module, "_forget")]):
        own = tmp_path / f"killed{number}"
        shutil.copytree(run, own)

        def kill(*_: object) -> None:
            raise Killed

        monkeypatch.setattr(module, name, kill)
        with pytest.raises(Killed):
            tagmask.train(cooccur, recipe=after, output=own, from_stage="refine")
        monkeypatch.undo()
        with pytest.raises(TagmaskError, match=r"holds a run with other refine\.background_score"):
            tagmask.train(cooccur, recipe=after, output=own)
        tagmask.train(cooccur, recipe=before, output=own)
        assert {path.name: path.read_bytes() for path in (own / "refine").glob("*.png")} == masks
        tagmask.train(cooccur, recipe=after, output=own, from_stage="refine")
        assert json.loads((own / "refine" / DONE).read_text())["done"]
        assert {path.name: path.read_bytes() for path in (own / "refine").glob("*.png")} != masks
