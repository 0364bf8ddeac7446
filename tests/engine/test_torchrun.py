"""Processes that torchrun started train one run together, though the recipe says nothing of devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagmask.api import train
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture
def two_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "one"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("two_of_torchrun")
def test_bad_input_another_number_of_devices(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"training\.devices is 4, and torchrun started 2 processes; set it to 2"):
        train(cooccur, recipe=tiny_recipe("cam", "training.devices=4"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
