"""From an image's scores to its label map: refinement, enlarging, and who wins at each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tagmask.engine.photographs import Photograph
from tagmask.ops.crf import dense_crf
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig

Source = Literal["decoder", "cam"]
ENLARGED = 1 << 24  # scores at the size of an image that are held at a time, where it has more than one plane of them
BAND = 1 << 20  # pixels that are compared at once


def to_label_map(
    scores: Tensor,
    tags: Sequence[int] | None,
    photograph: Photograph,
    config: InferenceConfig,
    source: Source,
    background: bool,
) -> tuple[np.ndarray, float]:
    """Turn one image's scores (C, h, w) into a label map at its own size, and the mean confidence.

    Args:
        scores: decoder logits (C = K + background), or CAMs (C = K).
        tags: class indices that may win beside background; None: all.
        photograph: its size, and what the refinement looks at.
        config: background score of CAMs, refinement.
        source: what the scores are.
        background: whether label 0 exists.
    """
    planes, ids = candidates(scores, tags, config, source, background)
    if len(ids) == 0:  # neither a tag nor background may win
        return np.full(photograph.size, IGNORE, as_array(ids).dtype), 1.0
    if photograph.small is None:
        fractions = planes if source == "cam" else planes.softmax(dim=0)
    else:
        fractions = planes = refine_planes(planes, photograph, config, source)
    labels = _winners(planes, ids, photograph.size)
    return as_array(labels), float(fractions.amax(dim=0).mean())


def refine_planes(planes: Tensor, photograph: Photograph, config: InferenceConfig, source: Source) -> Tensor:
    """Refine planes (n, h, w) at the size of the smaller image, where all of them find room in memory."""
    colours = torch.from_numpy(np.array(photograph.small)).to(planes.device)
    enlarged = resize(planes[None], colours.shape[:2])
    enlarged = enlarged if source == "cam" else enlarged.softmax(dim=1)
    if config.refine == "par":
        return _fractions(pixel_adaptive_refinement(colours.permute(2, 0, 1)[None].float(), enlarged)[0])
    return dense_crf(colours, _fractions(enlarged[0]), preset=config.crf)


def _fractions(scores: Tensor) -> Tensor:
    """Divide scores (C, H, W) by their sum over the classes; where all are 0, they stay so."""
    return scores / scores.sum(dim=0).clamp_min(1e-12)


def candidates(
    scores: Tensor, tags: Sequence[int] | None, config: InferenceConfig, source: Source, background: bool
) -> tuple[Tensor, Tensor]:
    """Pick the planes that may win, and give the label id of each: uint8, or int32 of over 254 classes; none is 255."""
    classes = len(scores) if source == "cam" else len(scores) - int(background)
    allowed = [channel for channel in (range(classes) if tags is None else tags) if channel + 1 != IGNORE]
    ids = [channel + 1 for channel in allowed]
    if source == "cam":
        planes = scores[allowed]
        if background:
            planes = torch.cat([torch.full_like(scores[:1], config.background_score), planes])
    else:
        planes = scores[[0, *ids]] if background else scores[allowed]
    kind = torch.uint8 if classes < IGNORE else torch.int32
    return planes, torch.tensor([0, *ids] if background else ids, dtype=kind, device=scores.device)


def as_array(ids: Tensor) -> np.ndarray:
    """Return label ids as of `candidates`, of any shape, in the type of label maps: uint8 or uint16."""
    return ids.cpu().numpy().astype(np.uint8 if ids.dtype == torch.uint8 else np.uint16, copy=False)


def _winners(planes: Tensor, ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Give at each pixel of `size` the id of the highest plane, as (H, W); of equal planes the first counts."""
    if len(planes) * size[0] * size[1] <= ENLARGED:
        return ids[resize(planes[None], size)[0].max(dim=0).indices]
    # All planes at the size of a large photograph would not fit in memory. One at a time is held beside the best so
    # far, and they are compared a few rows at a time, so that nothing else of this size comes into being.
    best = resize(planes[None, :1], size)[0, 0]
    labels = ids[0].repeat(*size)
    for plane, own in zip(planes[1:], ids[1:], strict=True):
        _outdo(best, labels, resize(plane[None, None], size)[0, 0], own)
    return labels


def _outdo(best: Tensor, labels: Tensor, plane: Tensor, own: Tensor) -> None:
    """Put a plane (H, W) and its id where it is higher than the best so far, a band of rows at a time."""
    rows = max(1, BAND // plane.shape[1])
    for high, label, new in zip(best.split(rows), labels.split(rows), plane.split(rows), strict=True):
        higher = new > high
        label.masked_fill_(higher, own)
        torch.maximum(high, new, out=high)
