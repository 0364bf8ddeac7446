"""A recipe of somebody else builds a network of known keys and bounded size, or none."""

from __future__ import annotations

from typing import Any

import pytest

from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig, load_recipe, recipe_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_path": "/etc/passwd"}, "unknown key 'checkpoint_path'"),
        ({"pretrained_cfg": {"file": "evil.pth"}}, "unknown key 'pretrained_cfg'"),
        ({"pretrained_cfg_overlay": {"custom_load": True}}, "unknown key 'pretrained_cfg_overlay'"),
        ({"cache_dir": "/tmp"}, "unknown key 'cache_dir'"),
        ({"depth": 1_000_000}, "depth: 1000000; expected a number from 0 to 256"),
        ({"depth": -1}, "depth: -1; expected"),
        ({"depths": [3] * 257}, "depths: 257 numbers, and the most are 256"),
        ({"stages": [[[[4]]]]}, r"stages: \[4\]; expected"),
        ({"embed_dim": float("nan")}, "embed_dim: nan; expected"),
        ({"img_size": 100_000}, "img_size: 100000; expected a number from 0 to 8192"),
        ({"global_pool": "../x"}, "global_pool: '../x' is no word"),
        ({"mlp_ratio": {"a": 1}}, r"mlp_ratio: \{'a': 1\}; expected"),
    ],
)
def test_bad_input_options_of_a_backbone(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TagmaskError, match=rf"backbone\.options: .*{message}"):
        load_recipe({"method": "cam", "backbone": {"options": options}})


@pytest.mark.parametrize(
    "override", ["inference.size=100000", "inference.long_side=100000", "views.crop=100000", "inference.longest=100000"]
)
def test_bad_input_sides_of_images(override: str) -> None:
    key = override.partition("=")[0].replace(".", r"\.")
    with pytest.raises(TagmaskError, match=rf"{key}: input should be less than or equal to 8192"):
        load_recipe("cam/demo", [override])


def test_bad_input_more_parameters_than_there_is_room_for() -> None:
    config = BackboneConfig(name="vit_tiny_patch16_224", options={"embed_dim": 16_384, "depth": 256, "num_heads": 64})
    with pytest.raises(TagmaskError, match=r"would have \d+ billion parameters"):
        Backbone(config)


def test_recipes_of_the_package_are_within_the_bounds() -> None:
    assert len([load_recipe(name) for name in recipe_names()]) > 10
