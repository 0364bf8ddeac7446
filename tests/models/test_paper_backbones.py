"""The papers' own networks as backbones."""

from __future__ import annotations

import pytest
import torch

from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig

STAGES = [[4], [4], [8], [8], [16]]


def test_resnet38_gives_tokens_and_the_taps_of_affinity_net() -> None:
    backbone = Backbone(BackboneConfig(name="resnet38", options={"width": 1 / 16}, freeze_norm=True)).train()
    images = torch.rand(2, 3, 40, 33)
    tokens = backbone(images)
    assert (backbone.width, backbone.aux_width, backbone.stride) == (256, 64, 8)
    assert tokens.patches.shape == (2, 256, 5, 5)
    assert [tap.shape[1] for tap in backbone.taps(images)] == backbone.tap_widths == [32, 64, 256]
    trained = {name.split(".")[1] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained.isdisjoint({"conv1a", "b2", "b2_1", "b2_2", "bn7"})
    assert {"b3", "b7"} <= trained
    assert float(backbone.mean[0, 0]) == pytest.approx(0.485)


def test_vgg16_gives_tokens() -> None:
    backbone = Backbone(BackboneConfig(name="vgg16_rca", options={"stages": STAGES}))
    tokens = backbone(torch.rand(1, 3, 48, 32))
    assert tokens.patches.shape == (1, 16, 6, 4)
    torch.testing.assert_close(tokens.class_token, tokens.patches.mean(dim=(2, 3)))


def test_unknown_option_is_named() -> None:
    with pytest.raises(TagmaskError, match=r"backbone\.options: resnet38 cannot be built with \{'depth': 3\}"):
        Backbone(BackboneConfig(name="resnet38", options={"depth": 3}))
