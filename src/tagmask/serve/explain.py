"""Explain a mask: the CAM of each class, the scores of the tags, and where the network was unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.api import Model
from tagmask.engine.inference import score, to_label_map
from tagmask.engine.photographs import Photograph
from tagmask.errors import TagmaskError


@dataclass(frozen=True)
class Explanation:
    """What one run makes of one photograph; K classes, h x w the network's size.

    Attributes:
        labels: (H, W) uint8 label map at the photograph's own size, as `Model.predict` gives it.
        cams: (K, h, w) float32 class activation maps in [0, 1], each scaled to its own maximum.
        tag_scores: (K,) float32 probability of each tag, in 0..1.
        uncertainty: (h, w) float32 in [0, 1]: one minus the winning class's probability, before any refinement.
    """

    labels: np.ndarray
    cams: np.ndarray
    tag_scores: np.ndarray
    uncertainty: np.ndarray

    @property
    def confidence(self) -> float:
        """The mean probability of the winning class, in 0..1: what `confidence.csv` holds where nothing is refined."""
        return float(1 - self.uncertainty.mean())


@torch.inference_mode()
def explain(model: Model, photo: Image.Image, tags: Sequence[str] | None = None) -> Explanation:
    """Label one photograph and explain the result.

    Args:
        model: a loaded run.
        photo: upright RGB.
        tags: names of the classes in it; then only they and background can win. None: all can.

    Raises:
        TagmaskError: a tag is no class of the run.
    """
    method, config = model.method, model.run.recipe.inference
    ids = None if tags is None else _ids(model, tags)
    photograph = Photograph.of(photo, config)
    pixels = photograph.pixels[None].to(next(method.parameters()).device)
    images = method.network.backbone.normalise(pixels.float() / 255)
    scores = score(method, images, config, "decoder")[0]
    labels, _ = to_label_map(scores, ids, photograph, config, "decoder", method.background)
    cams = score(method, images, config, "cam")[0, : method.num_classes]  # the rest are context classes
    return Explanation(
        labels=labels,
        cams=cams.cpu().numpy(),
        tag_scores=method.network(images).logits[0].float().sigmoid().cpu().numpy(),
        uncertainty=_uncertainty(scores, ids, method.background).cpu().numpy(),
    )


def _ids(model: Model, tags: Sequence[str]) -> list[int]:
    unknown = [tag for tag in tags if tag not in model.classes]
    if unknown:
        raise TagmaskError(
            f"tag {unknown[0]!r} is no class of {model.run.folder}; its classes: {', '.join(model.classes)}"
        )
    return sorted({model.classes.index(tag) for tag in tags})


def _uncertainty(logits: Tensor, ids: Sequence[int] | None, background: bool) -> Tensor:
    """Return (h, w), one minus the highest probability among the planes that may win; logits are (C, h, w)."""
    if ids is not None:
        channels = [0, *(index + 1 for index in ids)] if background else list(ids)
        logits = logits[channels]
    return 1 - logits.softmax(dim=0).amax(dim=0)
