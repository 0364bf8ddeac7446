"""RCA's regions and memory, against a plain loop over images and classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagmask.methods.rca_memory import RegionMemory, Start, region_embeddings, region_masks


def test_mask_is_above_the_mean_of_shares_and_blind_to_a_common_offset() -> None:
    coarse = torch.randn(2, 5, 6, 4)
    masks = region_masks(coarse)
    shares = coarse.softmax(dim=1)
    assert torch.equal(masks, shares > shares.mean(dim=(2, 3), keepdim=True))
    assert (region_masks(coarse + torch.randn(2, 1, 6, 4)) == masks).float().mean() > 0.99


@settings(deadline=None, max_examples=10)
@given(value=st.floats(-5, 5), height=st.integers(1, 47), width=st.integers(1, 47))
@example(value=0.44140625, height=1, width=9)
def test_a_constant_map_has_no_region_and_a_finite_embedding(value: float, height: int, width: int) -> None:
    coarse = torch.tensor([value, 0.1, -0.3]).view(1, 3, 1, 1).expand(1, 3, height, width)
    masks = region_masks(coarse)
    assert not masks.any()
    assert not region_embeddings(torch.randn(1, 2, height, width), masks).any()


def test_embedding_is_the_mean_over_the_mask() -> None:
    features, masks = torch.randn(2, 3, 5, 4), torch.rand(2, 6, 5, 4) > 0.5
    embeddings = region_embeddings(features, masks)
    torch.testing.assert_close(embeddings[1, 4], features[1][:, masks[1, 4]].mean(dim=1))


def by_loop(
    memory: RegionMemory, features: Tensor, masks: Tensor, tags: Tensor, probabilities: Tensor, chained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queue, pointer and filled after an update, image by image and class by class."""
    queue, pointer, filled = memory.queue.clone(), memory.pointer.clone(), memory.filled.clone()
    for image in range(len(features)):
        kept = features[image].clone()
        for label in range(len(queue)):
            mask = masks[image, label]
            if tags[image, label] == 0 or probabilities[image, label] <= 0.7:
                continue
            pooled = kept if chained else features[image]
            masked = pooled * mask
            if chained:
                kept = masked
            if not mask.any():
                continue
            embedding, slot = masked.sum(dim=(1, 2)) / mask.sum(), int(pointer[label])
            old = queue[label, slot]
            queue[label, slot] = (
                (memory.momentum * old + (1 - memory.momentum) * embedding) if filled[label, slot] else embedding
            )
            filled[label, slot] = True
            pointer[label] = (slot + 1) % queue.shape[1]
    return queue, pointer, filled


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("start", ["noise", "first_write"])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), length=st.integers(4, 6))
def test_update_equals_the_loop(chained: bool, start: Start, seed: int, length: int) -> None:
    torch.manual_seed(seed)
    memory = RegionMemory(3, 4, length=length, prototypes=2, start=start)
    for _ in range(3):  # enough to wrap
        features, coarse = torch.randn(4, 4, 3, 2), torch.randn(4, 3, 3, 2)
        coarse[0] = 0  # no region
        masks, tags, probabilities = region_masks(coarse), (torch.rand(4, 3) > 0.3).float(), torch.rand(4, 3) + 0.4
        expected = by_loop(memory, features, masks, tags, probabilities, chained)
        memory.update(features, masks, tags, probabilities, **({"chained": True} if chained else {}))
        torch.testing.assert_close(memory.queue, expected[0])
        assert torch.equal(memory.pointer, expected[1])
        assert torch.equal(memory.filled, expected[2])


def update_once(memory: RegionMemory, probability: float) -> None:
    coarse = torch.zeros(1, 2, 1, 2)
    coarse[0, 0, 0, 0] = 1
    memory.update(
        torch.ones(1, 1, 1, 2), region_masks(coarse), torch.tensor([[1.0, 0.0]]), torch.tensor([[probability, 0.9]])
    )


def test_an_entry_moves_by_a_hundredth_and_comes_again_after_500() -> None:
    memory = RegionMemory(2, 1, start="noise")
    memory.queue.zero_()
    update_once(memory, 0.8)
    assert memory.queue[0, 0] == pytest.approx(0.01)
    for _ in range(500):
        update_once(memory, 0.8)
    assert memory.queue[0, 0] == pytest.approx(0.01 * 0.99 + 0.01)
    assert memory.queue[0, 1:].flatten().tolist() == pytest.approx([0.01] * 499)
    assert memory.pointer.tolist() == [1, 0]


def test_no_update_at_or_below_the_confidence() -> None:
    memory = RegionMemory(2, 1)
    update_once(memory, 0.7)
    assert not memory.filled.any()
    assert memory.pointer.tolist() == [0, 0]


def test_first_write_copies_and_leaves_out_what_is_not_filled() -> None:
    memory = RegionMemory(2, 1, length=5, prototypes=3)
    for count in range(1, 4):
        update_once(memory, 0.8)
        entries, counts = memory.entries()
        assert entries[0, :count].flatten().tolist() == [1.0] * count
        assert counts[0].tolist() == [count == 3 and place < 3 for place in range(5)]
    assert not counts[1].any()


def test_prototypes_only_of_classes_with_enough_entries() -> None:
    memory = RegionMemory(3, 2, length=6, prototypes=2)
    memory.queue[0, :4] = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]])
    memory.queue[1, :1] = 1
    memory.filled[0, :4] = True
    memory.filled[1, :1] = True
    memory.refresh_prototypes(seed=0)
    assert memory.ready.tolist() == [True, False, False]
    centres = memory.prototypes[0][memory.prototypes[0, :, 0].argsort()]
    torch.testing.assert_close(centres, torch.tensor([[0.05, 0.0], [9.05, 9.0]]))
    assert not memory.prototypes[1:].any()


def test_noise_counts_from_the_start() -> None:
    memory = RegionMemory(2, 64, start="noise")
    entries, counts = memory.entries()
    assert counts.all()
    assert memory.ready.all()
    assert memory.queue.norm(dim=2).mean() == pytest.approx(8, rel=0.05)
    torch.testing.assert_close(entries.norm(dim=2), torch.ones(2, 500))


def test_a_batch_larger_than_the_memory_is_refused() -> None:
    memory = RegionMemory(1, 1, length=2, prototypes=1)
    with pytest.raises(ValueError, match="3 images in a memory of 2"):
        memory.update(torch.ones(3, 1, 1, 2), torch.ones(3, 1, 1, 2) > 0, torch.ones(3, 1), torch.ones(3, 1))


def test_a_class_with_as_many_regions_as_prototypes_has_them_as_its_prototypes() -> None:
    memory = RegionMemory(2, 4, length=6, prototypes=3)
    memory.queue.copy_(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)))
    memory.filled[0, :3], memory.filled[1, :2] = True, True
    memory.refresh_prototypes(seed=0)
    assert memory.ready.tolist() == [True, False]
    found, expected = (sorted(rows.tolist()) for rows in (memory.prototypes[0], memory.queue[0, :3]))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
