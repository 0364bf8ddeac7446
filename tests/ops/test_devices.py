"""Nothing is made on another device than what is given.

Torch's `meta` device has shapes and no values, and refuses to be mixed with tensors of the CPU, so it shows on any
machine what would only fail on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tagmask.ops.affinity import confident_labels, pair_affinity
from tagmask.ops.cam import divide_by_maximum, multiscale_cams, sum_views, summed_cams
from tagmask.ops.labels import (
    beside_context,
    inside_boxes,
    present_tags,
    pseudo_masks,
    region_map,
    take_channels,
    to_labels,
    with_background,
)
from tagmask.ops.lattice import colour_features, position_features
from tagmask.ops.multi_scale import multi_scale_logits, multi_scale_loss, shrink_labels
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.ops.saliency import attention_scores, fuse_labels

META = torch.device("meta")


def some(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=kind, device=META)


CAMS, TAGS, BOXES = some(2, 3, 8, 12), some(2, 3), some(2, 4, kind=torch.int64)
IMAGES, LABELS = some(2, 3, 8, 12), some(2, 8, 12, kind=torch.int64)
BANDS = {"low": 0.2, "high": 0.7, "boxes": BOXES}
CALLS: dict[str, tuple[Callable[[], Tensor], tuple[int, ...]]] = {
    "attention_scores": (lambda: attention_scores(CAMS[0]), (4, 8, 12)),
    "beside_context": (lambda: beside_context(CAMS[0], CAMS[1]), (3, 8, 12)),
    "colour_features": (lambda: colour_features(IMAGES, 2.0, 3.0), (2, 5, 96)),
    "confident_labels": (lambda: confident_labels(some(3, 8, 16), some(3, 8, 16)), (1, 2)),
    "divide_by_maximum": (lambda: divide_by_maximum(CAMS, TAGS), (2, 3, 8, 12)),
    "fuse_labels": (lambda: fuse_labels(CAMS[0], some(2, kind=torch.int64), LABELS[0]), (8, 12)),
    "inside_boxes": (lambda: inside_boxes(BOXES, 8, 12), (2, 8, 12)),
    "multi_scale_logits": (lambda: multi_scale_logits(lambda images: images, IMAGES)[-1], (2, 3, 8, 12)),
    "multi_scale_loss": (lambda: multi_scale_loss([CAMS, some(2, 3, 4, 6)], LABELS), ()),
    "multiscale_cams": (lambda: multiscale_cams(lambda images: (images,), IMAGES, (1.0, 0.5))[0], (2, 3, 8, 12)),
    "pair_affinity": (lambda: pair_affinity(some(2, 5, 8, 12)), (2, 34, 16)),
    "par": (lambda: pixel_adaptive_refinement(IMAGES, CAMS), (2, 3, 8, 12)),
    "position_features": (lambda: position_features(8, 12, 2.0, META), (2, 96)),
    "present_tags": (lambda: present_tags(TAGS, 2)[1], (2, 2)),
    "pseudo_masks": (lambda: pseudo_masks(CAMS, TAGS, refine=lambda scores: scores, **BANDS), (2, 8, 12)),
    "region_map": (lambda: region_map(CAMS, TAGS, **BANDS), (2, 8, 12)),
    "shrink_labels": (lambda: shrink_labels(LABELS, (3, 4)), (2, 3, 4)),
    "sum_views": (lambda: sum_views([CAMS, CAMS], (4, 6)), (2, 3, 4, 6)),
    "summed_cams": (lambda: summed_cams(lambda images: images, IMAGES, (1.0, 0.5)), (2, 3, 8, 12)),
    "take_channels": (lambda: take_channels(CAMS, some(2, 2, kind=torch.int64)), (2, 2, 8, 12)),
    "to_labels": (lambda: to_labels(CAMS, TAGS, **BANDS), (2, 8, 12)),
    "with_background": (lambda: with_background(CAMS[0], 4), (4, 8, 12)),
    "with_background of no class": (lambda: with_background(some(0, 8, 12), 4), (1, 8, 12)),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_stay_on_the_device_of_what_is_given(name: str) -> None:
    call, shape = CALLS[name]
    result = call()
    assert result.device == META
    assert result.shape == shape
