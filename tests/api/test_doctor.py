from __future__ import annotations

import re
from importlib.metadata import requires, version

import pytest
import torch
from typer.testing import CliRunner

from tagmask.api import doctor
from tagmask.cli import app


def test_doctor_tells_versions_and_device() -> None:
    said = CliRunner().invoke(app, ["doctor"]).output
    assert f"tagmask {version('tagmask')}, Python" in said
    assert f"torch {version('torch')}" in said
    if not torch.cuda.is_available():
        assert "device: no GPU; " in said
    assert "pretrained weights in the cache: " in said


def test_doctor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.distribution

    def without_gradio(name: str) -> object:
        if name == "gradio":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "distribution", without_gradio)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    lines = doctor.look_around()
    assert "extra web: the page (tagmask serve): missing gradio: pip install 'tagmask[web]'" in lines
    assert sum(line.startswith("extra ") for line in lines) == len(doctor.EXTRAS)


def test_doctor_speaks_of_every_extra_that_a_user_may_want() -> None:
    extras = {name for text in requires("tagmask") or () for name in re.findall(r"extra == ['\"](\w+)", text)}
    assert set(doctor.EXTRAS) == extras - {"crf", "docs", "dev"}
