"""Choose the powers of the background for masks of CAMs by what the classifier still recognises in them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams
from tagmask.data.dataset import Record
from tagmask.data.images import open_image, shrunk
from tagmask.engine.photographs import network_size
from tagmask.engine.refiners import at_size
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.crf import crf_on_cams
from tagmask.ops.labels import winners
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig
from tagmask.recipes.stages import RefineConfig

POWERS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
JOINED_POWERS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Those of CAMs joined by places that look alike, whose masks grow faster from 1 to 1.5, about where they are best."""
ENOUGH = 2 / 3  # of what the classifier recognises in whole images
LOOKED_AT, LOOKED_AT_SIDE = 48, 512  # images, and their longest side in pixels, that the choice is made on
logger = logging.getLogger(__name__)


def with_band(
    config: RefineConfig,
    cams: Path,
    records: Sequence[Record],
    classifier: Method,
    inference: InferenceConfig,
    *,
    num_classes: int | None = None,
    last: Collection[int] = (),
) -> RefineConfig:
    """Put two powers in the place of `refine.band: auto`; another band is left as it is.

    A strong background leaves masks that are too small: of an image whose other pixels are made grey, the classifier no
    longer recognises the tags. A weak one gives things what lies around them. So the band begins at the smallest power
    by which the classifier recognises two thirds of what it recognises in whole images, and ends at four times it.

    Where there is no background, the CAMs compete among themselves. The end of the band, as `alpha`, then only says
    which pixels no CAM lays claim to.

    Args:
        config: of the refinement.
        cams: folder of `NAME.npz`.
        records: name the images; some, spread over the set, are looked at.
        classifier: that the CAMs are of, in eval mode, on its device.
        inference: says at which size images go through the network.
        num_classes: K; label ids above it are of context classes, which have no masks to recognise anything in.
        last: label ids that take no part in the competition.

    Returns:
        The config with a band of two powers; where there is no background, with a band `auto` and the greater power as
        `alpha`.

    Raises:
        TagmaskError: the classifier has no tag logits.
    """
    if config.band != "auto":
        return config
    fractions = recognised(config, cams, records, classifier, inference, num_classes=num_classes, last=last)
    enough = (fractions >= ENOUGH).nonzero()
    power = _powers(config)[int(enough[0])] if len(enough) else _powers(config)[-1]
    if not classifier.background:
        logger.info("pixels that a background of the power %g wins are undecided: no CAM lays claim to them", 4 * power)
        return config.model_copy(update={"alpha": 4 * power})
    said = "background powers %g and %g: from the smallest whose masks alone tell the classifier the tags"
    logger.info(said, power, 4 * power)
    return config.model_copy(update={"band": (power, 4 * power)})


def _powers(config: RefineConfig) -> tuple[float, ...]:
    return JOINED_POWERS if config.alike else POWERS


@torch.inference_mode()
def recognised(
    config: RefineConfig,
    cams: Path,
    records: Sequence[Record],
    classifier: Method,
    inference: InferenceConfig,
    *,
    num_classes: int | None = None,
    last: Collection[int] = (),
) -> Tensor:
    """Measure how much of the tags a classifier recognises in the masks of each of `POWERS`, or `JOINED_POWERS`.

    Returns:
        (P,) sums of the tags' probabilities over the images, with all but the masks made grey, as fractions of the sum
        over whole images. They may exceed 1. Where no image has a CAM, all are 1.

    Args and errors as of `with_band`.
    """
    powers = _powers(config)
    whole, masked = torch.zeros(()), torch.zeros(len(powers))
    for record in records[:: max(1, len(records) // LOOKED_AT)]:
        try:
            own, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            image = shrunk(open_image(record.image), min(config.longest, LOOKED_AT_SIDE))
        except TagmaskError:
            continue  # is left out, and named, when its turn comes
        first = ~torch.isin(ids, torch.tensor([*last], dtype=ids.dtype))
        if num_classes is not None:
            first &= ids <= num_classes
        if not first.any():
            continue
        pixels = torch.from_numpy(np.array(image))
        won = winners(crf_on_cams(pixels, at_size(own, image)[first], *powers, preset=config.crf), 1)
        width, height = network_size(image.width, image.height, inference)
        found = _probabilities(classifier, pixels, won > 0, ids[first] - 1, (height, width))
        whole += found[0]
        masked += found[1:]
    return masked / whole if whole > 0 else torch.ones(len(powers))


def _probabilities(classifier: Method, pixels: Tensor, masks: Tensor, tag_ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum the probabilities of an image's tags: in the whole image, and with all but each mask (H, W) made grey."""
    network = classifier.network.backbone
    device = next(classifier.parameters()).device
    image = network.normalise(resize(pixels.permute(2, 0, 1)[None].float().to(device), size) / 255)
    kept = F.interpolate(masks[:, None].float().to(device), size=size, mode="nearest")
    kept = torch.cat([torch.ones_like(kept[:1]), kept])
    # One at a time: ten copies of a large image would not find room everywhere. Normalised, the mean colour is 0.
    logits = torch.cat([classifier.tag_logits(image * each) for each in kept])
    return logits.float().sigmoid()[:, tag_ids.to(device)].sum(dim=1).cpu()
