"""What a few drawn masks teach about the masks of all other images: a linear classifier of the network's features.

Tags say which classes an image shows, and CAMs roughly where. A handful of drawn masks adds what a pixel of each class
looks like to the trained network. From that a linear classifier is fitted in seconds. In making the masks of the images
that nobody drew it has two uses: it shares the CAMs out among an image's classes, and pixels that it labels otherwise
than the mask does are left undecided.

A mask or two may show a class as it seldom looks. So the classifier is tried on images whose masks nobody drew: a class
that would nearly vanish from them keeps the masks that tags alone make.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams
from tagmask.data.dataset import Record
from tagmask.data.images import open_image, shrunk
from tagmask.engine.device import on_cores
from tagmask.engine.photographs import network_size
from tagmask.engine.progress import track
from tagmask.engine.refiners import at_size, refined
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.models.backbone import Tokens
from tagmask.ops.crf import dense_crf
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import winners
from tagmask.ops.pixel_classifier import LEAST, PixelClassifier, fit_pixel_classifier, shared_out
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig
from tagmask.recipes.stages import RefineConfig

SCALES = (1.0, 2.0)  # of the image; the features of all are laid over the grid of the last, the finest
PIXELS = 30_000  # that are fitted on, of all masks together
PENALTY = 1e-3
LOOKED_AT = 64  # images that the features' means and spreads are of
LEAST_SPREAD = 1e-3
TRIED, TRIED_SIDE = 12, 512  # images that a class is tried on, and their longest side in pixels
KEPT_IMAGES, KEPT_AREA = 3 / 4, 1 / 2  # a class with less than both, of what it has by its tags alone, is given up
MEMORY = 1500.0 * TRIED_SIDE**2  # bytes that an image takes on trial, in its dense CRFs
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pixels:
    """A classifier of pixels with the network whose features it reads.

    Attributes:
        method: trained, in eval mode, on its device.
        classifier: fitted on features of `method`.
        config: says at which size images go through the network.
    """

    method: Method
    classifier: PixelClassifier
    config: InferenceConfig

    def corrected(self, image: Image.Image, cams: Tensor, ids: Tensor, preset: str) -> tuple[Tensor, np.ndarray]:
        """Correct an image's CAMs, and label the image by the classifier alone.

        Args:
            image: RGB.
            cams: (n, H, W) of its tags at its size.
            ids: (n,) their label ids.
            preset: of the dense CRF that the labels are made by.

        Returns:
            CAMs of the same shape, and labels (H, W): 0 and those of `ids` that the classifier knows. Classes that no
            mask shows keep their CAMs.
        """
        known = torch.isin(ids, self.classifier.labels)
        if not known.any():
            return cams, np.zeros(cams.shape[1:], dtype=np.int64)
        own = torch.cat([ids.new_zeros(1), ids[known]]) if self.method.background else ids[known]
        chosen = torch.searchsorted(self.classifier.labels, own)
        logits = self.classifier.logits(features_of(self.method, image, self.config))[chosen]
        probabilities = resize(logits[None], cams.shape[1:])[0].softmax(dim=0).clamp(min=LEAST)
        changed = cams.clone()
        changed[known] = shared_out(cams[known], probabilities[-int(known.sum()) :])
        marginals = dense_crf(torch.from_numpy(np.array(image)), probabilities, preset=preset, present_above=-1.0)
        return changed, own[winners(marginals, 0)].numpy()

    def agree(self, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
        """Leave undecided (255) what the classifier labels otherwise, where it knows the label that was made."""
        known = np.isin(labels, self.classifier.labels.numpy())
        return np.where(known & (labels != judged), IGNORE, labels)

    def without(self, labels: Sequence[int]) -> Pixels:
        """Leave the judgement of some labels to the CAMs."""
        return replace(self, classifier=self.classifier.without(torch.tensor(labels, dtype=torch.int64)))


@torch.no_grad()
def fit_pixels(method: Method, records: Sequence[Record], config: InferenceConfig) -> Pixels | None:
    """Fit a classifier of pixels on the drawn masks of images.

    Args:
        method: trained, in eval mode, on its device.
        records: the training images; those with a mask are fitted on, and some of all are looked at.
        config: size at which images go through the network.

    Returns:
        the classifier; None where the masks show fewer than two labels, or no background where there is one.
    """
    drawn = [record for record in records if record.mask is not None]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for record in track(drawn, "pixels of drawn masks", len(drawn)):
        try:
            found.append(_pixels_of(method, record, config, PIXELS // len(drawn)))
        except TagmaskError:
            continue  # a training that needs the image names it
    if not found:
        return None
    features, labels, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
    present = labels.unique()
    if len(present) < 2 or (method.background and present[0] != 0):
        logger.warning(
            "the drawn masks teach no other image: they show %s",
            "no background" if len(present) > 1 else "one label alone",
        )
        return None
    logger.info(
        "%d drawn masks teach the masks of the other images what %d classes look like", len(drawn), len(present)
    )
    mean, std = spread_of(method, records, config)
    return Pixels(method, fit_pixel_classifier(features, labels, weights, mean=mean, std=std, penalty=PENALTY), config)


def lost_labels(
    pixels: Pixels, records: Sequence[Record], cams: Path, refine: RefineConfig, classes: Sequence[str]
) -> list[int]:
    """Find the labels that would nearly vanish from the masks of images that nobody drew, and name them.

    Each is tried on some images whose tags say that it is there: the mask of the CAMs alone is set beside the one that
    `pixels` corrects. Masks are refined as `refine` says, by a dense CRF where it names a random walk or a fusion.

    Args:
        pixels: the classifier.
        records: the training images; those without a mask are tried.
        cams: folder of `NAME.npz`.
        refine: how masks are made; its band, if any, is of two values.
        classes: their names.

    Returns:
        label ids, ascending: of which fewer than three quarters of the images keep a pixel, and less than half of the
        area is kept.
    """
    config = refine.model_copy(update={"name": "crf"}) if refine.name in ("affinity", "fusion") else refine
    tried = {int(label): 0 for label in pixels.classifier.labels if label > 0}
    items: list[tuple[Record, list[int]]] = []
    for index in np.random.default_rng(0).permutation(len(records)).tolist():
        record = records[index]
        labels = [tag + 1 for tag in record.tags if tried.get(tag + 1, TRIED) < TRIED]
        if record.mask is None and labels:
            items.append((record, labels))
            tried.update((label, tried[label] + 1) for label in labels)

    def areas(item: tuple[Record, list[int]]) -> list[tuple[int, float, float]]:
        record, labels = item
        try:
            own, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            image = shrunk(open_image(record.image), min(refine.longest, TRIED_SIDE))
        except TagmaskError:
            return []
        own = at_size(own, image)
        changed, judged = pixels.corrected(image, own, ids, config.crf)
        first, second = (_agreed(image, maps, ids, config, pixels.method.background) for maps in (own, changed))
        second = pixels.agree(second, judged)
        return [(label, float((first == label).mean()), float((second == label).mean())) for label in labels]

    found: dict[int, list[tuple[float, float]]] = {}
    for rows in track(on_cores(areas, items, memory=MEMORY), "trying what drawn masks teach", len(items)):
        for label, before, after in rows:
            if before > 0:
                found.setdefault(label, []).append((before, after))
    lost: list[int] = []
    for label, pairs in found.items():
        before, after = np.array(pairs).T
        if (after > 0).mean() < KEPT_IMAGES and after.sum() < KEPT_AREA * before.sum():
            lost.append(label)
    if lost:
        names = ", ".join(classes[label - 1] for label in sorted(lost))
        said = "the drawn masks do not show enough of these classes to know them in other images: %s; draw more of them"
        logger.warning(said, names)
    return sorted(lost)


def _agreed(image: Image.Image, cams: Tensor, ids: Tensor, config: RefineConfig, background: bool) -> np.ndarray:
    """The mask of an image's CAMs; 255 where the two values of a band differ."""
    masks = [member.numpy() for member in refined(image, cams, ids, config, background)]
    return np.where(masks[0] == masks[-1], masks[0], IGNORE)


