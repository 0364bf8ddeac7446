from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.ops import crf
from tagmask.ops.crf import PRESETS, CrfParameters, _mean_field, crf_on_cams, dense_crf
from tests.golden_checks import load, tensor
from tests.golden_checks.refine import assert_same_marginals

GOLDEN = Path(os.environ.get("TAGMASK_GOLDEN") or Path(__file__).parents[1] / "golden")
SMALL = CrfParameters(2, 2, 6, 20, 4, iterations=5)


def scene(height: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image of coloured patches with some noise, and rough scores of its classes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (1, 1, 4, 5), generator=generator).float()
    labels = F.interpolate(coarse, size=(height, width), mode="nearest")[0, 0].long()
    colours = torch.randint(40, 216, (classes, 3), generator=generator)
    image = colours[labels] + torch.randint(-20, 21, (height, width, 3), generator=generator)
    rough = F.avg_pool2d(F.one_hot(labels, classes).permute(2, 0, 1).float(), 5, stride=1, padding=2)
    scores = (rough * 2 + torch.randn(classes, height, width, generator=generator)).softmax(dim=0)
    return image.to(torch.uint8), scores


def pairwise_kernel(image: Tensor, parameters: CrfParameters) -> Tensor:
    """The sum of both kernels over all pairs of pixels, (N, N)."""
    height, width = image.shape[:2]
    places = (
        torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).view(-1, 2).double()
    )
    colours = image.view(-1, 3).double()

    def normalised(features: Tensor) -> Tensor:
        kernel = torch.exp(-0.5 * torch.cdist(features, features).square())
        scale = kernel.sum(1).rsqrt()
        return scale[:, None] * kernel * scale

    bilateral = torch.cat([places / parameters.bilateral_sxy, colours / parameters.bilateral_srgb], dim=1)
    pairwise = parameters.gaussian_weight * normalised(places / parameters.gaussian_sxy)
    return pairwise + parameters.bilateral_weight * normalised(bilateral)


def brute_force(image: Tensor, scores: Tensor, parameters: CrfParameters) -> Tensor:
    pairwise = pairwise_kernel(image, parameters)
    logits = scores.double().flatten(1).t().clamp(1e-5, 1).log()
    marginals = logits.softmax(1)
    for _ in range(parameters.iterations):
        marginals = (logits + pairwise @ marginals).softmax(1)
    return marginals.t().reshape(scores.shape).float()


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_mean_field_with_a_kernel_over_all_pairs(classes: int) -> None:
    image, scores = scene(12, 15, classes)
    kernel = pairwise_kernel(image, SMALL)
    logits = scores.double().flatten(1).t().clamp(1e-5, 1).log()[:, None]
    marginals = _mean_field(logits, lambda values: kernel @ values, SMALL.iterations)
    expected = brute_force(image, scores, SMALL)
    torch.testing.assert_close(marginals[:, 0].t().reshape(scores.shape).float(), expected, rtol=1e-4, atol=1e-5)


def test_lattice_is_near_the_exact_kernel() -> None:
    image, scores = scene(24, 30, 3)
    lattice, exact = dense_crf(image, scores, preset=SMALL), brute_force(image, scores, SMALL)
    assert float((lattice - exact).abs().mean()) < 0.02
    assert float((lattice.argmax(0) == exact.argmax(0)).float().mean()) > 0.97


def test_lattice_removes_noise() -> None:
    image, scores = scene(32, 40, 3)
    ground_truth = dense_crf(image, scores, preset=replace(SMALL, iterations=10)).argmax(0)
    clean = F.interpolate(  # the scene's own labels
        torch.randint(3, (1, 1, 4, 5), generator=torch.Generator().manual_seed(0)).float(),
        size=(32, 40),
        mode="nearest",
    )[0, 0].long()
    before = float((scores.argmax(0) == clean).float().mean())
    after = float((ground_truth == clean).float().mean())
    assert after > 0.95 > before


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(1, 9), preset=st.sampled_from(sorted(PRESETS)))
def test_marginals_are_a_distribution_whatever_the_order_of_classes(seed: int, classes: int, preset: str) -> None:
    image, scores = scene(9, 11, classes, seed)
    marginals = dense_crf(image, scores, preset=preset)
    torch.testing.assert_close(marginals.sum(0), torch.ones(9, 11))
    assert bool((marginals >= 0).all())
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(dense_crf(image, scores[order], preset=preset), marginals[order], rtol=1e-3, atol=1e-4)


def test_no_iteration_gives_the_scores() -> None:
    image, scores = scene(6, 7, 3)
    marginals = dense_crf(image, scores, preset=replace(SMALL, iterations=0))
    torch.testing.assert_close(marginals, scores.clamp_min(1e-5) / scores.clamp_min(1e-5).sum(0))


