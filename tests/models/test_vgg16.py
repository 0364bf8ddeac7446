"""VGG-16 in RCA's form."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from tagmask.models.vgg16 import Vgg16


def test_names_and_shapes_are_torchvision_s() -> None:
    with torch.device("meta"):
        ours, theirs = Vgg16(), torchvision.models.vgg16()
    expected = {name: value.shape for name, value in theirs.state_dict().items() if name.startswith("features.")}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    assert sum(parameter.numel() for parameter in ours.parameters()) == 14_714_688


def test_stride_8_and_dilated_last_stage() -> None:
    network = Vgg16(stages=((4, 4), (4, 4), (4,), (4,), (6, 6)))
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 368, 368))[-1].shape == (2, 6, 46, 46)
    dilations = [layer.dilation for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert dilations == [(1, 1)] * 6 + [(2, 2)] * 2
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in network.features) == 4


def test_up_to_the_third_pooling_it_computes_what_torchvision_s_does() -> None:
    theirs = make_layers([4, 4, "M", 6, 6, "M", 8, 8, 8, "M"], batch_norm=False)
    ours = Vgg16(((4, 4), (6, 6), (8, 8, 8), (4,), (4,))).features[: len(theirs)]
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
