"""Precision of inference: fp32 unless asked, and bf16 near it."""

from __future__ import annotations

import pytest
import torch

from tagmask.engine import device as precision
from tagmask.engine.inference import score
from tagmask.methods.registry import build_method
from tests.conftest import tiny_recipe


def test_bf16_scores_are_near_those_of_fp32_and_not_the_same() -> None:
    recipe = tiny_recipe("cam")
    torch.manual_seed(0)
    method = build_method(recipe, 3).eval()
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    whole, half = (recipe.inference.model_copy(update={"precision": name}) for name in ("32-true", "bf16-mixed"))
    with torch.inference_mode():
        for source in ("decoder", "cam"):
            exact, near = score(method, images, whole, source), score(method, images, half, source)
            assert exact.dtype == near.dtype == torch.float32
            difference = (exact - near).abs().max()
            # bf16 keeps 8 bits of a number; CAMs are divided by their largest, which magnifies what is lost.
            assert 0 < difference < 0.05 * exact.abs().max()


def test_auto_takes_bf16_only_where_the_machine_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for units, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(precision, "has_bf16_units", lambda device, units=units: units)
        assert precision.resolve("auto", "cpu") == expected
        assert precision.resolve("32-true", "cpu") == "32-true"


def test_a_model_on_the_cpu_is_not_asked_for_what_the_gpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16_units", lambda device: device == "cuda")
    assert precision.resolve("auto", "cuda") == "bf16-mixed"
    assert not precision.autocast(torch.device("cpu"), "auto")._enabled
