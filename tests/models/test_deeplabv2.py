"""The ResNet-101 of DeepLab-v2: names, geometry, and what is frozen."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from tagmask.models.backbone import Backbone
from tagmask.models.deeplabv2 import DeepLabV2
from tagmask.models.weights import IMAGENET
from tagmask.recipes.load import BackboneConfig

SMALL = (1, 1, 1, 1)


@pytest.fixture(scope="module")
def small() -> DeepLabV2:
    return DeepLabV2(SMALL)


def test_names_and_shapes_are_torchvision_s() -> None:
    with torch.device("meta"):
        ours, theirs = DeepLabV2(), torchvision.models.resnet101()
    expected = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.backbone.state_dict().items()} == expected
    free = [name for name, value in ours.named_parameters() if value.requires_grad]
    assert len(free) == 104  # every convolution of ResNet-101, and no batch norm


@pytest.mark.parametrize(("size", "grid"), [(321, 41), (65, 9), (97, 13)])
def test_stride_8_with_a_pooling_that_rounds_up(small: DeepLabV2, size: int, grid: int) -> None:
    with torch.no_grad():
        early, final = small(torch.zeros(1, 3, size, size))
    assert (early.shape, final.shape) == ((1, 1024, grid, grid), (1, 2048, grid, grid))


def test_strides_and_dilations(small: DeepLabV2) -> None:
    blocks = [stage[0] for stage in (small.backbone.layer1, small.backbone.layer2, small.backbone.layer3)]
    blocks.append(small.backbone.layer4[0])
    convolutions = [(block.get_submodule("conv1"), block.get_submodule("conv2")) for block in blocks]
    found = [(first.stride, second.stride, second.dilation, second.padding) for first, second in convolutions]
    expected = [(1, 1), (2, 1), (1, 2), (1, 4)]
    assert found == [((stride,) * 2, (1, 1), (dilation,) * 2, (dilation,) * 2) for stride, dilation in expected]


def test_batch_norm_stays_as_it_is_in_training(small: DeepLabV2) -> None:
    small.train()
    norms = [module for module in small.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training or module.weight.requires_grad for module in norms)
    before = [module.running_mean.clone() for module in norms if module.running_mean is not None]
    with torch.no_grad():
        small(torch.randn(1, 3, 65, 65))
    after = [module.running_mean for module in norms if module.running_mean is not None]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_it_serves_as_a_backbone() -> None:
    backbone = Backbone(BackboneConfig(name="deeplabv2_resnet101", options={"blocks": list(SMALL)})).eval()
    assert (backbone.stride, backbone.width, backbone.aux_width) == (8, 2048, 1024)
    images = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        tokens = backbone(images)
        early, final = backbone.network(images)
    assert torch.equal(tokens.aux, early)
    assert torch.equal(tokens.patches, final)
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(IMAGENET.mean))
