"""Vectors of refinement: PAR, the dense energy, the dense CRF."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tagmask.ops.crf import CrfParameters, crf_on_cams, dense_crf
from tagmask.ops.energy import dense_energy
from tagmask.ops.labels import with_background
from tagmask.ops.par import pixel_adaptive_refinement
from tests.golden_checks import Vectors, assert_close, check, tensor

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@check("seco_par")
def par(vectors: Vectors) -> None:
    refined = pixel_adaptive_refinement(tensor(vectors["in_image"]), tensor(vectors["in_masks"]))
    assert_close(refined, vectors["out_masks"])


@check("seco_energy_loss")
def energy_loss(vectors: Vectors) -> None:
    images = (tensor(vectors["in_image_normalised"]) * STD + MEAN) * 255
    logits = tensor(vectors["in_logits"], requires_grad=True)
    settings = {name: float(vectors[f"param_{name}"]) for name in ("weight", "sigma_rgb", "sigma_xy", "scale")}
    loss = dense_energy(images, logits, tensor(vectors["in_labels"]), tensor(vectors["in_boxes"]), **settings)
    loss.backward()
    assert logits.grad is not None
    assert_close(loss, vectors["out_loss"], relative=1e-4)
    assert_close(logits.grad, vectors["out_grad_logits"], relative=1e-3)


@check("psa_crf_alpha")
def crf_alpha(vectors: Vectors) -> None:
    image, cams = tensor(vectors["in_image"]), tensor(vectors["in_cam"])
    alphas = [int(vectors[f"param_alpha_{name}"]) for name in ("low", "high")]
    for alpha, marginals in zip(alphas, crf_on_cams(image, cams, *alphas), strict=True):
        torch.testing.assert_close(
            with_background(cams, alpha), tensor(vectors[f"out_score_alpha_{alpha}"]), rtol=0, atol=1e-6
        )
        assert_same_marginals(marginals, vectors[f"out_marginal_alpha_{alpha}"])


@check("crf_cam_preset")
def crf_cam_preset(vectors: Vectors) -> None:
    _compare_crf(vectors, "cam")


@check("crf_seco_preset")
def crf_seco_preset(vectors: Vectors) -> None:
    _compare_crf(vectors, "seco")


def _compare_crf(vectors: Vectors, preset: str) -> None:
    names = ("gaussian_sxy", "gaussian_weight", "bilateral_sxy", "bilateral_srgb", "bilateral_weight", "iterations")
    given = CrfParameters(**{name: vectors[f"param_{name}"].item() for name in names})
    for count in (key.rsplit("_", 1)[1] for key in vectors if key.startswith("in_image_")):
        image, scores = tensor(vectors[f"in_image_{count}"]), tensor(vectors[f"in_probability_{count}"])
        marginals = dense_crf(image, scores, preset=given)
        assert_same_marginals(marginals, vectors[f"out_marginal_{count}"])
        assert torch.equal(dense_crf(image, scores, preset=preset), marginals), f"preset {preset} has other parameters"


def assert_same_marginals(marginals: Tensor, expected: np.ndarray) -> None:
    """Within 1e-3, which the storing of some vectors in steps of 1/1024 half uses up, and with the same winners.

    One value in a thousand may differ: where two classes are all but level, mean field enlarges a rounding error.
    """
    wanted = tensor(expected)
    far = ((marginals - wanted).abs() > 1e-3).float().mean()
    same = (marginals.argmax(dim=0) == wanted.argmax(dim=0)).float().mean()
    assert far <= 1e-3, f"{far:.2%} of the marginals differ"
    assert same >= 0.999, f"the winner is the same on {same:.2%} of the pixels"
