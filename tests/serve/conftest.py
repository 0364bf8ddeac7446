"""A run, another one, and the masks of the first, shared by the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagmask import api
from tagmask.api import Model
from tests.conftest import tiny_recipe


@pytest.fixture(scope="session")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return api.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="session")
def other(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0", "training.seed=7")
    return api.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("runs") / "second")


@pytest.fixture(scope="session")
def model(run: Path) -> Model:
    return api.load(run, device="cpu")


@pytest.fixture(scope="session")
def masks(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the training images of the set, with `confidence.csv` and `classes.txt`."""
    return api.label(run, output=tmp_path_factory.mktemp("masks"), split=["train"]).folder


@pytest.fixture
def labelled(masks: Path, tmp_path: Path) -> Path:
    """A copy of the masks, to be changed."""
    return Path(shutil.copytree(masks, tmp_path / "labelled"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, for tests of modules that are skipped where there is none."""
    from tests.serve.test_page import CHROMIUM, FLAGS, PATIENCE, playwright

    with playwright.sync_playwright() as driver:
        own = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield own
        own.close()


@pytest.fixture(scope="module")
def shots(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the module's screenshots."""
    return tmp_path_factory.mktemp(request.module.__name__.rsplit("_", 2)[-2])
