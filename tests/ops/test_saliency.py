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


@pytest.mark.parametrize(
    ("saliency", "probability", "label"), [(31, 0.1, 0), (32, 0.1, 255), (0, 0.8, 0), (0, 0.81, 255), (0, 0.89, 255)]
)
def test_thresholds_of_saliency_and_probability(saliency: int, probability: float, label: int) -> None:
    """Salient from 32 of 255 on; a class is sure above 0.8; two scores are in conflict above 0.9."""
    marginals = torch.zeros(3, 10, 10)
    marginals[2] = 0.5
    maps = torch.full((10, 10), 255, dtype=torch.uint8)
    maps[0, 0] = saliency
    marginals[:, 0, 0] = torch.tensor([0.0, probability, 0.0])
    assert int(fuse_labels(marginals, torch.tensor([3, 7]), maps)[0, 0]) == label


def test_two_high_scores_are_in_conflict() -> None:
    marginals = torch.zeros(3, 10, 10)
    marginals[1] = 0.95
    for other, label in ((0.9, 3), (0.91, 255)):
        marginals[2, 0, 0] = other
        labels = fuse_labels(marginals, torch.tensor([3, 7]))
        assert int(labels[0, 0]) == label
        assert int(labels[5, 5]) == 3
    assert labels.dtype == torch.int64


def test_a_saliency_map_is_the_background_score_in_place_of_the_crf_s() -> None:
    marginals = torch.tensor([[[0.9, 0.9]], [[0.5, 0.5]]])
    saliency = torch.tensor([[20, 200]], dtype=torch.uint8)  # background of 0.92 and 0.22
    assert fuse_labels(marginals, torch.tensor([4]), saliency).tolist() == [[0, 4]]
    assert fuse_labels(marginals, torch.tensor([4])).tolist() == [[255, 255]]  # background alone is no label
    full = torch.full((1, 2), 255, dtype=torch.uint8)  # no background at all: the least sure class wins
    assert fuse_labels(torch.tensor([[[0.9, 0.9]], [[0.002, 0.5]]]), torch.tensor([4]), full).tolist() == [[4, 4]]


def test_the_power_of_the_background_score() -> None:
    maps = torch.tensor([[[0.0, 1.0, 3.0, 4.0]], [[0.0, 8.0, 4.0, 2.0]]])
    torch.testing.assert_close(attention_scores(maps)[0], torch.tensor([[1.0, 0.0, 0.25**4, 0.0]]))
    torch.testing.assert_close(attention_scores(maps, 2)[0], torch.tensor([[1.0, 0.0, 0.25**2, 0.0]]))
