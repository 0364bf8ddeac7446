"""Every example of the docs runs, the reference of recipes is in step, and links lead somewhere.

A block whose info string ends in `skip-run` needs the network, a GPU or hours, and is only read. Trainings are cut to a
few steps. A block of Python that begins with the comment `# NAME.py` is saved under that name and not run by itself.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.methods import registry
from tagmask.recipes import load as recipe
from tagmask.recipes import sections

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = ["training.steps=4", "training.batch=2", "training.workers=0", "backbone.weights=null"]
NOT_RUN = {"pip", "make", "git", "cd", "export"}  # they change the machine; make's targets are tests of their own
SERVERS = {"serve", "push"}
WITHOUT_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["language"], match["text"], text[: match.start()].count("\n") + 1)
        for match in BLOCK.finditer(text)
        if "skip-run" not in match["info"]
    ]


@pytest.fixture(scope="module")
def world(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has at hand: photos/, a run, its masks."""
    root = tmp_path_factory.mktemp("reader")
    shutil.copytree(cooccur, root / "photos")
    api.train(root / "photos", output=root / "runs" / "mine", overrides=SHORT)
    api.predict(root / "runs" / "mine", root / "photos" / "images", output=root / "masks")
    shutil.copytree(root / "photos" / "images", root / "new_photos")
    return root


@pytest.fixture
def place(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the world to work in, with short trainings; what a page registers or imports is forgotten again."""
    folder = tmp_path / "work"
    shutil.copytree(world, folder)
    settings = folder / "runs" / "mine" / "recipe.yaml"
    settings.write_text(settings.read_text().replace(str(world), str(folder)))
    real = api.train

    def short_train(data: Any = None, *, recipe: Any = "auto", overrides: Any = (), **more: Any) -> Path:
        given = tuple(overrides) if recipe != "auto" else (*overrides, *SHORT)
        return real(data, recipe=recipe, overrides=given, **more)

    monkeypatch.setattr(api, "train", short_train)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    modules = set(sys.modules)
    for name in sections.method_names():
        sections.section_of(name)  # what is loaded only in the copy would be forgotten with it
    known = dict(sections.METHODS)
    monkeypatch.setattr(sections, "METHODS", known)
    monkeypatch.setattr(registry, "METHODS", known)
    yield folder
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


def run_console(page: Path, block: Block) -> None:
    for line in block.text.splitlines():
        if not line.startswith("$ "):
            continue
        command = shlex.split(line.removeprefix("$ "), comments=True)
        assert command[0] in NOT_RUN | {"tagmask", "torchrun"}, (
            f"{page.name}:{block.line}: do not know how to run {line!r}"
        )
        if command[0] == "torchrun":
            short = [argument for text in SHORT for argument in ("--set", text)]
            run = [sys.executable, "-m", "torch.distributed.run", *command[1:], *short]
            done = subprocess.run(run, capture_output=True, text=True, check=False, env=WITHOUT_GPU)
            assert done.returncode == 0, f"{page.name}:{block.line}: {line}\n{done.stderr}"
        if command[0] == "tagmask" and command[1] not in SERVERS:
            result = CliRunner().invoke(app, command[1:])
            assert result.exit_code == 0, f"{page.name}:{block.line}: {line}\n{result.output}\n{result.exception!r}"


def run_python(page: Path, block: Block, names: dict[str, Any]) -> None:
    if named := re.match(r"# (\w+\.py)\n", block.text):
        Path(named[1]).write_text(block.text, encoding="utf-8")
    else:
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_examples_run(page: Path, place: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "console":
            run_console(page, block)
        elif block.language == "python":
            run_python(page, block, names)
        elif block.language == "yaml":
            recipe.load_recipe(recipe.yaml.safe_load(block.text))


def test_a_method_of_your_own_is_a_hundred_lines_and_learns(place: Path) -> None:
    """The page for new methods, literally: what it saves, trains, predicts."""
    page = DOCS / "adding_a_method.md"
    names: dict[str, Any] = {}
    examples = [block for block in blocks(page) if block.language == "python"]
    assert examples[0].text.count("\n") <= 100
    for block in examples:
        run_python(page, block, names)
    logged = (place / "runs" / "hide_and_seek" / "metrics.jsonl").read_text()
    assert '"seg"' in logged, "the decoder had its turn"
    masks = sorted((place / "hidden_masks").glob("*.png"))
    assert len(masks) == 24
    assert np.asarray(Image.open(masks[0])).shape == (48, 48)
    assert names["scores"].scores.miou >= 0
    assert tagmask.load(names["run"]).method.__class__.__name__ == "HideAndSeek"


def test_recipes_page_is_in_step_with_the_models() -> None:
    specification = importlib.util.spec_from_file_location("generate_recipes", DOCS / "generate_recipes.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == module.page(), "run: python docs/generate_recipes.py"


def slugs(page: Path) -> set[str]:
    """Anchors of a page: its headings as the builder turns them, and the names it gives itself."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
    plain = {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
    return plain | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in slugs(there), f"{page.name} links to {target}"