def test_absent_classes_are_left_out() -> None:
    image, scores = scene(10, 12, 3)
    padded = torch.stack([scores[0], torch.zeros(10, 12), scores[1], scores[2], torch.full((10, 12), 1e-6)])
    marginals = dense_crf(image, padded, preset=SMALL)
    assert not marginals[[1, 4]].any()
    torch.testing.assert_close(marginals[[0, 2, 3]], dense_crf(image, scores, preset=SMALL))


def test_classes_under_a_floor_are_left_out() -> None:
    image, scores = scene(10, 12, 3)
    scores = torch.cat([scores, torch.full((1, 10, 12), 0.01)])
    assert dense_crf(image, scores, preset=SMALL)[3].any()
    assert not dense_crf(image, scores, preset=SMALL, present_above=0.02)[3].any()


def test_a_class_as_probable_as_the_floor_is_left_out() -> None:
    image, scores = scene(10, 12, 3)
    scores = torch.cat([scores, torch.full((1, 10, 12), 0.5)])
    assert not dense_crf(image, scores, preset=SMALL, present_above=0.5)[3].any()
    assert dense_crf(image, scores, preset=SMALL, present_above=0.49)[3].any()


def test_scores_of_nothing_are_shared_out_evenly() -> None:
    image, _ = scene(6, 7, 1)
    assert float(dense_crf(image, torch.zeros(3, 6, 7), preset=SMALL).sum(0).min()) == pytest.approx(1)


def test_enormous_weights_stay_finite() -> None:
    image, scores = scene(12, 15, 3)
    marginals = dense_crf(image, scores, preset=CrfParameters(3, 500, 20, 30, 2000))
    torch.testing.assert_close(marginals.sum(0), torch.ones(12, 15))


def test_crf_on_cams_puts_background_first() -> None:
    image, scores = scene(12, 15, 2)
    cams = scores * 0.9
    marginals = crf_on_cams(image, cams, 4, 0.5)
    for own, alpha in zip(marginals, (4, 0.5), strict=True):
        background = (1 - cams.amax(0, keepdim=True)) ** alpha
        torch.testing.assert_close(own, dense_crf(image, torch.cat([background, cams]), preset="cam"))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(1, 9), sets=st.integers(1, 3))
def test_several_sets_of_scores_are_each_by_itself(seed: int, classes: int, sets: int) -> None:
    image, _ = scene(9, 11, classes, seed)
    scores = torch.rand(sets, classes, 9, 11, generator=torch.Generator().manual_seed(seed))
    together = dense_crf(image, scores, preset=SMALL)
    for own, alone in zip(together, scores, strict=True):
        torch.testing.assert_close(own, dense_crf(image, alone, preset=SMALL))


def test_a_class_of_one_set_stays_in_all() -> None:
    image, scores = scene(10, 12, 3)
    less = torch.stack([scores[0], scores[1], torch.zeros(10, 12)])
    marginals = dense_crf(image, torch.stack([scores, less]), preset=SMALL)
    torch.testing.assert_close(marginals[0], dense_crf(image, scores, preset=SMALL))
    assert float(marginals[1, 2].max()) < 1e-3


def test_cams_of_no_class_are_background() -> None:
    image, _ = scene(6, 7, 1)
    assert torch.equal(crf_on_cams(image, torch.zeros(0, 6, 7), 4), torch.ones(1, 1, 6, 7))


