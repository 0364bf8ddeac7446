"""The dense energy: neighbours of like colour should bear like scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.cam.labels import IGNORE, inside_boxes
from tagmask.refine.lattice import PermutohedralLattice

# The reference's lattice leaves out the factor 1 / (1 + 2^-d) that others, and ours, slice with.
REFERENCE_GAIN = 1 + 2.0**-5


def dense_energy(
    images: Tensor,
    logits: Tensor,
    labels: Tensor,
    boxes: Tensor,
    *,
    weight: float,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
) -> Tensor:
    """`-sum_ij G_ij <S_i, S_j>` of softmax scores S under a bilateral Gaussian kernel G, where labels are unsure.

    Only pixels in the box take part, each gated by `1 - max_c S`, or fully where its label is ignored. The kernel is
    the unnormalised permutohedral lattice of the reference, so that published weights keep their meaning; it yields
    about 0.475 of the exact Gaussian sum.

    Args:
        images: (B, 3, H, W) RGB in 0..255.
        logits: (B, C, H, W), with gradient.
        labels: (B, H, W) label maps the logits are trained on; 255 is ignored there.
        boxes: (B, 4) top, bottom, left, right of the unpadded image, in pixels.
        weight: of the energy.
        sigma_rgb: standard deviation in colours.
        sigma_xy: standard deviation in pixels at full size.
        scale: of the images at which the energy is computed.

    Returns:
        scalar, the mean over images. Gate and filtered scores are constants of the step.

    Source: Tang et al., On Regularized Losses (ECCV 2018); SeCo (CVPR 2024), section 3.4.
    """
    shares = F.interpolate(
        logits.softmax(dim=1), scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=True
    )
    size = shares.shape[-2:]
    small = F.interpolate(images, size=size, mode="nearest")
    unsure = F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0] == IGNORE
    inside = inside_boxes(boxes, *images.shape[-2:])[:, None].float()
    inside = F.interpolate(inside, size=size, mode="nearest")[:, 0]
    features = _features(small, sigma_rgb, sigma_xy * scale)
    return weight * REFERENCE_GAIN * _Energy.apply(shares, features, inside, unsure)


def _features(images: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """(B, 5, H * W) x, y, R, G, B in standard deviations."""
    count, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    places = torch.stack([x, y]).float().expand(count, -1, -1, -1) / sigma_xy
    return torch.cat([places, images.float() / sigma_rgb], dim=1).flatten(2)


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, features: Tensor, inside: Tensor, unsure: Tensor) -> Tensor:
        gate = torch.where(unsure, 1.0, (inside - shares.amax(dim=1)).clamp(min=0)) * inside
        kept = shares * inside[:, None]
        on_host = shares.device.type == "cpu"
        lattice = PermutohedralLattice.of(features, compact=on_host)  # elsewhere the host waits for nothing
        filtered = lattice.filter(kept.flatten(2).transpose(1, 2).contiguous()).transpose(1, 2).view_as(shares)
        filtered = filtered * gate[:, None]
        ctx.save_for_backward(filtered, inside)
        return -(kept * filtered).sum() / len(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        filtered, inside = ctx.saved_tensors
        return -2 * gradients[0] / len(filtered) * filtered * inside[:, None], None, None, None
