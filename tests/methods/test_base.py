"""The losses that several methods share, and what a method says of itself unless it says otherwise."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods import base
from tagmask.methods.base import Method, Round, classification_loss, enlarge, refined_pseudo_masks, segmentation_loss
from tagmask.methods.registry import build_method
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.labels import pseudo_masks
from tagmask.ops.multi_scale import multi_scale_loss
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.sections import PseudoMaskConfig, TrainingConfig
from tests.conftest import tiny_recipe

IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_tags_that_nobody_knows_are_left_out_of_the_mean() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [3.0, 5.0, 0.5]])
    tags, known = torch.tensor([[1.0, 0, 0], [1, 1, 0]]), torch.tensor([[1.0, 1, 0], [0, 1, 0]])
    expected = (math.log(2) + math.log(1 + math.exp(2)) + math.log(1 + math.exp(-5))) / 3
    assert float(classification_loss(logits, tags, known)) == pytest.approx(expected, rel=1e-5)
    assert classification_loss(logits.bfloat16(), tags, known).dtype == torch.float32
    assert float(classification_loss(logits, tags, known * 0)) == 0


def test_background_and_foreground_weigh_the_same_whatever_their_areas() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(2, 4, 5, dtype=torch.int64)
    labels[0, 0], labels[1, 1, :2], labels[:, 3] = 1, 2, 255
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    expected = each[labels == 0].mean() / 2 + each[(labels == 1) | (labels == 2)].mean() / 2
    torch.testing.assert_close(segmentation_loss(logits, labels, True), expected)
    assert segmentation_loss(logits.bfloat16(), labels, True).dtype == torch.float32
    only = torch.where(labels == 0, 255, labels)
    torch.testing.assert_close(segmentation_loss(logits, only, True), each[only != 255].mean() / 2)


def test_without_background_channel_c_is_label_c_plus_one() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(1, 4, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    labels[:, 3] = 255
    each = F.cross_entropy(logits[:, :, :3], labels[:, :3] - 1)
    torch.testing.assert_close(segmentation_loss(logits, labels, False), each)
    assert segmentation_loss(logits.bfloat16(), labels, False).dtype == torch.float32
    assert float(segmentation_loss(logits, torch.full_like(labels, 255), False)) == 0
    # Of many classes, 255 is the channel of the label 256, which is not ignored.
    many, label = torch.randn(1, 300, 4, 5), torch.full((1, 4, 5), 256)
    expected = F.cross_entropy(many, label - 1, ignore_index=-1)
    torch.testing.assert_close(segmentation_loss(many, label, False), expected)
    torch.testing.assert_close(multi_scale_loss([many], label, background=False), expected)


def test_logits_grow_bilinearly() -> None:
    logits = torch.randn(1, 2, 3, 4)
    torch.testing.assert_close(
        enlarge(logits, (6, 9)), F.interpolate(logits, size=(6, 9), mode="bilinear", align_corners=False)
    )


class Pixels(nn.Module):
    """Of a backbone, what turns normalised images to grey levels again."""

    def pixels(self, images: Tensor) -> Tensor:
        return images * 50 + 100


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("refine", ["par", "none"])
def test_pseudo_masks_of_a_batch(refine: str, background: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    cams = torch.rand(2, 2, 24, 24, generator=generator) * 0.2
    cams[0, 0, 2:14, 2:12], cams[0, 1, 10:22, 13:23], cams[1, 0, 1:23, 2:20] = 0.95, 0.97, 0.99
    ids, boxes = torch.tensor([[2, 3], [1, 0]]), torch.tensor([[0, 24, 0, 24], [3, 20, 4, 24]])
    images = F.interpolate(IMAGES, size=(24, 24), mode="bilinear")
    batch = Batch(images, torch.ones(2, 3), torch.ones(2, 3), boxes, torch.arange(2), 2)
    config = PseudoMaskConfig(high=0.45, low=0.3, refine=refine)  # pyright: ignore
    small = F.interpolate(images * 50 + 100, size=(12, 12), mode="bilinear", align_corners=False)

    def plainly(scores: Tensor) -> Tensor:
        return pixel_adaptive_refinement(small, scores) if refine == "par" else scores

    expected = pseudo_masks(
        cams,
        torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        high=0.45,
        low=0.3,
        boxes=boxes,
        refine=plainly,
        ids=ids,
        background=background,
    )
    given = refined_pseudo_masks(Pixels(), batch, cams, ids, config, background)  # pyright: ignore
    assert torch.equal(given, expected)
    assert {1, 2, 3, 255} <= set(given.unique().tolist())


def test_what_a_method_says_of_itself_unless_it_says_otherwise() -> None:
    network = nn.Module()
    network.backbone = nn.Linear(2, 2)
    network.head, network.frozen = nn.Linear(2, 3), nn.Linear(2, 1).requires_grad_(False)
    network.backbone.bias.requires_grad_(False)
    method = Method(network, 3, background=False)
    assert (method.num_classes, method.background) == (3, False)
    assert (method.needs_views, method.needs_masks, method.has_decoder, method.staged) == (False, False, True, False)
    assert not method.gathers_cams
    section = tiny_recipe("cam").method
    assert Method.rounds(section, TrainingConfig()) == (Round("classifier", None, None, ""),)
    assert Method.decoder_begins(section) == 2
    assert Method.decoder_begins(tiny_recipe("full").method) == 0
    with pytest.warns(DeprecationWarning, match="num_classes"):
        assert method.classes == 3
    with pytest.raises(TagmaskError, match="Method has no class activation maps"):
        method.cams(IMAGES)
    with pytest.raises(TagmaskError, match=r"Method has no decoder.*`segmenter`"):
        method.scores(IMAGES)
    body, head = method.parameter_groups()
    assert [id(each) for each in body["params"]] == [id(network.backbone.weight)]
    assert [id(each) for each in head["params"]] == [id(network.head.weight), id(network.head.bias)]
    assert (body["head"], head["head"]) == (False, True)


@pytest.mark.parametrize("background", ["true", "false"])
def test_cams_and_scores_of_tag_networks(background: str) -> None:
    torch.manual_seed(0)
    method = build_method(tiny_recipe("cam", f"data.background={background}"), 3).eval()
    network = method.network
    with torch.no_grad():
        (expected,) = multiscale_cams(
            lambda images: (network.classifier(network.backbone(images).patches),), IMAGES, (1.0, 0.5)
        )
        torch.testing.assert_close(method.cams(IMAGES, (1.0, 0.5)), expected)
        assert not torch.allclose(method.cams(IMAGES), expected)
        torch.testing.assert_close(method.scores(IMAGES), network.decoder(network.backbone(IMAGES).patches))
        assert method.scores(IMAGES).shape[1] == (4 if background == "true" else 3)


def test_scores_are_on_the_grid_of_the_finest_features_where_the_decoder_looks_at_them() -> None:
    backbone = "backbone={name: mobilenetv2_035, options: {}}"
    for decoder, side in (("skip", 12), ("large_field", 3)):
        method = build_method(tiny_recipe("full", backbone, f"method.decoder={decoder}"), 3).eval()
        with torch.inference_mode():
            assert method.scores(IMAGES).shape == (2, 4, side, side)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("background", ["true", "false"])
def test_losses_of_plain_cam(step: int, background: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier alone before `decoder_from`; then the decoder on masks of the CAMs, with its weight."""
    torch.manual_seed(0)
    changes = ("method.decoder_weight=0.3", "method.scales=[1.0,0.5]", "method.pooling=max")
    recipe = tiny_recipe("cam", f"data.background={background}", *changes)
    method = build_method(recipe, 3)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    boxes = torch.tensor([[0, 48, 0, 48], [0, 40, 8, 48]])
    batch = Batch(IMAGES, tags, torch.ones(2, 3), boxes, torch.arange(2), 2)
    losses = method(batch, step)
    outputs = method.network(IMAGES)
    strongest = outputs.tokens.patches.amax(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(losses["cls"], F.multilabel_soft_margin_loss(outputs.logits, tags))
    torch.testing.assert_close(outputs.logits, method.network.classifier(strongest).flatten(1))
    if step < 2:
        assert set(losses) == {"cls", "loss"}
        torch.testing.assert_close(losses["loss"], losses["cls"])
        return
    cams = method.cams(IMAGES, (1.0, 0.5)).detach()
    compact = torch.stack([cams[0, [0, 2]], cams[1, [1, 0]]])
    ids = torch.tensor([[1, 3], [2, 0]])
    masks = refined_pseudo_masks(
        method.network.backbone,
        batch,
        compact,
        ids,
        recipe.method.pseudo_mask,  # pyright: ignore
        method.background,
    )
    logits = F.interpolate(method.network.decoder(outputs.tokens.patches), size=(48, 48), mode="bilinear")
    torch.testing.assert_close(losses["seg"], base.segmentation_loss(logits, masks, method.background))
    torch.testing.assert_close(losses["loss"], losses["cls"] + 0.3 * losses["seg"])


@pytest.mark.parametrize("copies", [[], [0.5]])
def test_losses_of_full_supervision_without_background(copies: list[float]) -> None:
    torch.manual_seed(0)
    recipe = tiny_recipe({"name": "full", "copies": copies}, "data.background=false")
    method = build_method(recipe, 3)
    masks = torch.randint(1, 4, (2, 48, 48), generator=torch.Generator().manual_seed(1))
    masks[:, :6] = 255
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    batch = Batch(IMAGES, tags, torch.ones(2, 3), torch.zeros(2, 4), torch.arange(2), 2, masks=masks)
    losses = method(batch, 0)
    outputs = method.network(IMAGES)
    if not copies:
        logits = F.interpolate(method.network.decoder(outputs.tokens.patches), size=(48, 48), mode="bilinear")
        torch.testing.assert_close(losses["seg"], F.cross_entropy(logits[:, :, 6:], masks[:, 6:] - 1))
        torch.testing.assert_close(losses["cls"], F.multilabel_soft_margin_loss(outputs.logits, tags))
        torch.testing.assert_close(losses["loss"], losses["cls"] + losses["seg"])
    else:
        assert set(losses) == {"loss", "seg"}
        whole = [
            method.network.decoder(method.network.backbone(images).patches)
            for images in (IMAGES, F.interpolate(IMAGES, size=(24, 24), mode="bilinear"))
        ]
        whole.append(torch.maximum(whole[0], F.interpolate(whole[1], size=(6, 6), mode="bilinear")))
        torch.testing.assert_close(method.scores(IMAGES), whole[-1])
        expected = torch.zeros(())
        for own in whole:
            cells = own.shape[-1]
            centres = (2 * torch.arange(cells) + 1) * 48 // (2 * cells)
            targets = masks[:, centres[:, None], centres]
            expected = expected + F.cross_entropy(own, torch.where(targets == 255, 255, targets - 1), ignore_index=255)
        torch.testing.assert_close(losses["loss"], expected)