def test_one_pixel() -> None:
    marginals = dense_crf(torch.zeros(1, 1, 3, dtype=torch.uint8), torch.tensor([0.2, 0.8]).view(2, 1, 1))
    assert float(marginals[1]) > 0.8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": torch.zeros(6, 7, 3)}, "uint8"),
        ({"image": torch.zeros(3, 6, 7, dtype=torch.uint8)}, r"\(H, W, 3\)"),
        ({"probabilities": torch.rand(2, 7, 6)}, r"\(classes, 6, 7\)"),
        ({"probabilities": torch.rand(0, 6, 7)}, "at least one class"),
        ({"preset": "voc"}, "cam, seco, deeplabv2, irn"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], told: str) -> None:
    given = {"image": torch.zeros(6, 7, 3, dtype=torch.uint8), "probabilities": torch.rand(2, 6, 7)} | change
    with pytest.raises(TagmaskError, match=told):
        dense_crf(given.pop("image"), given.pop("probabilities"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gaussian_sxy", "bilateral_srgb", "bilateral_weight", "iterations"])
def test_bad_parameters_are_named(name: str) -> None:
    with pytest.raises(TagmaskError, match=name):
        replace(SMALL, **{name: -1})


@pytest.mark.parametrize("preset", ["cam", "seco"])
def test_equals_pydensecrf(preset: str) -> None:
    densecrf = pytest.importorskip(
        "pydensecrf.densecrf", reason="pydensecrf is not installed: pip install tagmask[crf]"
    )
    image, scores = scene(40, 50, 4)
    parameters = PRESETS[preset]
    other = densecrf.DenseCRF2D(50, 40, 4)
    other.setUnaryEnergy(np.ascontiguousarray(-scores.clamp(1e-5, 1).log().flatten(1).numpy()))
    other.addPairwiseGaussian(sxy=parameters.gaussian_sxy, compat=parameters.gaussian_weight)
    other.addPairwiseBilateral(
        sxy=parameters.bilateral_sxy,
        srgb=parameters.bilateral_srgb,
        rgbim=image.numpy(),
        compat=parameters.bilateral_weight,
    )
    expected = np.array(other.inference(parameters.iterations)).reshape(4, 40, 50)
    assert_same_marginals(dense_crf(image, scores, preset=preset), expected)


def test_channels_in_the_order_of_rca() -> None:
    path = GOLDEN / "rca_label_fusion.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} holds a photograph and is not kept here; name its folder in TAGMASK_GOLDEN")
    vectors = load(path)
    marginals = dense_crf(tensor(vectors["in_photo"]).flip(2), tensor(vectors["out_photo_scores"]), preset="cam")
    assert_same_marginals(marginals, vectors["out_photo_marginals"])


def test_scores_may_lie_in_memory_in_any_order() -> None:
    image = torch.randint(0, 256, (9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    expected = dense_crf(image, scores)
    assert torch.equal(scores, before)
    assert torch.equal(dense_crf(image, scores.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(dense_crf(image, scores.transpose(0, 1).contiguous().transpose(0, 1)), expected)


def test_presets_are_those_of_the_papers() -> None:
    """Standard deviation and weight over positions, then deviations over positions and colours and weight over both."""
    assert {
        "cam": CrfParameters(3, 3, 80, 13, 10, 10),
        "seco": CrfParameters(1, 1, 121, 5, 4, 10),
        "deeplabv2": CrfParameters(1, 3, 67, 3, 4, 10),
        "irn": CrfParameters(3, 3, 50, 5, 10, 10),
    } == PRESETS
    image, scores = scene(9, 11, 2)
    assert torch.equal(dense_crf(image, scores), dense_crf(image, scores, preset="cam"))


@pytest.mark.parametrize(
    "name", ["gaussian_sxy", "gaussian_weight", "bilateral_sxy", "bilateral_srgb", "bilateral_weight"]
)
def test_what_may_be_nothing(name: str) -> None:
    if name.endswith("weight"):
        assert getattr(replace(SMALL, **{name: 0}), name) == 0
    else:
        with pytest.raises(TagmaskError, match=f"{name} is 0; .* above 0"):
            replace(SMALL, **{name: 0})
    with pytest.raises(TagmaskError, match=f"{name} is nan"):
        replace(SMALL, **{name: float("nan")})


def test_filters_of_positions_are_kept_unless_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = crf._cached_position_filter
    monkeypatch.setattr(crf, "CACHED_PIXELS", 6 * 7)
    results = []
    for height, added in ((6, 1), (6, 0), (7, 0), (7, 0)):
        kept.cache_clear() if added else None
        before = kept.cache_info().misses
        results.append(dense_crf(*scene(height, 7, 2), preset=SMALL))
        assert kept.cache_info().misses - before == added
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[2], results[3])
    monkeypatch.setattr(crf, "CACHED_PIXELS", 2**20)
    torch.testing.assert_close(dense_crf(*scene(7, 7, 2), preset=SMALL), results[3])


def test_energies_of_any_size_are_the_same_mean_field() -> None:
    """Above and below the bound at which a pixel's largest energy has to be looked for; two sets of scores at once."""
    image, scores = scene(10, 12, 3)
    for weight in (20, 70, 90, 150, 170, 200, 230, 300):
        parameters = replace(SMALL, bilateral_weight=weight)
        kernel = pairwise_kernel(image, parameters).float()
        sets = torch.stack([scores, scores.flip(0)])
        logits = sets.flatten(2).clamp(1e-5, 1).log().permute(2, 0, 1).contiguous()
        marginals = _mean_field(logits, lambda values, kernel=kernel: kernel @ values, SMALL.iterations)
        for own, each in zip(marginals.unbind(1), sets, strict=True):
            expected = brute_force(image, each, parameters)
            torch.testing.assert_close(own.t().reshape(scores.shape), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("change", [{"bilateral_weight": 0, "gaussian_weight": 6}, {"gaussian_weight": 0}])
def test_each_kernel_of_the_lattice_is_near_the_exact_one(change: dict[str, float]) -> None:
    image, scores = scene(24, 30, 3)
    parameters = replace(SMALL, **change)
    lattice, exact = dense_crf(image, scores, preset=parameters), brute_force(image, scores, parameters)
    assert float((lattice - exact).abs().mean()) < 0.03
    assert float((exact - scores).abs().mean()) > 0.1
