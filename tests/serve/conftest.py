"""A run, another one, and the masks of the first, shared by the tests of the page."""

from __future__ import annotations

from pathlib import Path

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
