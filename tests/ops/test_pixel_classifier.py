from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.pixel_classifier import PixelClassifier, fit_pixel_classifier, shared_out


def fitted(features: torch.Tensor, labels: torch.Tensor) -> PixelClassifier:
    mean, std = features.mean(dim=0), features.std(dim=0)
    return fit_pixel_classifier(features, labels, torch.ones(len(labels)), mean=mean, std=std, penalty=1e-3)


def test_pixels_of_separate_features_get_their_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0, 4], [5, 0, 0], [0, 3, 0]])
    targets = torch.arange(300) % 3
    features = centres[targets] + 0.2 * torch.randn(300, 3, generator=generator)
    found = fitted(features, torch.tensor([0, 2, 7])[targets])
    assert found.labels.tolist() == [0, 2, 7]
    own = found.logits(centres.t()[:, None])
    assert own.shape == (3, 1, 3)
    assert own.argmax(dim=0).tolist() == [[0, 1, 2]]


def test_a_rare_label_is_not_drowned_by_a_frequent_one() -> None:
    """Where features overlap, the boundary moves with the root of how often labels occur, not with how often."""
    generator = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(9900, 1, generator=generator), 2 + torch.randn(100, 1, generator=generator)])
    labels = (torch.arange(10000) >= 9900).long()
    found = fitted(features, labels)
    grid = torch.linspace(0, 6, 601).view(1, 1, -1)
    boundary = float(grid.flatten()[(found.logits(grid)[1] > found.logits(grid)[0]).flatten()][0])
    # For normal features 2 apart it lies at 1 + log(ratio) / 2: 1 were both alike, 3.3 by plain counts, 2.15 by roots.
    assert 1.9 < boundary < 2.4


def test_the_same_pixels_give_the_same_classifier() -> None:
    features, labels = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)), torch.arange(200) % 4
    for one, other in zip(fitted(features, labels), fitted(features, labels), strict=True):
        assert torch.equal(one, other)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_sharing_out_leaves_the_strongest_as_strong(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cams, given = torch.rand(classes, 5, 6, generator=generator), torch.rand(classes, 5, 6, generator=generator)
    shared = shared_out(cams, given)
    assert torch.allclose(shared.amax(dim=0), cams.amax(dim=0))
    assert shared.min() >= 0


def test_classes_of_equal_cams_are_told_apart_by_the_probabilities() -> None:
    cams = torch.full((2, 1, 2), 0.8)
    shared = shared_out(cams, torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]))
    # The root of 1 / 9 is a third.
    torch.testing.assert_close(shared, torch.tensor([[[0.8, 0.8 / 3]], [[0.8 / 3, 0.8]]]))
