from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.methods.seco_losses import global_contrast, local_contrast, move_prototypes, patch_token_contrast


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def plain_reference_lil(q: torch.Tensor, t: list[int], k: torch.Tensor, kt: list[int], temperature: float) -> float:
    """The released formula in loops, from the specification."""
    values, pairs, columns = [], 0, len(kt)
    for i, tag in enumerate(t):
        s = q[i] @ k.T / temperature
        s = s - s.max()
        positive = [tag == other and tag != -1 for other in kt]
        entries = torch.where(torch.tensor(positive), s, 0.0)
        below, above = int((entries < entries.mean()).sum()), int((entries >= entries.mean()).sum())
        if below / (above + 1e-6) > 10:
            positive = [False] * columns
        kept = [j for j in range(columns) if tag != -1 and kt[j] != -1]
        z = sum(math.exp(s[j]) for j in kept if s[j] < 0)
        value = sum(float(s[j]) for j in range(columns) if positive[j]) - columns * math.log(z + 1e-12)
        pairs += sum(positive[j] and float(s[j]) != 0 for j in range(columns))
        values.append(value if z > 0 and value < 0 else 0.0)
    return -sum(values) / len(t) / max(pairs, 1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), extra=st.integers(1, 30))
def test_local_contrast_is_the_released_formula(seed: int, rows: int, extra: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = unit(generator, rows, 5), unit(generator, rows + extra, 5)
    tags = torch.randint(-1, 4, (rows,), generator=generator)
    key_tags = torch.cat([tags, torch.randint(-1, 4, (extra,), generator=generator)])
    loss, _ = local_contrast(q, tags, k, key_tags, temperature=0.08)
    assert float(loss) == pytest.approx(plain_reference_lil(q, tags.tolist(), k, key_tags.tolist(), 0.08), rel=1e-9)


def test_supcon_is_log_of_the_number_of_columns_when_all_are_alike() -> None:
    q, k = torch.ones(3, 4) / 2, torch.ones(6, 4) / 2
    tags, key_tags = torch.tensor([1, 2, -1]), torch.tensor([1, 2, -1, 1, 2, 1])
    loss, revised = local_contrast(q, tags, k, key_tags, temperature=0.1, form="supcon")
    assert float(loss) == pytest.approx(math.log(5), rel=1e-6)  # five columns bear a tag
    assert revised.tolist() == [1, 2, -1]


def test_supcon_falls_as_positives_come_nearer() -> None:
    k = torch.eye(4)
    key_tags = torch.tensor([1, 2, 3, 0])
    near, far = torch.tensor([[0.9, 0.1, 0.1, 0.1]]), torch.tensor([[0.1, 0.9, 0.1, 0.1]])
    losses = [
        float(local_contrast(q, torch.tensor([1]), k, key_tags, temperature=0.1, form="supcon")[0]) for q in (near, far)
    ]
    assert losses[0] < 0.01 < 7 < losses[1]


@pytest.mark.parametrize("form", ["reference", "supcon"])
def test_nothing_but_mixed_tags_gives_zero_and_finite_gradients(form: str) -> None:
    q = F.normalize(torch.randn(4, 6), dim=1).requires_grad_()
    mixed = torch.full((4,), -1)
    loss, _ = local_contrast(q, mixed, q.detach(), mixed, temperature=0.08, form=form)
    loss.backward()
    assert float(loss) == 0
    assert q.grad is not None
    assert torch.equal(q.grad, torch.zeros_like(q))


def test_global_contrast_sees_only_classes_of_the_batch() -> None:
    prototypes = torch.eye(3)
    q = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    both = float(global_contrast(q, torch.tensor([1, 2]), prototypes, temperature=0.5))
    assert both == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    assert float(global_contrast(q, torch.tensor([1, 0]), prototypes, temperature=0.5)) == pytest.approx(0, abs=1e-6)
    assert float(global_contrast(q, torch.tensor([0, -1]), prototypes, temperature=0.5)) == 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), momentum=st.floats(0.5, 0.99))
def test_prototypes_move_as_if_images_came_one_by_one(seed: int, momentum: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    prototypes, tokens = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (3, 5))
    tags = torch.tensor([1, -1, 3, 3, 3])
    expected = prototypes.clone()
    for token, tag in zip(tokens, tags.tolist(), strict=True):
        if tag > 0:
            expected[tag - 1] = momentum * expected[tag - 1] + (1 - momentum) * token
    moved = move_prototypes(prototypes, tokens, tags, momentum)
    torch.testing.assert_close(moved, F.normalize(expected, dim=1))


def test_token_contrast_is_zero_when_labels_and_features_agree() -> None:
    # 40 + 40 tokens: the +1 in the counts leaves 1/(n+1) of the attraction undone.
    labels = torch.cat([torch.zeros(40), torch.ones(40)]).long().view(1, 8, 10)
    features = F.one_hot(labels, 2).permute(0, 3, 1, 2).double()
    pairs = 2 * 40 * 39
    assert float(patch_token_contrast(features, labels)) == pytest.approx(0.5 / (pairs + 1), rel=1e-6)
    assert float(patch_token_contrast(features, torch.full_like(labels, 255))) == 0.5


@pytest.mark.parametrize("form", ["reference", "supcon"])
def test_contrast_under_autocast_is_that_of_fp32(form: str) -> None:
    """Tight clusters, at whose similarities bf16 cannot tell the largest of a row from hundreds of others."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(3, 32, generator=generator), dim=1)
    tags = torch.arange(300) % 3
    keys = F.normalize(centres[tags] + 0.02 * torch.randn(300, 32, generator=generator), dim=1)

    def losses() -> tuple[torch.Tensor, ...]:
        loss, revised = local_contrast(keys[:30], tags[:30] + 1, keys, tags + 1, temperature=0.08, form=form)
        other = global_contrast(keys[:30], revised, centres, temperature=0.1)
        return loss, other, move_prototypes(centres, keys[:30], tags[:30] + 1, 0.9)

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses()
    for one, other in zip(plain, mixed, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other)
