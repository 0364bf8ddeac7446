from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tagmask.ops import compiled as compiled_module
from tagmask.ops import crf
from tagmask.ops.compiled import compiled
from tagmask.ops.crf import PRESETS, CrfParameters, dense_crf
from tests.ops.test_crf import scene
from tests.ops.test_lattice import filter_one_by_one

pytest.importorskip("numba", reason="numba is not installed: pip install tagmask[fast]")
loops = compiled("compiled_crf")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width", "classes"), [(40, 50, 3), (70, 130, 9), (5, 200, 17)])
def test_both_ways_agree(preset: str, height: int, width: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums are taken in another order; sizes of less and more than a strip, rows of one, two and three groups."""
    image, scores = scene(height, width, classes)
    sets = torch.stack([scores, scores.flip(0)])
    fast = dense_crf(image, scores, preset=preset), dense_crf(image, sets, preset=preset)
    monkeypatch.setattr(crf, "compiled", lambda name: None)
    for marginals, own in zip(fast, (scores, sets), strict=True):
        difference = (marginals - dense_crf(image, own, preset=preset)).abs()
        # A pixel on the border of two simplices may fall into the other one.
        assert float((difference > 1e-4).float().mean()) < 1e-3
        assert float(difference.max()) < 0.01


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_tables_filter_as_a_lattice_built_point_by_point(dimensions: int) -> None:
    assert loops is not None
    generator = torch.Generator().manual_seed(dimensions)
    features = torch.randn(dimensions, 300, generator=generator) * 0.7
    values = torch.rand(300, 1, generator=generator)
    vertices, weights, neighbours = loops.make_tables(features.numpy())
    spread = np.zeros(neighbours.shape[1] + 1)
    np.add.at(spread, vertices, weights * values.numpy())
    for table in neighbours:
        spread[:-1] += 0.5 * (spread[table[:, 0]] + spread[table[:, 1]])
    filtered = (weights * spread[vertices]).sum(axis=1) / (1 + 2.0**-dimensions)
    expected = filter_one_by_one(features.t().numpy(), values.numpy())[:, 0]
    np.testing.assert_allclose(filtered, expected, rtol=1e-4, atol=1e-5)


def test_weights_beyond_the_range_of_the_loops_take_the_tensor_code() -> None:
    assert loops is not None
    image, scores = scene(12, 15, 3)
    unary = scores.flatten(1)[None].log()
    assert loops.mean_field(image, unary, CrfParameters(3, 500, 20, 30, 2000), keep_positions=False) is None
    assert loops.mean_field(image, unary * float("nan"), PRESETS["cam"], keep_positions=False) is None
    assert loops.mean_field(image, unary, PRESETS["cam"], keep_positions=False) is not None


def test_a_compiler_that_fails_costs_time_and_no_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert loops is not None

    def full_disk() -> None:
        raise OSError(28, "No space left on device")

    image, scores = scene(12, 15, 3)
    monkeypatch.setattr(loops, "prepare", full_disk)
    compiled.cache_clear()
    with caplog.at_level(logging.WARNING, logger="tagmask"):
        marginals = dense_crf(image, scores)
    assert "No space left on device" in caplog.text
    assert len(caplog.records) == 1
    compiled.cache_clear()
    monkeypatch.setattr(crf, "compiled", lambda name: None)
    assert torch.equal(dense_crf(image, scores), marginals)


def test_nothing_is_compiled_or_imported_before_it_is_needed() -> None:
    code = "import sys, tagmask.ops.crf, tagmask.ops.par; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_nowhere_to_keep_code_compiles_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numba

    compile_in_memory = numba.njit

    def njit(cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_in_memory(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled_module.loop(lambda x: x + 1)(2) == 3
