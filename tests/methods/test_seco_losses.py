from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.methods import seco_losses
from tagmask.methods.seco import Seco, SecoConfig
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


@pytest.mark.parametrize("processes", [1, 3])
def test_token_contrast_is_the_formula_of_toco(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three processes that hold the same, sums of pairs are three times as large, and so is each one's part."""
    monkeypatch.setattr(seco_losses, "world", lambda: (0, processes))
    monkeypatch.setattr(seco_losses, "sum_over_processes", lambda value: processes * value)
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 3, 4), generator=generator)
    labels[0, 0, 0] = labels[1, 2, :2] = 255
    sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for image in range(2):
        tokens, names = F.normalize(features[image].flatten(1), dim=0), labels[image].flatten().tolist()
        for i in range(12):
            for j in range(12):
                if i != j and 255 not in (names[i], names[j]):
                    sums[names[i] == names[j]] += abs(float(tokens[:, i] @ tokens[:, j]))
                    counts[names[i] == names[j]] += 1
    near, far = (sums[alike] * processes / (processes * counts[alike] + 1) for alike in (True, False))
    loss = patch_token_contrast(features, labels)
    assert float(loss) == pytest.approx(0.5 * (1 - near) + 0.5 * far, rel=1e-9)


@pytest.mark.parametrize(
    ("form", "below", "others", "noisy"),
    [
        ("reference", 11, 0, True),
        ("reference", 10, 0, False),
        ("reference", 11, 1, False),  # columns of other tags count as entries of 0, above the mean
        ("supcon", 11, 0, True),
        ("supcon", 10, 0, False),
        ("supcon", 11, 5, True),
    ],
)
def test_rows_with_over_ten_times_as_many_below_their_mean_are_noisy(
    form: str, below: int, others: int, noisy: bool
) -> None:
    near, far, other = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8]), torch.tensor([0.0, 1.0])
    keys = torch.stack([near] + [far] * below + [other] * others)
    key_tags = torch.tensor([3] * (1 + below) + [4] * others)
    queries, tags = torch.stack([near, far]), torch.tensor([3, 3])
    # To the second query all but one key are alike and one is far: none of its rows is noisy.
    loss, revised = local_contrast(queries, tags, keys, key_tags, temperature=0.5, form=form)
    assert revised.tolist() == [0 if noisy else 3, 3]
    assert loss.isfinite()


def test_supervised_contrast_in_loops() -> None:
    generator = torch.Generator().manual_seed(5)
    queries, keys = unit(generator, 4, 5), unit(generator, 9, 5)
    tags, key_tags = torch.tensor([1, 2, -1, 3]), torch.tensor([1, 2, 2, 1, 0, -1, 2, 1, 1])
    loss, revised = local_contrast(queries, tags, keys, key_tags, temperature=0.3, form="supcon")
    rows = []
    for query, tag in zip(queries, tags.tolist(), strict=True):
        scores = (query @ keys.T / 0.3).exp()
        seen = sum(scores[j] for j in range(9) if int(key_tags[j]) != -1)
        own = [float((scores[j] / seen).log()) for j in range(9) if int(key_tags[j]) == tag != -1]
        if own:
            rows.append(-sum(own) / len(own))
    assert len(rows) == 2
    assert float(loss) == pytest.approx(sum(rows) / 2, rel=1e-6)
    assert torch.equal(revised, tags)


def test_global_contrast_in_loops() -> None:
    generator = torch.Generator().manual_seed(6)
    queries, prototypes = unit(generator, 6, 5), unit(generator, 4, 5)
    tags = torch.tensor([1, 3, 0, -1, 3, 4])
    rows = []
    for query, tag in zip(queries, tags.tolist(), strict=True):
        if tag > 0:
            scores = (query @ prototypes.T / 0.2).exp()
            rows.append(-math.log(float(scores[tag - 1] / (scores[0] + scores[2] + scores[3]))))
    loss = global_contrast(queries, tags, prototypes, temperature=0.2)
    assert float(loss) == pytest.approx(sum(rows) / 4, rel=1e-6)


@pytest.mark.parametrize("form", ["reference", "supcon"])
def test_groups_count_their_own_pairs_and_classes(form: str) -> None:
    """The release's two processes: each takes the mean of its rows, and the mean of the two is what moves weights."""
    config = SecoConfig(contrast_groups=2, lil_form=form)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(5)
    q, k = unit(generator, 8, 5), unit(generator, 20, 5)
    tags = torch.tensor([1, 1, 2, 0, 3, -1, 3, 0])
    key_tags = torch.cat([tags, torch.randint(-1, 4, (12,), generator=generator)])
    prototypes = unit(generator, 3, 5)
    whole = SimpleNamespace(config=config.model_copy(update={"contrast_groups": 1}), prototypes=prototypes)
    parted = SimpleNamespace(config=config, prototypes=prototypes)
    losses = Seco._contrasts(parted, q, tags, (k, key_tags))  # pyright: ignore[reportArgumentType]
    halves = [
        Seco._contrasts(whole, q[part], tags[part], (k, key_tags))  # pyright: ignore[reportArgumentType]
        for part in (slice(0, 4), slice(4, 8))
    ]
    for own, first, second in zip(losses, *halves, strict=True):
        assert float(own) == pytest.approx(float(first + second) / 2, rel=1e-5)
    together = Seco._contrasts(whole, q, tags, (k, key_tags))  # pyright: ignore[reportArgumentType]
    assert float(losses[1]) != pytest.approx(float(together[1]), rel=1e-3), "classes of the other half stand against"
    if form == "reference":  # pairs are counted in a half: the loss is about twice as large
        assert float(losses[0]) > 1.5 * float(together[0])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_similarities_of_rounded_keys_are_not_rounded_again(kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(30, 32, generator=generator), dim=1).to(kind)
    tags = torch.arange(30) % 3 + 1
    rounded, _ = local_contrast(keys[:9], tags[:9], keys, tags, temperature=0.08, form="supcon")
    whole, _ = local_contrast(keys[:9].float(), tags[:9], keys.float(), tags, temperature=0.08, form="supcon")
    assert rounded.dtype == torch.float32
    assert float(rounded) == pytest.approx(float(whole), rel=1e-6)
