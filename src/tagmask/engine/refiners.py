"""The CAMs of one image to its masks: by thresholds, PAR, dense CRF, random walk, RCA's fusion."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.dataset import Record
from tagmask.data.images import image_size, open_image
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.ops.affinity import affinity_matrix, walk_to_labels
from tagmask.ops.crf import crf_on_cams, dense_crf
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import winners, yielded
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.ops.resize import resize
from tagmask.ops.saliency import attention_scores, fuse_labels
from tagmask.recipes.stages import RefineConfig

logger = logging.getLogger(__name__)


def refined(
    image: Image.Image,
    cams: Tensor,
    ids: Tensor,
    config: RefineConfig,
    background: bool,
    companions: Mapping[int, Sequence[int]] | None = None,
) -> list[Tensor]:
    """Label an image by thresholds, PAR or a dense CRF, a map (H, W) for each member of `config`.

    An image without a tag is background everywhere; where there is no background, it is ignored. Without background a
    band `auto` has three members: the CAMs as they are; the same, but 255 where no CAM lays claim to a pixel, for the
    CRF gives it to a background of the power `alpha`; and the CAMs refined. Where some of the classes come along with
    others (`companions`, by label ids), there is a fourth: refined after they have yielded to those.
    """
    members = config.members()
    if not len(cams):
        return [torch.full((image.height, image.width), 0 if background else IGNORE)] * len(members)
    pixels = torch.from_numpy(np.array(image))
    table = F.pad(ids, (1, 0)) if background else ids
    if config.band == "auto" and not background:
        present = ids.tolist()
        yields = torch.tensor([[other in (companions or {}).get(own, ()) for other in present] for own in present])
        planes = torch.stack([cams, yielded(cams, yields)] if yields.any() else [cams])
        marginals = dense_crf(pixels, planes, preset=config.crf, present_above=-1.0)
        first, *others = (table[own] for own in winners(torch.cat([cams[None], marginals]), 1))
        (beside,) = crf_on_cams(pixels, cams, config.alpha, preset=config.crf)
        return [first, torch.where(winners(beside, 0) == 0, IGNORE, first), *others]
    if config.name == "crf" and background:
        scores = crf_on_cams(pixels, cams, *(member.alpha for member in members), preset=config.crf)
    else:
        thresholds = [torch.full_like(cams[:1], member.background_score) for member in members]
        scores = torch.stack([torch.cat([flat, cams]) if background else cams for flat in thresholds])
        # A CAM of zeros is a class that the image bears: no CRF may leave it out (`present_above`).
        if config.name == "crf":
            scores = dense_crf(pixels, scores, preset=config.crf, present_above=-1.0)
        elif config.name == "par":
            both = scores.flatten(0, 1)[None]
            scores = pixel_adaptive_refinement(pixels.permute(2, 0, 1)[None].float(), both).view_as(scores)
    return [table[own] for own in winners(scores, 1)]


@torch.inference_mode()
def walked(method: Affinity, image: Image.Image, cams: Tensor, ids: Tensor, config: RefineConfig) -> list[Tensor]:
    """Label an image by a random walk along AffinityNet's affinities, a map (H, W) for each member of `config`."""
    members = config.members()
    if not len(cams):
        return [torch.zeros(image.height, image.width)] * len(members)
    backbone, walk = method.network.backbone, config.affinity
    device = next(method.parameters()).device
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device)
    # Pad right and below to whole cells, so that the grid of features is the one the walk pools the CAMs to.
    stride = backbone.stride
    padding = (0, -image.width % stride, 0, -image.height % stride)
    features = method.features(F.pad(backbone.normalise(pixels / 255), padding))
    grid = [(side + pad) // stride for side, pad in ((image.height, padding[3]), (image.width, padding[1]))]
    if list(features.shape[-2:]) != grid:
        features = resize(features, grid)
    matrix = affinity_matrix(features[0].float(), border=walk.border)
    labels = walk_to_labels(
        matrix,
        cams.to(device),
        ids.to(device),
        *(member.alpha for member in members),
        beta=walk.beta,
        logt=walk.logt,
        stride=stride,
    )
    return list(labels)


def fused(
    image: Image.Image,
    cams: Tensor,
    ids: Tensor,
    config: RefineConfig,
    saliency: Tensor | None,
    num_classes: int | None,
) -> list[Tensor]:
    """Label an image as RCA does, by a dense CRF and a saliency map, a map (H, W) for each member of `config`.

    Source: RCA (CVPR 2022), section 4.1; spec C4.
    """
    # The lattice of the CRF is not symmetric in the colours, and the release hands it blue first.
    blue_first = torch.from_numpy(np.array(image)[..., ::-1].copy())
    scores = torch.stack([attention_scores(cams, member.alpha) for member in config.members()])
    marginals = dense_crf(blue_first, scores, preset=config.crf, present_above=-1.0)
    classes = ids if num_classes is None else ids[ids <= num_classes]
    return [fuse_labels(context_to_background(planes, ids, num_classes), classes, saliency) for planes in marginals]


def check_saliency(folder: Path, records: Sequence[Record]) -> None:
    """Raise where no image has a saliency map, and log how many have none: those are fused without (spec C6)."""
    missing = [record.name for record in records if not (folder / f"{record.name}.png").is_file()]
    if records and len(missing) == len(records):
        raise TagmaskError(
            f"refine.saliency {folder}: no map of any image, such as {missing[0]}.png; name the folder of grey "
            "pictures with the images' names, or remove refine.saliency"
        )
    if missing:
        logger.warning(
            "no saliency map of %d images, such as %s: their masks are made without", len(missing), missing[0]
        )


def saliency_map(record: Record, image: Image.Image, config: RefineConfig) -> Tensor | None:
    """Read a record's saliency map (H, W) in 0..255 at the size of `image`; None where there is none.

    Raises:
        TagmaskError: the map has not the size of the record's image file.
    """
    if config.saliency is None:
        return None
    path = config.saliency / f"{record.name}.png"
    if not path.is_file():
        return None
    found, size = open_image(path).convert("L"), image_size(record.image)
    if found.size != size:
        raise TagmaskError(
            f"{path}: {found.width} x {found.height} pixels, and its image has {size[0]} x {size[1]}; make it anew or "
            "remove it"
        )
    return torch.from_numpy(np.array(found.resize(image.size, Image.Resampling.BILINEAR)))


def at_size(cams: Tensor, image: Image.Image) -> Tensor:
    """Resize CAMs (n, h, w) to the size of the image; there may be none."""
    size = (image.height, image.width)
    return resize(cams[None], size)[0] if len(cams) else cams.new_zeros(0, *size)


def context_to_background(marginals: Tensor, ids: Tensor, num_classes: int | None) -> Tensor:
    """Add the planes of context classes to background in marginals (1 + n, H, W) of background and `ids`."""
    if num_classes is None or bool((ids <= num_classes).all()):
        return marginals
    classes, context = marginals[1:][ids <= num_classes], marginals[1:][ids > num_classes]
    return torch.cat([marginals[:1] + context.sum(dim=0), classes])
