"""Scores of one image to its label map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.engine import inference
from tagmask.engine.inference import to_label_map
from tagmask.engine.photographs import Photograph
from tagmask.recipes.load import InferenceConfig


@pytest.mark.parametrize("refine", ["par", "crf"])
@pytest.mark.parametrize("longest", [30, 1024])
def test_large_images_are_refined_smaller_and_labelled_at_their_own_size(
    refine: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    for name in ("dense_crf", "pixel_adaptive_refinement"):
        run = getattr(inference, name)

        def noted(image, scores, run=run, **options):
            seen.append(tuple(scores.shape[-2:]))
            return run(image, scores, **options)

        monkeypatch.setattr(inference, name, noted)
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 40:] = 200  # the edge that the scores, whose own is at 30, are to be drawn to
    logits = torch.zeros(2, 8, 12)
    logits[0, :, :6] = logits[1, :, 6:] = 2.0
    config = InferenceConfig(refine=refine, longest=longest)  # pyright: ignore[reportArgumentType]
    labels, confidence = to_label_map(
        logits, None, Photograph.of(Image.fromarray(picture), config), config, "decoder", True
    )
    assert seen == [(20, 30) if longest == 30 else (40, 60)]
    assert labels.shape == (40, 60)
    assert labels.dtype == np.uint8
    assert (labels[:, 45:] == 1).all()
    assert (labels[:, :15] == 0).all()
    assert 0.5 < confidence <= 1


def test_pixels_without_any_activation_do_not_spoil_the_others() -> None:
    cams = torch.zeros(2, 8, 12)
    cams[0, :, :4], cams[1, :, 8:] = 0.9, 0.8  # nothing between them
    for refine in ("par", "crf"):
        config = InferenceConfig(refine=refine)
        photograph = Photograph.of(Image.new("RGB", (60, 40)), config)
        labels, confidence = to_label_map(cams, None, photograph, config, "cam", False)
        assert (labels[:, :15] == 1).all()
        assert (labels[:, 45:] == 2).all()
        assert 0 < confidence <= 1
