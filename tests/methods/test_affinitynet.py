"""AffinityNet: its head and its loss."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.data.batch import Batch
from tagmask.methods import affinitynet
from tagmask.methods.affinitynet import Affinity, AffinityHead, affinity_loss
from tagmask.methods.registry import build_method
from tests.conftest import STAGED_SIDE, staged_recipe

NAMES = Path(__file__).parents[1] / "golden" / "resnet38_state_dict.json"


def test_names_and_shapes_are_the_published_ones() -> None:
    expected = {item["name"]: item["shape"] for item in json.loads(NAMES.read_text())["affinity_head"]}
    assert {name: list(value.shape) for name, value in AffinityHead().state_dict().items()} == expected


def test_stages_of_any_number_and_size_meet_on_the_first_grid() -> None:
    head = AffinityHead([3, 5, 7, 9], [2, 2, 4, 4])
    features = [torch.randn(2, width, side, side + 1) for width, side in ((3, 12), (5, 6), (7, 6), (9, 3))]
    assert head(features).shape == (2, 12, 12, 13)


def test_loss_of_constant_features() -> None:
    """All affinities are 1: pairs of one label cost nothing, pairs of two the most there is."""
    labels = torch.zeros(1, 10, 12, dtype=torch.long)
    labels[:, :, 6:] = 2
    losses = affinity_loss(torch.ones(1, 4, 10, 12), labels)
    torch.testing.assert_close(losses.loss, losses.background / 4 + losses.foreground / 4 + losses.negative / 2)
    assert abs(float(losses.background)) < 2e-5
    assert abs(float(losses.negative) + math.log(1e-5)) < 0.02


@settings(deadline=None, max_examples=10)
@given(label=st.sampled_from([0, 3, 255]), seed=st.integers(0, 99))
def test_a_kind_without_a_pair_costs_nothing_and_stays_finite(label: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 4, 9, 11, generator=generator, requires_grad=True)
    losses = affinity_loss(features, torch.full((2, 9, 11), label))
    losses.loss.backward()
    assert float(losses.negative.detach()) == 0
    assert (float(losses.background.detach()) > 0) == (label == 0)
    assert (float(losses.foreground.detach()) > 0) == (label == 3)
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_grid_smaller_than_the_radius_has_no_pairs() -> None:
    assert float(affinity_loss(torch.randn(1, 4, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long)).loss) == 0


def test_the_network_learns_from_masks_at_the_centres_of_its_cells() -> None:
    torch.manual_seed(0)
    backbone = build_method(staged_recipe("cam"), 3).network.backbone
    method = Affinity(backbone, 3)
    assert (method.num_classes, method.background, method.needs_masks, method.has_decoder) == (3, True, True, False)
    widths = [module.out_channels for name, module in method.network.heads.named_children() if name != "f9"]
    assert widths == [64, 128, 256][-len(backbone.tap_widths) :]
    masks = torch.randint(0, 4, (2, 96, 96), generator=torch.Generator().manual_seed(1))
    masks[:, :8] = 255
    images = torch.randn(2, 3, STAGED_SIDE, STAGED_SIDE)
    features = torch.rand(2, 5, 12, 12)
    method.network.forward = lambda given: features if given is images else None  # pyright: ignore
    unused = torch.ones(2, 3)
    losses = method(Batch(images, unused, unused, torch.zeros(2, 4), torch.arange(2), 1, masks=masks), 0)
    expected = affinity_loss(features, masks[:, 4::8, 4::8])
    assert {name: float(value) for name, value in losses.items()} == {
        "loss": float(expected.loss),
        "background": float(expected.background),
        "foreground": float(expected.foreground),
        "negative": float(expected.negative),
    }


def test_features_of_images_are_those_of_the_head_on_their_stages() -> None:
    torch.manual_seed(0)
    network = Affinity(build_method(staged_recipe("cam"), 3).network.backbone, 3).network.eval()
    images = torch.randn(2, 3, STAGED_SIDE, STAGED_SIDE)
    with torch.no_grad():
        found = network(images)
        assert torch.equal(found, network.heads(network.backbone.taps(images)))
    assert not torch.allclose(found[0], found[1])


def test_the_last_layer_begins_four_times_as_wide_as_xavier() -> None:
    weight = AffinityHead().f9.weight
    bound = 4 * math.sqrt(6 / (448 + 448))
    assert bound * 0.99 < float(weight.abs().max()) <= bound


def test_the_loss_is_a_quarter_of_each_kind_of_alike_pairs_and_half_of_unlike_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    features, labels = (
        torch.rand(2, 5, 12, 12, generator=generator),
        torch.randint(0, 3, (2, 12, 12), generator=generator),
    )
    loss, background, foreground, negative = (float(part) for part in affinity_loss(features, labels))
    assert len({round(part, 4) for part in (background, foreground, negative)}) == 3
    assert math.isclose(loss, background / 4 + foreground / 4 + negative / 2, rel_tol=1e-5)


def test_features_grow_as_if_pixels_were_areas() -> None:
    grown = affinitynet._resize(torch.tensor([[[[0.0, 4.0]]]]), (1, 4))
    assert grown.flatten().tolist() == [0, 1, 3, 4]
