from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "options", "stride"),
    [
        ("vit_tiny_patch16_224", TINY, 8),
        ("test_vit", {}, 16),
        ("test_resnet", {}, 16),
        ("test_efficientnet", {}, 16),
        ("mobilenetv2_035", {"pad_type": "same"}, 16),
    ],
)
def test_tokens_have_the_promised_shapes(name: str, options: dict[str, object], stride: int) -> None:
    backbone = Backbone(BackboneConfig(name=name, options=options)).eval()
    tokens = backbone(torch.randn(2, 3, 64, 96))
    assert backbone.stride == stride
    assert tokens.class_token.shape == (2, backbone.width)
    assert tokens.patches.shape == (2, backbone.width, 64 // stride, 96 // stride)
    assert tokens.aux.shape == (2, backbone.aux_width, 64 // stride, 96 // stride)


def test_cnn_at_output_stride_8() -> None:
    backbone = Backbone(BackboneConfig(name="test_resnet", output_stride=8)).eval()
    assert backbone(torch.randn(1, 3, 64, 64)).patches.shape[-2:] == (8, 8)


def test_vit_at_its_own_size_is_timms() -> None:
    backbone = Backbone(BackboneConfig(options=TINY)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = backbone.network.forward_features(images)
        tokens = backbone(images)
    torch.testing.assert_close(tokens.class_token, features[:, 0])
    torch.testing.assert_close(tokens.patches.flatten(2).transpose(1, 2), features[:, 1:])


def test_positions_are_those_asked_for_though_another_thread_forgets_them() -> None:
    backbone = Backbone(BackboneConfig(options=TINY)).eval()
    expected = backbone._positions(6, 9)[1]

    class Emptied(dict[Any, Any]):
        """What another thread empties as soon as anybody has looked into it or put something there."""

        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            self.clear()
            return found

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            self.clear()

    backbone._resized = Emptied(backbone._resized)
    for height, width in ((6, 9), (9, 6), (6, 9)):
        _, grid = backbone._positions(height, width)
        assert grid.shape == expected.shape
    torch.testing.assert_close(grid, expected)


def test_normalising_and_back() -> None:
    backbone = Backbone(BackboneConfig(options=TINY, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))
    images = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(backbone.pixels(backbone.normalise(images)), images * 255)


def test_batch_norm_stays_frozen_with_weights_and_learns_without(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "weights.safetensors")
    images = torch.randn(2, 3, 64, 64)
    for weights, moves in ((str(tmp_path / "weights.safetensors"), False), (None, True)):
        backbone = Backbone(BackboneConfig(name="test_resnet", weights=weights)).train()
        before = backbone.network.bn1.running_mean.clone()
        backbone(images)
        assert torch.equal(before, backbone.network.bn1.running_mean) is not moves


def test_weights_file_of_another_network_names_the_tensor(tmp_path: Path) -> None:
    save_file({"layer1.0.conv1.weight": torch.zeros(1, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(TagmaskError, match=r"other\.safetensors: 'layer1\.0\.conv1\.weight' has shape \(1, 2\), not"):
        Backbone(BackboneConfig(name="test_resnet", weights=str(tmp_path / "other.safetensors")))


@pytest.mark.parametrize(
    ("weights", "told"),
    [("nowhere.safetensors", "no such file of weights; put it at"), (".", "is a directory")],
)
def test_weights_that_are_no_file(weights: str, told: str) -> None:
    with pytest.raises(TagmaskError, match=told):
        Backbone(BackboneConfig(name="test_resnet", weights=weights))


def test_unknown_network_names_near_ones() -> None:
    with pytest.raises(TagmaskError, match=r"timm has no 'resnet_fifty'; near it: .*resnet"):
        Backbone(BackboneConfig(name="resnet_fifty"))


def test_conv_stem_is_for_vits_of_fitting_patches() -> None:
    backbone = Backbone(BackboneConfig(options=TINY, stem="conv")).eval()
    assert backbone(torch.randn(1, 3, 40, 32)).patches.shape == (1, 24, 5, 4)
    with pytest.raises(TagmaskError, match="conv is for a ViT"):
        Backbone(BackboneConfig(name="test_resnet", stem="conv"))


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit2",  # no class token
        "test_vit3",  # registers
        "test_vit4",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",  # positions of patches alone
    ],
)
def test_tokens_before_the_patches_may_be_any(name: str) -> None:
    options = {"depth": 4} if name.startswith("deit") else {}
    backbone = Backbone(BackboneConfig(name=name, options=options)).eval()
    network = backbone.network
    images = torch.randn(1, 3, *network.patch_embed.img_size)
    with torch.no_grad():
        features = network.forward_features(images)[:, network.num_prefix_tokens :]
        tokens = backbone(images)
    torch.testing.assert_close(tokens.patches.flatten(2).transpose(1, 2), features)
    if network.cls_token is None:
        torch.testing.assert_close(tokens.class_token, features.mean(dim=1))


def test_network_whose_features_are_no_map_is_named() -> None:
    with pytest.raises(TagmaskError, match="'beit_base_patch16_224' gives no map of features"):
        Backbone(BackboneConfig(name="beit_base_patch16_224", options={"depth": 2}))


def test_attention_in_bf16_on_a_cpu_is_products_near_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="test_vit", weights=None)).eval()
    copied = copy.deepcopy(backbone)
    images = torch.randn(2, 3, 48, 64)
    kernels: list[bool] = []
    attention = copied.network.blocks[0].attn
    attention.register_forward_pre_hook(lambda *_: kernels.append(attention.fused_attn))
    with torch.no_grad():
        exact = copied(images).patches
        with torch.autocast("cpu", torch.bfloat16):
            products = copied(images).patches
            monkeypatch.setattr("tagmask.models.backbone.MOST_PAIRS", 0)
            fused = copied(images).patches
        assert torch.equal(copied(images).patches, exact)
    assert kernels == [True, False, True, True]
    assert not torch.equal(products, fused)
    for found in (products, fused):
        assert (found.float() - exact).norm() < 0.02 * exact.norm()
    assert backbone.network.blocks[0].attn.fused_attn
