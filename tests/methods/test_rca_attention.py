"""Attention maps gathered over epochs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.methods import rca_attention
from tagmask.methods.rca_attention import AttentionStore, Precision

TAGS = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize("precision", ["uint8", "float16"])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999))
def test_maps_only_grow_reach_their_maximum_and_stay_with_their_image(precision: Precision, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    store = AttentionStore(TAGS, (4, 3), precision)
    expected = torch.zeros(4, 3, 4, 3)
    for _ in range(3):
        before = store.maps.clone()
        indices = torch.randperm(4, generator=generator)[:2]
        maps, probabilities = torch.randn(2, 3, 4, 3, generator=generator), torch.rand(2, 3, generator=generator)
        store.update(indices, maps, probabilities, last=False, min_probability=0.3)
        assert (store.maps >= before).all()
        shares = maps.relu() / (maps.relu().amax(dim=(2, 3), keepdim=True) + 1e-8)
        shares = shares * (probabilities >= 0.3)[..., None, None]
        expected[indices] = expected[indices].maximum(shares) * TAGS[indices][..., None, None]
    for index in range(4):
        classes, maps = store.of_image(index)
        assert classes.tolist() == TAGS[index].nonzero().flatten().tolist()
        tolerance = 0.5 / 255 + 1e-6 if precision == "uint8" else 1e-3
        torch.testing.assert_close(maps, expected[index, classes], rtol=0, atol=tolerance)
    assert not store.maps[-1].any()
    assert not store.written[-1]


def test_the_last_epoch_fills_what_was_never_probable() -> None:
    store = AttentionStore(TAGS, (1, 2), "uint8")
    maps = torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]], [[-1.0, -3.0]]])[None]
    store.update(torch.tensor([0]), maps, torch.tensor([[0.05, 0.05, 0.05]]), last=False)
    assert not store.written.any()
    store.update(torch.tensor([0]), maps, torch.tensor([[0.05, 0.05, 0.05]]), last=True)
    assert store.written.tolist() == [True, True] + [False] * 5
    assert store.maps[:2].flatten().tolist() == [128, 255, 0, 0]
    store.update(torch.tensor([0]), maps.flip(-1), torch.tensor([[0.05, 0.05, 0.05]]), last=True)
    assert store.maps[0].flatten().tolist() == [128, 255]


def test_state_survives_a_checkpoint() -> None:
    store, other = AttentionStore(TAGS, (2, 2)), AttentionStore(TAGS, (2, 2))
    store.update(torch.tensor([3]), torch.rand(1, 3, 2, 2), torch.ones(1, 3), last=False)
    other.load_state_dict(store.state_dict())
    assert torch.equal(other.of_image(3)[1], store.of_image(3)[1])
    assert other.of_image(3)[1].amax() == 1


def test_an_image_twice_in_a_batch_keeps_the_larger_of_its_maps() -> None:
    store = AttentionStore(TAGS, (1, 2))
    maps = torch.tensor([[[1.0, 4.0]], [[0.0, 0.0]], [[0.0, 0.0]]])[None]
    store.update(torch.tensor([0, 0]), torch.cat([maps.flip(-1), maps]), torch.ones(2, 3), last=False)
    assert store.maps[0].flatten().tolist() == [1, 1]


def test_a_faint_map_is_not_stretched_to_the_whole() -> None:
    store = AttentionStore(TAGS, (1, 2))
    maps = torch.tensor([[[rca_attention.EPSILON, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])[None]
    store.update(torch.tensor([0]), maps, torch.ones(1, 3), last=False)
    assert store.maps[0].flatten().tolist() == pytest.approx([0.5, 0])
