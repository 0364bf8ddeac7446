"""Processes that torchrun started train one run together, though the recipe says nothing of devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagmask.api import train
from tagmask.engine.run import open_run
from tagmask.errors import TagmaskError
from tests.conftest import staged_recipe, tiny_recipe


def torchrun(data: Path, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    recipe = folder.with_name("recipe.yaml")
    recipe.write_text(tiny_recipe("cam", "training.steps=3", "method.decoder_from=0").dump())
    settings = [argument for text in overrides for argument in ("--set", text)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, "-m", "tagmask", "train", str(data), "-r", str(recipe), "-o", str(folder), *settings],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_train_one_run(cooccur: Path, tmp_path: Path) -> None:
    done = torchrun(cooccur, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert open_run(tmp_path / "run").recipe.training.devices == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".tagmask")]


@pytest.fixture
def two_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "one"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("two_of_torchrun")
def test_bad_input_another_number_of_devices(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"training\.devices is 4, and torchrun started 2 processes; set it to 2"):
        train(cooccur, recipe=tiny_recipe("cam", "training.devices=4"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_of_torchrun")
def test_bad_input_stages_run_on_one_device(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"several stages runs on one device; .* without torchrun"):
        train(cooccur, recipe=staged_recipe("cam"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
