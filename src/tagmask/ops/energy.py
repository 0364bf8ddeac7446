"""Dense energy: a loss that is low where pixels of like colour that are near each other have like scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import inside_boxes
from tagmask.ops.lattice import PermutohedralLattice, colour_features


def dense_energy(
    images: Tensor,
    logits: Tensor,
    labels: Tensor,
    boxes: Tensor,
    *,
    weight: float = 1e-7,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
) -> Tensor:
    """Compute the negative agreement of softmax scores under a Gaussian kernel over positions and colours.

    It is `-sum_i g_i <S_i, (K S)_i>` over pixels i of the reduced image, as a mean over images. K is the permutohedral
    lattice's filter without normalisation, about 0.475 of the exact Gaussian sum; the published weight counts on that.
    The gate `g` is 1 on ignored pixels and one minus the largest score elsewhere, so that the unsure pixels are moved.

    Args:
        images: (B, 3, H, W) in 0..255.
        logits: (B, C, H, W) of the decoder.
        labels: (B, H, W) its training masks; 255 is ignored.
        boxes: (B, 4) top, bottom, left, right of the unpadded image, in pixels; no score counts outside.
        weight: factor of the loss.
        sigma_rgb: standard deviation over colours, in grey levels of 255.
        sigma_xy: standard deviation over positions, in pixels of the full size.
        scale: size at which the energy is taken.

    Returns:
        The loss, a scalar. Its gradient is that of the released code, `-2 g_i (K S)_i` for the score at pixel i, with
        the gate held constant.

    Source: SeCo (CVPR 2024), L_reg; Tang et al., "On regularized losses for weakly-supervised CNN segmentation",
    ECCV 2018.
    """
    with torch.no_grad():
        inside = _reduced(inside_boxes(boxes, *logits.shape[-2:])[:, None].float(), scale)
        ignored = _reduced((labels == IGNORE)[:, None].float(), scale)
        features = colour_features(_reduced(images.float(), scale), sigma_xy * scale, sigma_rgb)
        # On a GPU, room for the greatest possible number of vertices costs less than the host's wait for their number.
        lattice = PermutohedralLattice.of(features, compact=not images.is_cuda)
    scores = F.interpolate(
        logits.softmax(dim=1), scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=True
    )
    return weight * _GatedAgreement.apply(scores, inside, ignored, lattice)


class _GatedAgreement(torch.autograd.Function):
    """Computes `-sum_i g_i <S_i, (K S)_i> / B`, and its gradient as if the gate were constant."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, inside: Tensor, ignored: Tensor, lattice: PermutohedralLattice) -> Tensor:
        # Unsure pixels count most, those outside the image not at all.
        gate = torch.where(ignored > 0, 1.0, (inside - scores.amax(dim=1, keepdim=True)).clamp_min(0))
        scores = scores * inside
        # What each pixel's neighbours say: the lattice takes a row of scores for each pixel.
        rows = scores.permute(0, 2, 3, 1).flatten(1, 2)
        filtered = lattice.filter(rows).view(scores.shape[0], *scores.shape[2:], -1).permute(0, 3, 1, 2)
        pull = filtered * gate
        ctx.save_for_backward(pull, inside)
        return -(scores * pull).sum() / len(scores)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pull, inside = ctx.saved_tensors
        return gradients[0] * (-2 / len(pull)) * pull * inside, None, None, None


def _reduced(maps: Tensor, scale: float) -> Tensor:
    """Take the nearest pixels of maps (B, C, h, w) at `scale`, so that labels and boxes stay whole numbers."""
    return F.interpolate(maps, scale_factor=scale, mode="nearest", recompute_scale_factor=True)
