"""RCA's contrast, aggregation and heads."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tagmask.methods.rca_network import (
    Attention,
    Mixing,
    PrototypeAttention,
    RcaHeads,
    Reduction,
    draw_mixing,
    region_contrast,
)
from tagmask.models.vgg16 import Vgg16

FLOORS = (True, False)


def alone(classes: Tensor) -> Mixing:
    """Every region mixed with itself."""
    image = torch.arange(len(classes))[:, None].expand_as(classes)
    return Mixing(image, classes, torch.ones(classes.shape))


def contrast(embeddings: Tensor, classes: Tensor, memory: Tensor, **options: object) -> Tensor:
    everything = torch.ones(memory.shape[:2], dtype=torch.bool)
    weights = torch.ones(classes.shape)
    return region_contrast(embeddings, classes, weights, alone(classes), memory, everything, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("floor", FLOORS)
def test_a_memory_of_equal_entries_tells_nothing(floor: bool) -> None:
    memory = F.normalize(torch.ones(20, 500, 4), dim=2)
    embeddings, classes = torch.randn(2, 20, 4), torch.tensor([[3, 7], [0, 19]])
    for share in (1.0, 0.3):
        mixing = Mixing(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[0, 7], [3, 19]]), torch.full((2, 2), share))
        counts = torch.ones(20, 500, dtype=torch.bool)
        loss = region_contrast(embeddings, classes, torch.ones(2, 2), mixing, memory, counts, floor=floor)
        assert float(loss) == pytest.approx(2 * math.log(9501), rel=1e-4)


@pytest.mark.parametrize("floor", FLOORS)
def test_perfect_separation_costs_next_to_nothing(floor: bool) -> None:
    memory = torch.full((20, 500, 1), -1.0)
    memory[4] = 1
    assert float(contrast(torch.ones(1, 20, 1), torch.tensor([[4]]), memory, floor=floor)) < 1e-6


def test_the_floor_punishes_an_easy_anchor_with_one_far_entry() -> None:
    positives = torch.tensor([0.9, 0.2])
    memory = torch.full((20, 500), -0.9)
    memory[4] = positives.repeat(250)
    memory = torch.stack([memory, (1 - memory**2).sqrt()], dim=2)
    anchor = torch.tensor([1.0, 0.0]).expand(1, 20, 2)
    losses = {floor: float(contrast(anchor, torch.tensor([[4]]), memory, floor=floor)) for floor in FLOORS}
    assert losses[False] == pytest.approx((1e-7 + 0.0014) / 2, abs=1e-4)
    assert losses[True] == pytest.approx(0.790 / 2, abs=1e-3)


@pytest.mark.parametrize("floor", FLOORS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999))
def test_loss_equals_the_formula_entry_by_entry(floor: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory = F.normalize(torch.randn(4, 6, 5, generator=generator), dim=2)
    counts = torch.rand(4, 6, generator=generator) > 0.3
    counts[1] = False
    counts[0, 0] = True
    embeddings = torch.randn(3, 4, 5, generator=generator)
    regions = torch.rand(3, 4, generator=generator) > 0.4
    regions[0] = False
    classes = torch.tensor([[0, 1], [2, 3], [0, 2]])
    weights = regions.gather(1, classes).float()
    mixing = draw_mixing(classes, regions, generator=generator)
    expected = 0.0
    for image in range(3):
        terms = []
        for place in range(2):
            own, other = int(classes[image, place]), int(mixing.label[image, place])
            if not weights[image, place] or not counts[own].any() or not counts[other].any():
                continue
            share = float(mixing.share[image, place])
            mixed = share * embeddings[image, own] + (1 - share) * embeddings[mixing.image[image, place], other]
            values = memory @ F.normalize(mixed, dim=0) / 0.07
            shifted = (values - values[counts].max()).exp()
            towards = {}
            for target in (own, other):
                rest = shifted[torch.arange(4) != target][counts[torch.arange(4) != target]].sum()
                totals = rest + shifted[target][counts[target]]
                totals = totals.clamp(min=1e-4) if floor else totals
                towards[target] = (totals.log() - shifted[target][counts[target]].log()).mean()
            terms.append(share * towards[own] + (1 - share) * towards[other])
        expected += float(sum(terms) / len(terms)) if terms else 0.0
    reductions: tuple[tuple[Reduction, int], ...] = (("sum", 1), ("mean", 3))
    for reduction, factor in reductions:
        loss = region_contrast(embeddings, classes, weights, mixing, memory, counts, floor=floor, reduction=reduction)
        assert float(loss) == pytest.approx(expected / factor, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("filled", [0, 1, 3])
def test_an_empty_memory_and_an_absent_anchor_cost_nothing_and_stay_finite(floor: bool, filled: int) -> None:
    memory, counts = F.normalize(torch.randn(3, 4, 5), dim=2), torch.zeros(3, 4, dtype=torch.bool)
    counts[:filled] = True
    embeddings, classes = torch.randn(2, 3, 5, requires_grad=True), torch.tensor([[2], [2]])
    weights = torch.tensor([[1.0], [0.0]])
    loss = region_contrast(embeddings, classes, weights, alone(classes), memory, counts, floor=floor)
    loss.backward()
    assert (float(loss.detach()) > 0) == (filled == 3)
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert not embeddings.grad[1].any()


def test_mixing_with_itself_is_plain_contrast_and_the_share_is_beta() -> None:
    memory, embeddings = F.normalize(torch.randn(5, 6, 4), dim=2), torch.randn(3, 5, 4)
    classes = torch.tensor([[0], [3], [4]])
    plain = contrast(embeddings, classes, memory)
    mixing = alone(classes)._replace(share=torch.tensor([[0.2], [0.5], [0.9]]))
    counts = torch.ones(5, 6, dtype=torch.bool)
    torch.testing.assert_close(region_contrast(embeddings, classes, torch.ones(3, 1), mixing, memory, counts), plain)
    share = draw_mixing(torch.zeros(100, 50, dtype=torch.long), torch.ones(100, 3, dtype=torch.bool)).share
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * 17), rel=0.1)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999))
def test_partners_are_regions_that_exist(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    regions = torch.rand(6, 4, generator=generator) > 0.6
    classes = torch.randint(4, (6, 3), generator=generator)
    mixing = draw_mixing(classes, regions, generator=generator)
    own = torch.arange(6)[:, None].expand(6, 3)
    itself = (mixing.image == own) & (mixing.label == classes) & (mixing.share == 1)
    assert (regions[mixing.image, mixing.label] | itself).all()
    assert regions.any(dim=1)[mixing.image][~itself].all()
    again = draw_mixing(classes, regions, generator=torch.Generator().manual_seed(seed + 1))
    assert again.share.shape == mixing.share.shape


def identity_attention(width: int, attention: Attention) -> PrototypeAttention:
    """Whose output is the attended context alone."""
    module = PrototypeAttention(width, attention)
    eye = torch.eye(width)
    for layer in module.children():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        weight = torch.cat([torch.zeros(width, width), eye], dim=1) if layer is module.concat_project else eye
        layer.weight.data.copy_(weight.view_as(layer.weight))
    return module


def test_aggregation_in_closed_form() -> None:
    features, prototypes, ready = torch.randn(2, 6, 3, 4), torch.randn(20, 10, 6), torch.ones(20, dtype=torch.bool)
    flat = prototypes.flatten(0, 1)
    pixels = features.flatten(2).transpose(1, 2)
    expected = {
        "products": 2 * pixels @ flat.t() @ flat,
        "mean": pixels @ flat.t() @ flat / 200,
        "softmax": (pixels @ flat.t() / math.sqrt(6)).softmax(dim=2) @ flat,
    }
    modes: tuple[Attention, ...] = ("products", "mean", "softmax")
    for attention in modes:
        module = identity_attention(6, attention)
        with torch.no_grad():
            output = module(features, prototypes, ready)
            shuffled = prototypes.flatten(0, 1)[torch.randperm(200)].view(20, 10, 6)
            torch.testing.assert_close(module(features, shuffled, ready), output, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(output.flatten(2).transpose(1, 2), expected[attention], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["products", "mean", "softmax"])
def test_classes_that_are_not_ready_are_not_looked_at(attention: Attention) -> None:
    module, features, prototypes = identity_attention(6, attention), torch.randn(1, 6, 3, 4), torch.randn(4, 5, 6)
    ready = torch.tensor([True, False, True, False])
    with torch.no_grad():
        output = module(features, prototypes, ready)
        changed = prototypes.clone()
        changed[~ready] = 100
        torch.testing.assert_close(module(features, changed, ready), output)
        assert not module(features, prototypes, torch.zeros(4, dtype=torch.bool)).any()


def test_number_of_parameters_is_the_published_one() -> None:
    with torch.device("meta"):
        heads, backbone = RcaHeads(512, 20), Vgg16()
    counts = {name: sum(value.numel() for value in part.parameters()) for name, part in heads.named_children()}
    assert counts == {
        "extra_convs": 7_089_684,
        "extra_branches": 20 * 7_079_937,
        "extra_F": 4_720_640,
        "aggregation": 4 * 262_656 + 524_800,
    }
    assert sum(counts.values()) + sum(value.numel() for value in backbone.parameters()) == 169_699_176


def test_grouped_branches_compute_what_separate_ones_do() -> None:
    heads = RcaHeads(6, 3, hidden=4).eval()
    for value in heads.parameters():
        nn.init.normal_(value)
    features, prototypes, ready = torch.randn(2, 6, 5, 4), torch.randn(3, 2, 6), torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        maps = heads(features, prototypes, ready)
        enriched = heads.aggregation(features, prototypes, ready)
        for index in range(3):
            branch = nn.Sequential(*(nn.Conv2d(*shape, 3, padding=1) for shape in ((6, 4), (4, 4), (4, 4))))
            branch.append(nn.Conv2d(4, 1, 1))
            for own, fused in zip(branch, heads.extra_branches[::2], strict=True):
                rows = len(next(fused.parameters())) // 3
                own.load_state_dict(
                    {name: value[index * rows : (index + 1) * rows] for name, value in fused.state_dict().items()}
                )
            values = enriched
            for own in branch[:3]:
                values = own(values).relu()
            torch.testing.assert_close(branch[3](values)[:, 0], maps.fine[:, index], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(heads.extra_convs(features), maps.coarse)
    assert maps.projected.shape == features.shape


def test_narrow_heads_begin_with_a_signal_when_drawn_by_their_width() -> None:
    """A pixel of deviation 1 leaves a map that varies as much; drawn as released next to nothing is left of it."""
    torch.manual_seed(0)
    features, prototypes, ready = torch.randn(2, 96, 8, 8), torch.zeros(3, 2, 96), torch.zeros(3, dtype=torch.bool)
    spread = {}
    for start in ("fixed", "he"):
        maps = RcaHeads(96, 3, 32, start=start)(features, prototypes, ready)  # pyright: ignore[reportArgumentType]
        spread[start] = [float(part.detach().std(dim=(2, 3)).mean()) for part in (maps.fine, maps.coarse)]
    assert max(spread["fixed"]) < 1e-2
    assert all(0.2 < value < 5 for value in spread["he"])


def test_a_width_narrows_all_that_stands_on_the_backbone() -> None:
    from tagmask.methods.rca import Rca
    from tagmask.methods.registry import build_method
    from tagmask.recipes.load import load_recipe

    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    as_they_are, narrow = (
        build_method(load_recipe("rca/demo", [f"method.width={width}"]), 3).eval() for width in ("null", 8)
    )
    assert isinstance(as_they_are, Rca)
    assert isinstance(narrow, Rca)
    assert as_they_are.network.features(images).equal(as_they_are.network.backbone(images).patches)
    features = narrow.network.features(images)
    assert features.shape == (2, 8, 8, 8)
    assert features.min() == 0  # rectified
    assert 0.2 < float(features.detach().std()) < 5
    assert narrow.network.memory.prototypes.shape[2] == 8
    assert narrow.network.heads.extra_F[0].weight.shape == (8, 8, 3, 3)  # pyright: ignore[reportAttributeAccessIssue]
    assert narrow.cams(images).shape == (2, 3, 64, 64)
    ids = {id(value) for group in narrow.parameter_groups() if group["head"] for value in group["params"]}
    assert all(id(value) in ids for value in narrow.network.get_submodule("extra_neck").parameters())


def test_gradient_of_the_contrast_reaches_the_projection_alone() -> None:
    from tagmask.methods.rca_memory import RegionMemory, region_embeddings, region_masks

    heads, memory = RcaHeads(6, 3, hidden=4), RegionMemory(3, 6, length=8, prototypes=2, start="noise")
    maps = heads(torch.randn(2, 6, 5, 4), memory.prototypes, memory.ready)
    masks, classes = region_masks(maps.coarse), torch.tensor([[0], [2]])
    loss = region_contrast(
        region_embeddings(maps.projected, masks), classes, torch.ones(2, 1), alone(classes), *memory.entries()
    )
    loss.backward()
    moved = {name.split(".")[0] for name, value in heads.named_parameters() if value.grad is not None}
    assert moved == {"extra_F"}


def test_one_entry_counts_as_much_as_two_that_are_the_same() -> None:
    memory = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    memory[1, 1] = memory[1, 0]
    embeddings, classes = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([[1]])
    losses = []
    for entries in (1, 2):
        counts = torch.ones(3, 5, dtype=torch.bool)
        counts[1] = torch.arange(5) < entries
        losses.append(region_contrast(embeddings, classes, torch.ones(1, 1), alone(classes), memory, counts))
    assert float(losses[0]) > 0
    torch.testing.assert_close(losses[0], losses[1])
