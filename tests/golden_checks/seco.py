"""SeCo's vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tagmask.cam.labels import present_tags, pseudo_masks, region_map, take_channels, to_labels
from tagmask.cam.multiscale import multiscale_cams
from tagmask.methods.contrast import global_contrast, local_contrast, move_prototypes, patch_token_contrast
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
