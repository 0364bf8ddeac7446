"""Dense CRF: mean-field refinement of class scores by position and colour, as the papers run it after a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tagmask.errors import TagmaskError
from tagmask.ops.labels import with_background
from tagmask.ops.lattice import LatticeSum, PermutohedralLattice, colour_features, position_features

LEAST_PROBABILITY = 1e-5  # so that its logarithm stays finite
CACHED_PIXELS = 2**20  # position filters of larger images are not kept, as each would hold more than 60 MB
LARGEST_EXPONENT = 80.0  # of float32, with a margin


@dataclass(frozen=True)
class CrfParameters:
    """The parameters of a dense CRF: two Gaussian kernels and how often they are applied.

    Attributes:
        gaussian_sxy, gaussian_weight: standard deviation (pixels) and weight of the kernel over positions.
        bilateral_sxy, bilateral_srgb, bilateral_weight: standard deviations over positions (pixels) and colours
            (grey levels of 255), and weight, of the kernel over both.
        iterations: mean-field steps.
    """

    gaussian_sxy: float
    gaussian_weight: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_weight: float
    iterations: int = 10

    def __post_init__(self) -> None:
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not getattr(self, name) > 0:
                raise TagmaskError(f"dense CRF: {name} is {getattr(self, name)}; a standard deviation must be above 0")
        for name in ("gaussian_weight", "bilateral_weight", "iterations"):
            if not getattr(self, name) >= 0:
                raise TagmaskError(f"dense CRF: {name} is {getattr(self, name)}; it must be 0 or more")


PRESETS = {
    "cam": CrfParameters(3, 3, 80, 13, 10),  # on CAMs: AffinityNet (CVPR 2018), SC-CAM, RCA
    "seco": CrfParameters(1, 1, 121, 5, 4),  # on the decoder's scores: SeCo (CVPR 2024), ToCo
    "deeplabv2": CrfParameters(1, 3, 67, 3, 4),  # on the segmenter's scores: the PyTorch DeepLab-v2 of SC-CAM
    "irn": CrfParameters(3, 3, 50, 5, 10),  # on labels, before the affinity labels: IRN (CVPR 2019)
}


@torch.no_grad()
def dense_crf(
    image: Tensor,
    probabilities: Tensor,
    *,
    preset: str | CrfParameters = "cam",
    present_above: float = LEAST_PROBABILITY,
) -> Tensor:
    """Compute the mean-field marginals of a fully connected CRF with a Potts term.

    Both kernels are permutohedral lattices: linear in the number of pixels, and equal to pydensecrf to about 1e-4.

    Args:
        image: (H, W, 3) uint8, in the order of channels the paper used; the lattice is not symmetric in them.
        probabilities: (C, H, W) scores in [0, 1]; they need not sum to 1. The unary term is `-log max(score, 1e-5)`.
            Or (V, C, H, W), several sets of scores of the same image: two cost little more than one.
        preset: a name of `PRESETS`, or the parameters themselves.
        present_above: classes that are nowhere more probable than this (in no set) are left out; their marginal is 0.

    Returns:
        float32 marginals of the scores' shape, summing to 1 over the classes.

    Raises:
        TagmaskError: sizes or types do not fit, or a name is unknown.

    Source: Krähenbühl and Koltun, NIPS 2011, with symmetric normalisation of the kernels as in their code.
    """
    parameters = _checked(image, probabilities, preset)
    height, width = image.shape[:2]

    # Leave out classes that are nowhere to be seen, for time grows with the classes; one at least has to stay.
    scores = probabilities.reshape(-1, *probabilities.shape[-3:]).flatten(2).float()
    peaks = scores.amax(dim=2).amax(dim=0)
    present = peaks > present_above
    present[peaks.argmax()] = True
    channels = present.nonzero().squeeze(1)
    sets, classes = len(scores), len(channels)
    every = classes == len(present)

    # The unary term, a row for each pixel. Its matrix has two dimensions when it is transposed, as torch then works in
    # tiles, several times as fast as with more dimensions.
    unary = (scores if every else scores.index_select(1, channels)).clamp(min=LEAST_PROBABILITY).log_()
    logits = unary.reshape(sets * classes, -1).t().contiguous().view(-1, sets, classes)

    # The pairwise term and the iterations.
    position = _position_filter(height, width, parameters, probabilities.device)
    colour = _colour_filter(image.to(probabilities.device), parameters)
    marginals = _mean_field(logits, LatticeSum.of(position, colour).filter, parameters.iterations)

    # Back to planes, and to all classes.
    planes = marginals.flatten(1).t().contiguous().view(sets, classes, -1)
    result = planes if every else torch.zeros_like(scores).index_copy_(1, channels, planes)
    return result.view(probabilities.shape)


def crf_on_cams(image: Tensor, cams: Tensor, *alphas: float, preset: str | CrfParameters = "cam") -> Tensor:
    """Apply a dense CRF to the CAMs of an image's tags and their background score.

    Args:
        image: (H, W, 3) uint8.
        cams: (C, H, W) in [0, 1], the present classes only; there may be none.
        alphas: exponents of the background score.
        preset: as in `dense_crf`.

    Returns:
        (V, C + 1, H, W) marginals of background and the classes, for each of V exponents.

    Source: AffinityNet (CVPR 2018); SC-CAM (CVPR 2020) and RCA (CVPR 2022) take it over.
    """
    scores = torch.stack([with_background(cams, alpha) for alpha in alphas])
    return dense_crf(image, scores, preset=preset)


def _checked(image: Tensor, probabilities: Tensor, preset: str | CrfParameters) -> CrfParameters:
    """Give the parameters that `preset` names, or raise a TagmaskError where an argument does not fit."""
    if image.dim() != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
        raise TagmaskError(
            f"dense CRF: the image is {image.dtype} {tuple(image.shape)}; it must be uint8 of shape (H, W, 3)"
        )
    sizes = probabilities.shape
    if probabilities.dim() not in (3, 4) or sizes[-2:] != image.shape[:2] or 0 in sizes[:-2]:
        raise TagmaskError(
            f"dense CRF: the scores are {tuple(sizes)}; this image needs (classes, {image.shape[0]}, "
            f"{image.shape[1]}) with at least one class: resize them first"
        )
    if isinstance(preset, CrfParameters):
        return preset
    if preset not in PRESETS:
        raise TagmaskError(f"dense CRF: no preset named {preset!r}; there are {', '.join(PRESETS)}")
    return PRESETS[preset]


def _mean_field(logits: Tensor, messages: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
    """Iterate `softmax(logits + messages(marginals))`: marginals (N, V, C), and (1, N, V * C) for `messages`."""
    logits -= logits.amax(dim=-1, keepdim=True)
    marginals = _to_fractions(logits.clone())
    bounded = False
    for iteration in range(iterations):
        energies = messages(marginals.flatten(1)[None]).view_as(logits)
        if iteration == 0:
            # What a class receives lies between 0 and what all classes together receive, which is the same in every
            # iteration. Logits lowered by half of that can neither overflow nor all vanish, which spares each iteration
            # the search for a pixel's largest energy.
            received = energies.sum(dim=-1, keepdim=True)
            logits -= received / 2
            bounded = bool(received.amax() < 2 * LARGEST_EXPONENT)
        energies += logits
        if not bounded:
            energies -= energies.amax(dim=-1, keepdim=True)
        marginals = _to_fractions(energies)
    return marginals


def _to_fractions(energies: Tensor) -> Tensor:
    """Divide the exponentials of energies by their sum over the last dimension, in place."""
    energies.exp_()
    # A product with ones sums a short last dimension several times as fast as a reduction does.
    return energies.div_(energies @ energies.new_ones(energies.shape[-1], 1))


def _normalised(features: Tensor, weight: float) -> PermutohedralLattice:
    """Make the filter over (1, d, N) features, rows and columns divided by the root of its row sums, times a weight."""
    pairwise = PermutohedralLattice.of(features)
    sums = pairwise.filter(features.new_ones(1, features.shape[2], 1)).squeeze(2)
    return pairwise.scaled(sums.add_(1e-20).rsqrt_().mul_(weight**0.5))


def _colour_filter(image: Tensor, parameters: CrfParameters) -> PermutohedralLattice:
    """Make the kernel over positions and colours of an image (H, W, 3)."""
    planes = image.permute(2, 0, 1)[None]
    features = colour_features(planes, parameters.bilateral_sxy, parameters.bilateral_srgb)
    return _normalised(features, parameters.bilateral_weight)


def _position_filter(height: int, width: int, parameters: CrfParameters, device: torch.device) -> PermutohedralLattice:
    """Make the kernel over positions, which is kept for the next image of the same size."""
    build = _cached_position_filter if height * width <= CACHED_PIXELS else _cached_position_filter.__wrapped__
    return build(height, width, parameters.gaussian_sxy, parameters.gaussian_weight, device)


@lru_cache(maxsize=4)
def _cached_position_filter(
    height: int, width: int, sxy: float, weight: float, device: torch.device
) -> PermutohedralLattice:
    return _normalised(position_features(height, width, sxy, device)[None], weight)