def features_of(method: Method, image: Image.Image, config: InferenceConfig) -> Tensor:
    """Features (D, h, w) of an RGB image on the CPU: of all `SCALES`, one after the other, on the grid of the last."""
    maps = [tokens.patches.float() for tokens in tokens_of(method, image, config)]
    return torch.cat([resize(each, maps[-1].shape[-2:]) for each in maps], dim=1)[0].cpu()


@torch.no_grad()
def tokens_of(method: Method, image: Image.Image, config: InferenceConfig) -> list[Tokens]:
    """What the backbone finds in an RGB image at each of `SCALES`, on the method's device."""
    backbone = method.network.backbone
    device = next(method.parameters()).device
    width, height = network_size(image.width, image.height, config)
    found = []
    for scale in SCALES:
        seen = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].to(device)
        found.append(backbone(backbone.normalise(pixels.float() / 255)))
    return found


def spread_of(method: Method, records: Sequence[Record], config: InferenceConfig) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation (D,) of the features of some images, spread over the set; none is 0."""
    sums = squares = torch.zeros(())
    pixels = 0
    for record in records[:: -(-len(records) // LOOKED_AT)]:
        try:
            rows = features_of(method, open_image(record.image), config).flatten(1).double()
        except TagmaskError:
            continue
        sums, squares, pixels = sums + rows.sum(dim=1), squares + rows.square().sum(dim=1), pixels + rows.shape[1]
    mean = sums / pixels
    return mean.float(), (squares / pixels - mean.square()).clamp(min=0).sqrt().float() + LEAST_SPREAD


def _pixels_of(method: Method, record: Record, config: InferenceConfig, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and weights of some pixels of a mask: of each label as many, with the weight of its area."""
    image = open_image(record.image)
    assert record.mask is not None
    mask = record.mask.load(image.height, image.width)
    features = features_of(method, image, config)
    height, width = features.shape[-2:]
    small = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    labels = torch.from_numpy(small.astype(np.int64)).flatten()
    rows: list[Tensor] = []
    weights: list[Tensor] = []
    decided = labels != IGNORE
    present = labels[decided].unique()
    for label in present:
        places = (labels == label).nonzero().squeeze(1)
        kept = places[:: -(-len(places) // max(1, most // len(present)))]
        rows.append(kept)
        weights.append(torch.full((len(kept),), len(places) / int(decided.sum()) / len(kept)))
    chosen = torch.cat(rows) if rows else labels.new_zeros(0, dtype=torch.int64)
    part = torch.cat(weights) if weights else torch.zeros(0)
    return features.flatten(1)[:, chosen].t(), labels[chosen], part
