"""What a trained run makes of one image: the label map, and why it is so."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.label_maps import write_label_map
from tagmask.data.pictures import overlay
from tagmask.engine.inference import Prediction, Source, score, to_label_map
from tagmask.engine.photographs import Photograph
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig


class Result(np.ndarray):
    """The label map of one image, (H, W) uint8 or, of over 254 classes, uint16, with what else is known of it.

    It is an array of label ids (0 background, 1..K in the order of `classes`, 255 ignored) and behaves as one: what is
    computed or cut from it is a plain array. A notebook shows it as an overlay.

    Attributes:
        image: the photograph, (H, W) RGB.
        classes: names; label id i + 1 is `classes[i]`.
        scores: (C, h, w) float32 decoder logits at the network's size, the background's first where there is one.
        confidence: the mean over the pixels of the winner's probability, in 0..1, after any refinement.
    """

    image: Image.Image
    classes: tuple[str, ...]
    scores: np.ndarray
    confidence: float
    _asked: tuple[Method, InferenceConfig, tuple[int, ...] | None]

    def __new__(
        cls,
        found: Prediction,
        image: Image.Image,
        classes: tuple[str, ...],
        method: Method,
        config: InferenceConfig,
    ) -> Result:
        """Put what is known beside the label map; `Model.predict` calls this."""
        result = found.labels.view(cls)
        result.image, result.classes = image, classes
        result.scores, result.confidence = found.scores.float().cpu().numpy(), found.confidence
        result._asked = method, config, found.item.tags
        return result

    def __getitem__(self, index: Any) -> Any:
        return self.labels[index]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar or not plain.shape else plain  # numpy 1 does not say that it wants a scalar

    def __reduce__(self) -> Any:
        return self.labels.__reduce__()

    @property
    def labels(self) -> np.ndarray:
        """The label map as a plain array, (H, W)."""
        return self.view(np.ndarray)

    @cached_property
    @torch.inference_mode()
    def cams(self) -> np.ndarray:
        """The class activation maps, (K, h, w) float32 in [0, 1], each scaled to its own maximum."""
        method, config, _ = self._asked
        # Those behind the classes are of context classes.
        return score(method, self._normalised(), config, "cam")[0, : method.num_classes].cpu().numpy()

    @cached_property
    @torch.inference_mode()
    def tag_scores(self) -> np.ndarray:
        """The probability of each tag by the classifier, (K,) float32 in 0..1."""
        method, _, _ = self._asked
        # Those behind the classes are of context classes.
        return method.tag_logits(self._normalised())[0, : method.num_classes].float().sigmoid().cpu().numpy()

    @property
    def uncertainty(self) -> np.ndarray:
        """One minus the winner's probability before any refinement, (h, w) float32 in [0, 1]."""
        method, _, tags = self._asked
        return uncertainty(torch.from_numpy(self.scores), tags, method.background).numpy()

    @torch.inference_mode()
    def relabel(
        self,
        tags: Sequence[str] | None = None,
        *,
        source: Source = "decoder",
        background: float = 0.0,
        refine: Literal["none", "par", "crf"] | None = None,
    ) -> np.ndarray:
        """Label the image once more, from the scores that are there, with more or less background.

        Args:
            tags: names of the classes that may win beside background; None: all.
            source: `decoder`, or `cam` for the class activation maps.
            background: how much stronger the background is, as a power of two: of its odds by the decoder, or of the
                score that a CAM has to exceed; 0 as the recipe says. It does nothing where there is no background.
            refine: None as the recipe says.

        Returns:
            (H, W) label map.
        """
        method, config, _ = self._asked
        changes: dict[str, Any] = {} if refine is None else {"refine": refine}
        scores = torch.from_numpy(self.cams if source == "cam" else self.scores)
        if source == "cam":
            changes["background_score"] = config.background_score * 2**background
        elif method.background:
            scores = torch.cat([scores[:1] + background * math.log(2), scores[1:]])
        own = config.model_copy(update=changes)
        ids = None if tags is None else sorted(self.classes.index(tag) for tag in tags)
        photograph = Photograph.of(self.image, own)
        return to_label_map(scores, ids, photograph, own, source, method.background)[0]

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Draw the label map over the photograph, in bright colours with outlines.

        Args:
            opacity: weight of the colours inside the outlines, in [0, 1].
        """
        return Image.fromarray(overlay(np.asarray(self.image), self.labels, opacity))

    def save(self, path: Path | str) -> None:
        """Write the label map as a PNG, with a palette where it has 8 bits, whole or not at all.

        Raises:
            TagmaskError: the path does not end in `.png`, or cannot be written.
        """
        write_label_map(path, self.labels)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        return buffer.getvalue()

    def _normalised(self) -> Tensor:
        """Return the image (1, 3, h, w) as the network takes it."""
        method, config, _ = self._asked
        pixels = Photograph.of(self.image, config).pixels[None].to(next(method.parameters()).device)
        return method.network.backbone.normalise(pixels.float() / 255)


def uncertainty(logits: Tensor, tags: Sequence[int] | None, background: bool) -> Tensor:
    """Compute one minus the highest probability among the planes that may win, (h, w) in [0, 1].

    Args:
        logits: (C, h, w), the background's first where there is one.
        tags: class indices that may win beside background; None: all.
        background: whether label 0 exists.
    """
    if tags is not None:
        logits = logits[[0, *(index + 1 for index in tags)] if background else list(tags)]
    return 1 - logits.softmax(dim=0).amax(dim=0)
