"""Pseudo labels of RCA (CVPR 2022): from attention maps and, where there is one, a saliency map."""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import winners, with_background

EPSILON = 1e-8
SURE = 0.8  # a class's score above which a pixel is no background
CONFLICTING = 0.9  # two scores above it contradict each other
SALIENT = 32  # grey level of 255 from which a pixel is salient
LEAST_FOREGROUND = 0.01  # fraction of an image's pixels


def attention_scores(maps: Tensor, power: float = 4) -> Tensor:
    """Stretch maps (n, H, W) to [0, 1] one by one and put a background score before them: (n + 1, H, W) for a CRF.

    Source: spec C4.
    """
    maps = maps.float()
    if maps.numel():
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        maps = (maps - low) / (high - low + EPSILON)
    return with_background(maps, power)


def fuse_labels(marginals: Tensor, ids: Tensor, saliency: Tensor | None = None) -> Tensor:
    """Make the pseudo label of one image from the CRF's marginals, with a saliency map as its background score.

    Args:
        marginals: (n + 1, H, W) in [0, 1], plane 0 background; n may be 0.
        ids: (n,) label ids of the other planes, ascending.
        saliency: (H, W) in 0..255; without one the CRF's own background plane is the background score and no pixel is
            left undecided for being salient. The paper always has one.

    Returns:
        (H, W) int64 label map. 255 where two scores are above 0.9, where background is salient (or a class is surely
        on it), and everywhere in an image with less than 1 % of foreground.

    Source: RCA (CVPR 2022), section 4.1; spec C4.
    """
    if saliency is not None and saliency.shape != marginals.shape[1:]:
        raise ValueError(f"saliency of {tuple(saliency.shape)} for an image of {tuple(marginals.shape[1:])}")
    # The best score of each pixel.
    background = marginals[:1] if saliency is None else 1 - saliency[None].to(marginals) / 255
    scores = torch.cat([background, marginals[1:]])
    best = winners(scores, 0)
    labels = torch.cat([ids.new_zeros(1), ids])[best].long()
    # Pixels that two scores claim, or that only the background score claims though they stand out, are undecided.
    labels = torch.where((scores > CONFLICTING).sum(dim=0) > 1, IGNORE, labels)
    if saliency is not None:
        salient = (saliency >= SALIENT) | (marginals[1:] > SURE).any(dim=0)
        labels = torch.where((labels == 0) & salient, IGNORE, labels)
    # An image with hardly any foreground teaches that its tags are not there: it is left out.
    foreground = ((labels > 0) & (labels != IGNORE)).float().mean()
    return torch.where(foreground < LEAST_FOREGROUND, IGNORE, labels)
