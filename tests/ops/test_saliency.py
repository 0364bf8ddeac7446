"""RCA's pseudo labels, with and without saliency."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.saliency import attention_scores, fuse_labels


@pytest.mark.parametrize(
    ("saliency", "probability", "label"),
    [(255, 0.95, 7), (255, 0.3, 7), (0, 0.95, 255), (0, 0.85, 255), (0, 0.5, 0), (40, 0.1, 255), (255, 0.0, 255)],
)
def test_every_case_of_saliency_and_probability(saliency: int, probability: float, label: int) -> None:
    marginals = torch.zeros(2, 10, 10)
    maps = torch.full((10, 10), 255, dtype=torch.uint8)
    marginals[1] = 0.5  # the rest of the image is foreground
    maps[0, 0] = saliency
    marginals[:, 0, 0] = torch.tensor([1 - probability, probability])
    assert int(fuse_labels(marginals, torch.tensor([7]), maps)[0, 0]) == label


def test_less_than_one_percent_of_foreground_is_no_label() -> None:
    marginals = torch.zeros(2, 20, 20)
    marginals[0] = 0.8
    marginals[:, 0, :3] = torch.tensor([0.2, 0.8])[:, None]
    assert (fuse_labels(marginals, torch.tensor([1])) == 255).all()
    marginals[:, 0, :4] = torch.tensor([0.2, 0.8])[:, None]
    labels = fuse_labels(marginals, torch.tensor([1]))
    assert int((labels == 1).sum()) == 4
    assert int((labels == 0).sum()) == 396


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999))
def test_without_saliency_the_marginals_decide(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    marginals = torch.rand(4, 8, 9, generator=generator)
    marginals = marginals / marginals.sum(dim=0)
    labels = fuse_labels(marginals, torch.tensor([2, 5, 9]))
    expected = torch.tensor([0, 2, 5, 9])[marginals.argmax(dim=0)]
    assert torch.equal(labels, expected)


@pytest.mark.parametrize("saliency", [None, torch.zeros(6, 5, dtype=torch.uint8)])
def test_no_tag_gives_no_label(saliency: torch.Tensor | None) -> None:
    scores = attention_scores(torch.zeros(0, 6, 5))
    assert torch.equal(scores, torch.ones(1, 6, 5))
    assert (fuse_labels(scores, torch.zeros(0, dtype=torch.long), saliency) == 255).all()


def test_scores_stretch_each_map() -> None:
    maps = torch.tensor([[[10, 20, 30]], [[7, 7, 7]], [[0, 0, 255]]], dtype=torch.uint8)
    scores = attention_scores(maps)
    torch.testing.assert_close(scores[1:, 0], torch.tensor([[0, 0.5, 1], [0, 0, 0], [0, 0, 1]]))
    torch.testing.assert_close(scores[0, 0], torch.tensor([1, 0.5**4, 0]))


def test_saliency_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"saliency of \(3, 3\) for an image of \(6, 5\)"):
        fuse_labels(torch.zeros(1, 6, 5), torch.zeros(0, dtype=torch.long), torch.zeros(3, 3))
