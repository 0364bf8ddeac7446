"""Networks of today: tiny ones of each family, made by timm with random weights, saved, and loaded by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tagmask.engine.optim import build_optimizer
from tagmask.methods.registry import build_method
from tagmask.models.backbone import AUX_BLOCK, Backbone
from tagmask.recipes.load import BackboneConfig, load_recipe, recipe_names

SMALL = {"embed_dim": 48, "depth": 4, "num_heads": 3}
FAMILIES = [
    ("vit_small_patch14_dinov2", {**SMALL, "img_size": 70}, 70),
    ("vit_small_patch14_reg4_dinov2", {**SMALL, "img_size": 70}, 70),
    ("vit_small_patch16_dinov3", SMALL, 64),
    ("vit_small_patch16_dinov3_qkvb", SMALL, 80),
    ("eva02_tiny_patch14_224", {**SMALL, "img_size": 70}, 70),
    ("vit_base_patch16_clip_224", {**SMALL, "img_size": 64}, 64),
    ("vit_base_patch16_siglip_512", {**SMALL, "img_size": 64}, 64),
]


def saved(name: str, options: dict[str, object], folder: Path) -> tuple[torch.nn.Module, str]:
    """Make a network of timm with random weights, and save it as the hub has it."""
    torch.manual_seed(3)
    # Image size must be told to be free at once: timm makes rotary positions for a fixed grid otherwise.
    free = {"dynamic_img_size": True} if "dinov3" in name else {}
    network = timm.create_model(name, num_classes=0, **options, **free).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network, str(path)


@pytest.mark.parametrize(("name", "options", "side"), FAMILIES)
def test_loaded_network_gives_timms_patches_and_class_token(
    name: str, options: dict[str, object], side: int, tmp_path: Path
) -> None:
    network, path = saved(name, options, tmp_path)
    backbone = Backbone(BackboneConfig(name=name, options=options, weights=path)).eval()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        features = network.forward_features(images)
        if isinstance(network.norm, torch.nn.Identity):
            features = network.fc_norm(features)
        tokens = backbone(images)
    first = network.num_prefix_tokens
    torch.testing.assert_close(tokens.patches.flatten(2).transpose(1, 2), features[:, first:])
    if network.cls_token is not None:
        torch.testing.assert_close(tokens.class_token, features[:, 0])
    else:
        torch.testing.assert_close(tokens.class_token, features[:, first:].mean(dim=1))


@pytest.mark.parametrize(("name", "options", "side"), FAMILIES)
def test_images_of_any_size_lose_only_what_fills_no_patch(name: str, options: dict[str, object], side: int) -> None:
    backbone = Backbone(BackboneConfig(name=name, options=options)).eval()
    patch = backbone.stride
    assert patch == (14 if "14" in name else 16)
    images = torch.randn(1, 3, 4 * patch + 5, 7 * patch + patch - 1)
    with torch.no_grad():
        tokens = backbone(images)
        whole = backbone(images[:, :, : 4 * patch, : 7 * patch])
    assert tokens.patches.shape == tokens.aux.shape == (1, 48, 4, 7)
    torch.testing.assert_close(tokens.patches, whole.patches)


def test_auxiliary_features_of_rotary_networks_are_of_the_third_last_block() -> None:
    backbone = Backbone(BackboneConfig(name="vit_small_patch16_dinov3", options=SMALL)).eval()
    found: list[torch.Tensor] = []
    backbone.network.blocks[AUX_BLOCK].register_forward_hook(lambda module, inputs, output: found.append(output))
    with torch.no_grad():
        tokens = backbone(torch.randn(1, 3, 48, 64))
    torch.testing.assert_close(tokens.aux.flatten(2).transpose(1, 2), found[-1][:, 5:])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_networks_of_windows_take_images_of_any_size(name: str) -> None:
    options = {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    backbone = Backbone(BackboneConfig(name=name, options=options)).eval()
    assert backbone.stride == 32
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 101, 163)).patches.shape == (1, 96, 4, 5)


def test_frozen_network_stays_as_it_is_and_heads_learn() -> None:
    backbone = {"name": "vit_small_patch14_reg4_dinov2", "options": {**SMALL, "img_size": 56}, "frozen": True}
    recipe = load_recipe({"method": {"name": "cam"}, "backbone": backbone})
    method = build_method(recipe, 2).train()
    assert not method.network.backbone.network.training
    before = {name: value.clone() for name, value in method.network.backbone.state_dict().items()}
    tokens = method.network.backbone(torch.randn(2, 3, 56, 56))
    assert not tokens.patches.requires_grad
    optimizer = build_optimizer(method, recipe.optimizer)
    method.network.classifier(tokens.patches).square().mean().backward()
    head = method.network.classifier.weight.clone()
    optimizer.step()
    assert not torch.equal(method.network.classifier.weight, head)
    for name, value in method.network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["seco/dinov2", "seco/dinov3", "cam/clip", "cam/siglip"])
def test_recipes_of_todays_networks_crop_whole_patches(name: str) -> None:
    assert name in recipe_names()
    recipe = load_recipe(name)
    patch = 14 if "patch14" in recipe.backbone.name else 16
    assert recipe.views.crop % patch == 0
    assert getattr(recipe.method, "patch_size", patch) % patch == 0
    assert timm.is_model(recipe.backbone.name)
