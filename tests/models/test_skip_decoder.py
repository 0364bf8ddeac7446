"""The decoder with skip connections: what it begins as, what it looks at, and which networks have it to look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tagmask.methods.registry import build_method
from tagmask.models.backbone import Backbone
from tagmask.models.decoders import SkipDecoder
from tagmask.ops.resize import resize
from tagmask.recipes.load import BackboneConfig
from tests.conftest import tiny_recipe
from tests.methods.harness import ask

FEATURES = torch.randn(2, 12, 5, 7, generator=torch.Generator().manual_seed(0))
FINER = [
    torch.randn(2, 6, 9, 13, generator=torch.Generator().manual_seed(1)),
    torch.randn(2, 4, 18, 26, generator=torch.Generator().manual_seed(2)),
]


def test_begins_as_the_decoder_on_the_last_features() -> None:
    decoder = SkipDecoder(12, 3, [6, 4])
    logits = decoder(FEATURES, *FINER)
    torch.testing.assert_close(logits, resize(decoder.coarse(FEATURES), (18, 26)))


def test_correction_learns_from_every_grid() -> None:
    torch.manual_seed(0)
    decoder = SkipDecoder(12, 3, [6, 4])
    torch.nn.init.normal_(decoder.correction.weight)
    inputs = [each.clone().requires_grad_() for each in (FEATURES, *FINER)]
    decoder(*inputs)[0, 0].sum().backward()
    for each in inputs:
        assert each.grad is not None
        assert float(each.grad[0].abs().sum()) > 0
        assert float(each.grad[1].abs().sum()) == 0  # an image's logits are its own


def test_a_network_of_one_grid_less_has_one_skip_connection() -> None:
    assert SkipDecoder(12, 3, [4])(FEATURES, FINER[1]).shape == (2, 3, 18, 26)


@pytest.mark.parametrize(
    ("name", "output_stride", "strides"),
    [
        ("resnet18", 16, [8, 4]),
        ("resnet18", 8, [4]),
        ("mobilenetv2_035", 16, [8, 4]),
        ("convnext_atto", 32, [8, 4]),
        ("swin_tiny_patch4_window7_224", 16, [8, 4]),
        ("vit_tiny_patch16_224", 16, []),
        ("eva02_tiny_patch14_224", 16, []),
    ],
)
def test_finer_features_of_a_family(name: str, output_stride: int, strides: list[int]) -> None:
    config = BackboneConfig.model_validate({"name": name, "output_stride": output_stride})
    backbone = Backbone(config).eval()
    with torch.inference_mode():
        tokens = backbone(torch.zeros(1, 3, 224, 224))
    assert [224 // each.shape[-1] for each in tokens.finer] == strides
    assert [each.shape[1] for each in tokens.finer] == backbone.finer_widths


def test_the_deepest_features_of_a_grid_are_taken() -> None:
    """A pixel on a stage's last features depends on what the layers before it do."""
    backbone = Backbone(BackboneConfig(name="resnet18")).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        stages = backbone.network.forward_intermediates(images, intermediates_only=True)
        eighth, quarter = backbone(images).finer
    assert torch.equal(quarter, stages[1])  # the stem is stages[0]
    assert torch.equal(eighth, stages[2])


def test_full_supervision_with_it_answers_all_questions(tmp_path: Path) -> None:
    ask(tiny_recipe("full", "backbone={name: mobilenetv2_035, options: {}}", "method.decoder=skip"), tmp_path)


def test_scores_are_finer_than_the_last_features() -> None:
    recipe = tiny_recipe("full", "backbone={name: mobilenetv2_035, options: {}}", "method.decoder=skip")
    method = build_method(recipe, 3).eval()
    with torch.inference_mode():
        assert method.scores(torch.zeros(1, 3, 64, 96)).shape == (1, 4, 16, 24)


def test_a_vit_keeps_the_decoder_on_its_last_features() -> None:
    torch.manual_seed(0)
    plain = build_method(tiny_recipe("full"), 3)
    asked = build_method(tiny_recipe("full", "method.decoder=skip"), 3)
    assert list(asked.state_dict()) == list(plain.state_dict())
