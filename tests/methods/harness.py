"""The questions that every method has to answer; a new method's test is one call of `ask`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tagmask.data.batch import Batch
from tagmask.engine.checkpoint import load_model, save_model
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, TrainingSet
from tagmask.methods.registry import build_method
from tagmask.recipes.load import Recipe

CLASSES, IMAGES, STEPS = 3, 4, 40


def make_method(recipe: Recipe, number: int = -1) -> Method:
    """Build the method of a round with random weights, ready to be trained on `IMAGES` images."""
    torch.manual_seed(0)
    method = build_method(recipe, CLASSES, number=number)
    tags = make_batch(recipe.views.crop).tags
    clusters = torch.where(tags > 0, 0, -1)
    method.start_training(TrainingSet(tags, IMAGES, STEPS, recipe.views.crop, clusters))
    return method


def make_batch(side: int) -> Batch:
    """Images of noise with one or two tags each, and masks of those tags."""
    generator = torch.Generator().manual_seed(1)

    def views() -> torch.Tensor:
        return torch.randn(IMAGES, 3, side, side, generator=generator)

    tags = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]])
    masks = torch.zeros(IMAGES, side, side, dtype=torch.int64)
    masks[:, : side // 2] = tags.argmax(dim=1)[:, None, None] + 1
    masks[:, side // 2 : side // 2 + 2] = 255
    return Batch(
        images=views(),
        tags=tags,
        known=torch.ones_like(tags),
        boxes=torch.tensor([0, side, 0, side]).repeat(IMAGES, 1),
        indices=torch.arange(IMAGES),
        most_tags=2,
        masks=masks,
        weak=views(),
        strong=views(),
        strong_flipped=torch.tensor([True, False, True, False]),
    )


def ask(recipe: Recipe, place: Path, *, step: int = STEPS - 1, number: int = -1, bf16: float = 0.1) -> None:
    """Ask a method all questions.

    Args:
        recipe: a small one, whose crop the method's images have.
        place: an empty folder.
        step: late enough that every loss counts.
        number: which of the method's rounds.
        bf16: how far the loss may be off in bf16, as a fraction of it.
    """
    method, batch = make_method(recipe, number), make_batch(recipe.views.crop)
    # Losses are scalars and finite, and what they teach has finite gradients.
    before = copy.deepcopy(method.state_dict())
    losses = method.train()(batch, step)
    assert all(value.shape == () and bool(value.isfinite()) for value in losses.values()), losses
    losses["loss"].backward()
    groups = method.parameter_groups()
    learning = [parameter for group in groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(parameter.grad.any()) for parameter in groups[0]["params"] if parameter.grad is not None)
    assert any(bool(parameter.grad.any()) for parameter in groups[1]["params"] if parameter.grad is not None)
    # Every parameter that learns is in one group, and in one alone.
    free = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
    assert sorted(id(parameter) for parameter in learning) == sorted(free)
    # CAMs and scores have their shapes and ranges.
    method.eval()
    with torch.inference_mode():
        cams = method.cams(batch.images, (1.0, 0.5))
        assert cams.shape == (IMAGES, CLASSES, recipe.views.crop, recipe.views.crop)
        assert float(cams.min()) >= 0
        assert float(cams.max()) <= 1
        logits = method.tag_logits(batch.images)
        assert logits.shape == (IMAGES, CLASSES)
        assert bool(logits.isfinite().all())
        if method.has_decoder:
            scores = method.scores(batch.images)
            assert scores.shape[:2] == (IMAGES, CLASSES + int(method.background))
        else:
            with pytest.raises(TagmaskError, match="has no decoder"):
                method.scores(batch.images)
    # The model alone gives the same CAMs; the whole state gives the same step.
    save_model(place, method.network)
    other = build_method(recipe, CLASSES, number=number).eval()
    load_model(place, other.network)
    with torch.inference_mode():
        assert torch.equal(other.cams(batch.images, (1.0, 0.5)), cams)
    again = make_method(recipe, number).train()
    again.load_state_dict(before)
    for name in ("draw_seed",):  # the recipe's seed fixes what is no tensor
        if hasattr(method, name):
            setattr(again, name, getattr(method, name))
    torch.manual_seed(0)
    first = again(batch, step)
    again.load_state_dict(before)
    torch.manual_seed(0)
    second = again(batch, step)
    assert {name: float(value) for name, value in first.items()} == {
        name: float(value) for name, value in second.items()
    }
    # Products in bf16 change the losses a little.
    again.load_state_dict(before)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = again(batch, step)
    assert rough.keys() == first.keys()
    assert float(rough["loss"]) == pytest.approx(float(first["loss"]), rel=bf16)
