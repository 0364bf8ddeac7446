"""ResNet-38: names, shapes, strides and what is frozen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tagmask.models.resnet38 import FROZEN_STEM, ResNet38

NAMES = Path(__file__).parents[1] / "golden" / "resnet38_state_dict.json"


def test_names_and_shapes_are_the_published_ones() -> None:
    expected = {item["name"]: item["shape"] for item in json.loads(NAMES.read_text())["backbone"]}
    with torch.device("meta"):
        network = ResNet38()
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == 105_070_912
    assert network.widths == (512, 1024, 4096)


def test_43_convolutions_of_which_the_stem_is_frozen() -> None:
    with torch.device("meta"):
        network = ResNet38()
    convolutions = [name for name, value in network.named_parameters() if value.dim() == 4]
    assert len(convolutions) == 43
    network.freeze()
    free = {name for name, value in network.named_parameters() if value.requires_grad}
    assert free == {name for name in convolutions if name.split(".")[0] not in FROZEN_STEM}


@pytest.mark.parametrize(
    ("size", "grid"), [((224, 224), (28, 28)), ((375, 500), (47, 63)), ((366, 500), (46, 63)), ((183, 250), (23, 32))]
)
def test_stride(size: tuple[int, int], grid: tuple[int, int]) -> None:
    network = ResNet38(width=1 / 16).eval()
    with torch.no_grad():
        taps = network(torch.zeros(1, 3, *size))
    assert [tuple(tap.shape) for tap in taps] == [(1, width, *grid) for width in network.widths]


def test_nothing_frozen_moves_in_a_training_step() -> None:
    network = ResNet38(width=1 / 16).freeze().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=5e-4, weight_decay=5e-4)
    network(torch.randn(2, 3, 24, 24)).conv6.sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for name in before if "bn" in name or name.split(".")[0] in FROZEN_STEM}
    assert changed == set(before) - frozen


def test_dropout_only_in_training() -> None:
    network = ResNet38(width=1 / 16).freeze()
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        assert not torch.equal(network.train()(images).conv6, network(images).conv6)
        assert torch.equal(network.eval()(images).conv6, network(images).conv6)
