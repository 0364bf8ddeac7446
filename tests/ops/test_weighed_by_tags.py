"""Scores weighed by what is known of an image's tags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.ops.labels import weighed_by_tags


def planes(*probabilities: float, views: int = 1) -> Tensor:
    """Logits of one pixel, summed over views."""
    return views * torch.tensor(probabilities).log().view(-1, 1, 1)


def probabilities(logits: Tensor, views: int = 1) -> list[float]:
    return [round(float(value), 4) for value in (logits / views).softmax(dim=0).flatten()]


def test_what_is_improbable_goes_to_the_probable_classes_and_not_to_the_background() -> None:
    """Background, cat, dog, cow: half cat, a tenth dog; the image shows no cat."""
    only = torch.tensor([-torch.inf, 0.0, 0.0])
    assert probabilities(weighed_by_tags(planes(0.4, 0.4, 0.15, 0.05), only)) == [0.4, 0.0, 0.45, 0.15]


def test_weights_are_powers_of_probabilities() -> None:
    weights = torch.tensor([0.25, 0.5, 1.0]).log()
    assert probabilities(weighed_by_tags(planes(0.3, 0.4, 0.2, 0.1), weights)) == [0.3, 0.2333, 0.2333, 0.2333]
    assert probabilities(weighed_by_tags(planes(0.3, 0.4, 0.2, 0.1), 2 * weights)) == [0.3, 0.1, 0.2, 0.4]


def test_logits_summed_over_an_image_and_its_flip_are_of_their_mean() -> None:
    weights = torch.tensor([-torch.inf, 0.0])
    found = weighed_by_tags(planes(0.4, 0.4, 0.2, views=2), weights, views=2)
    assert probabilities(found, views=2) == [0.4, 0.0, 0.6]


def test_without_background_the_classes_share_all() -> None:
    weights = torch.tensor([0.5, 1.0]).log()
    assert probabilities(weighed_by_tags(planes(0.6, 0.4), weights, background=False)) == [0.4286, 0.5714]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 6), views=st.integers(1, 2), shift=st.floats(-9, 0))
def test_the_background_keeps_its_probability_and_equal_weights_change_nothing(
    seed: int, classes: int, views: int, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(classes + 1, 3, 4, generator=generator)
    weights = torch.randn(classes, generator=generator)
    found = weighed_by_tags(logits, weights, views=views)
    before, after = ((each / views).softmax(dim=0)[0] for each in (logits, found))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)
    same = weighed_by_tags(logits, torch.full((classes,), shift), views=views)
    torch.testing.assert_close(same, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [-1e4, 0.0])
def test_a_class_that_may_not_win_makes_no_nan(value: float) -> None:
    logits = torch.tensor([0.0, value, 1.0]).view(3, 1, 1)
    assert weighed_by_tags(logits, torch.tensor([0.0, -torch.inf]))[:2].isfinite().all()
