"""SeCo's vectors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tagmask.engine.optim import lr_factor
from tagmask.methods.base import segmentation_loss
from tagmask.methods.seco import tag_views
from tagmask.methods.seco_losses import global_contrast, local_contrast, move_prototypes, patch_token_contrast
from tagmask.models.backbone import Backbone
from tagmask.models.published.seco import network_state, vit_options
from tagmask.models.tag_network import TagNetwork
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.labels import present_tags, pseudo_masks, region_map, take_channels, to_labels
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.load import BackboneConfig, OptimizerConfig
from tests.golden_checks import Vectors, assert_close, check, tensor


@check("seco_multiscale_cam")
def multiscale_cam(vectors: Vectors) -> None:
    kernels = [tensor(vectors[f"param_{name}_conv"]) for name in ("aux", "last")]

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(F.conv2d(images, kernel, stride=16) for kernel in kernels)

    images = tensor(vectors["in_image"])
    scales = vectors["param_scales"].tolist()
    for plain in (None, forward(images)):
        aux, last = multiscale_cams(forward, images, scales, plain)
        assert_close(aux, vectors["out_aux_cam"])
        assert_close(last, vectors["out_last_cam"])


@check("seco_cam_labels")
def cam_labels(vectors: Vectors) -> None:
    cams, tags, boxes = (tensor(vectors[f"in_{name}"]) for name in ("cams", "tags", "boxes"))
    low, high, plain = (float(vectors[f"param_{name}"]) for name in ("low", "high", "background"))
    channels, ids = present_tags(tags, int(tags.sum(1).max()))
    compact = take_channels(cams, channels), (ids > 0).float()
    assert_close(cams * tags[:, :, None, None], vectors["out_valid_cam"])
    for maps, present, names in ((cams, tags, None), (*compact, ids)):
        labels = to_labels(maps, present, low=low, high=high, boxes=boxes, ids=names)
        assert torch.equal(labels, tensor(vectors["out_label"]))
        labels = to_labels(maps, present, low=plain, high=plain, ids=names)
        assert torch.equal(labels, tensor(vectors["out_label_plain"]))
        regions = region_map(maps, present, low=low, high=high, boxes=boxes, ids=names)
        assert torch.equal(regions, tensor(vectors["out_region_map"]))


@check("seco_ptc_loss")
def ptc_loss(vectors: Vectors) -> None:
    features = tensor(vectors["in_features"], requires_grad=True)
    loss = patch_token_contrast(features, tensor(vectors["in_labels"]))
    loss.backward()
    assert_close(loss, vectors["out_loss"])
    assert_close(features.grad, vectors["out_grad_features"])


@check("seco_lil_loss")
def lil_loss(vectors: Vectors) -> None:
    queries = tensor(vectors["in_queries"], requires_grad=True)
    tags = tensor(vectors["in_query_tags"])
    keys = torch.cat([tensor(vectors["in_keys"]), tensor(vectors["in_queue"])])
    key_tags = torch.cat([tags, tensor(vectors["in_queue_tags"])])
    loss, revised = local_contrast(queries, tags, keys, key_tags, temperature=float(vectors["param_temperature"]))
    loss.backward()
    assert_close(loss, vectors["out_loss"])
    assert torch.equal(revised, tensor(vectors["out_revised_tags"]))
    assert_close(queries.grad, vectors["out_grad_queries"])


@check("seco_lig_loss")
def lig_loss(vectors: Vectors) -> None:
    queries = tensor(vectors["in_queries"], requires_grad=True)
    prototypes, tags = tensor(vectors["in_prototypes"]), tensor(vectors["in_tags"])
    loss = global_contrast(queries, tags, prototypes, temperature=float(vectors["param_temperature"]))
    loss.backward()
    # A loss of exactly 0 has gradients of rounding size; they are held to the scale of the inputs.
    torch.testing.assert_close(loss.reshape(1), tensor(vectors["out_loss"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(queries.grad, tensor(vectors["out_grad_queries"]), rtol=1e-5, atol=1e-6)


@check("seco_prototypes")
def prototypes(vectors: Vectors) -> None:
    moved = move_prototypes(
        tensor(vectors["in_prototypes"]),
        tensor(vectors["in_class_tokens"]),
        tensor(vectors["in_single_tag"]),
        float(vectors["param_momentum"]),
    )
    assert_close(moved, vectors["out_prototypes"])


@check("seco_patch_tags")
def patch_tags(vectors: Vectors) -> None:
    regions, corners = tensor(vectors["in_region_map"]), tensor(vectors["in_patch_top_left"])
    # The vector knows an image's tags only by its region map.
    present = [set(image.unique().tolist()) - {-1, 0, 255} for image in regions]
    single = torch.tensor([classes.pop() if len(classes) == 1 else 0 for classes in present])
    tags = tag_views(
        regions,
        corners,
        int(vectors["param_patch"]),
        float(vectors["param_area"]),
        single,
        count_ids=True,
        empty_tag=1,
    )
    assert torch.equal(tags, tensor(vectors["out_tags"]))


@check("seco_pseudo_mask")
def pseudo_mask(vectors: Vectors) -> None:
    images, cams, tags, boxes = (tensor(vectors[f"in_{name}"]) for name in ("image", "valid_cam", "tags", "boxes"))

    def refine(scores: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(images, size=scores.shape[-2:], mode="bilinear", align_corners=False)
        return pixel_adaptive_refinement(small, scores)

    channels, ids = present_tags(tags, int(tags.sum(1).max()))
    compact = take_channels(cams, channels), (ids > 0).float()
    for maps, present, names in ((cams, tags, None), (*compact, ids)):
        labels = pseudo_masks(maps, present, high=0.7, low=0.25, boxes=boxes, refine=refine, ids=names)
        differing = (labels != tensor(vectors["out_label"])).float().mean()
        assert differing <= 0.001, f"{differing:.2%} of the pixels differ"


@check("seco_seg_loss")
def seg_loss(vectors: Vectors) -> None:
    logits = tensor(vectors["in_logits"], requires_grad=True)
    loss = segmentation_loss(logits, tensor(vectors["in_labels"]), background=True)
    loss.backward()
    assert_close(loss, vectors["out_loss"])
    assert_close(logits.grad, vectors["out_grad_logits"])


@check("seco_lr_schedule")
def lr_schedule(vectors: Vectors) -> None:
    config = OptimizerConfig()
    for step, backbone, heads in zip(
        vectors["out_step"], vectors["out_lr_backbone"], vectors["out_lr_heads"], strict=True
    ):
        factor = lr_factor(int(step), 20_000, config)
        assert factor * config.lr == pytest.approx(float(backbone), rel=1e-5)
        assert factor * config.lr * config.head_scale == pytest.approx(float(heads), rel=1e-5)


@check("seco_network")
def network(vectors: Vectors) -> None:
    state = {name.removeprefix("state_"): tensor(value) for name, value in vectors.items() if name.startswith("state_")}
    renamed = network_state(state, "vector")
    config = BackboneConfig(mean=(0.0,) * 3, std=(1.0,) * 3, options=vit_options(renamed, "vector"))
    outputs = vectors["out_decoder"].shape[1]
    model = TagNetwork(Backbone(config), outputs - 1, outputs, pooling="max").eval()
    model.load_state_dict(renamed)
    with torch.no_grad():
        images = tensor(vectors["in_image"])
        given = model(images)
        maps = model.maps(given.tokens)
        assert_close(given.logits, vectors["out_logits"])
        assert_close(given.aux_logits, vectors["out_aux_logits"])
        assert_close(given.tokens.patches, vectors["out_features"])
        assert_close(maps[0], vectors["out_cam"])
        assert_close(maps[1], vectors["out_aux_cam"])
        assert_close(model.decoder(given.tokens.patches), vectors["out_decoder"])
