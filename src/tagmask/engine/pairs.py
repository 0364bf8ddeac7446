"""Classes that nearly always come together, told apart by the images that show one of them alone.

Where nearly every image with a face shows a body too, the tags of both are the same, and so are their CAMs. But the
pixels of a face and of a body look different to the network. So the pixels under the CAMs of such a pair are put into
two clusters. The images that show one class without the other name the clusters: their pixels lie in one of the two.

What the clusters part may also be near and far, or indoors and outdoors. So they are looked for twice, in the last
features and in earlier ones, and those are taken that most images with both classes have pixels of both clusters in, as
their tags say they must. From these clusters a linear classifier learns what parts them in the earlier features, which
know more of a pixel and less of the image around it. Each pixel of the pair then belongs to the class that it says.

Nothing but tags is needed. Where too few images show one class alone, or their pixels lie in both clusters, the CAMs
stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams
from tagmask.data.dataset import Dataset, Record
from tagmask.data.images import open_image
from tagmask.data.untaught import inseparable
from tagmask.engine.pixels import tokens_of
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.kmeans import kmeans
from tagmask.ops.labels import told_apart
from tagmask.ops.pixel_classifier import PixelClassifier, fit_pixel_classifier
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig

STRONG = 0.4  # a CAM above which a pixel is taken to show the pair
PIXELS = 400  # that are looked at of an image
IMAGES = 256  # that are looked at for a pair, half of them with one of its classes alone where there are so many
ALONE = 3  # images that have to show one class without the other
SURE = 0.8  # of the pixels of these images have to lie in one cluster
SHARE = 0.1  # of the pixels of an image, or of all, that a cluster needs to count as shown
FARTHEST = 2.0  # standard deviations: one channel beyond counts no more, so that a few odd pixels are no cluster
LEAST_SPREAD = 1e-3
PENALTY = 0.1
logger = logging.getLogger(__name__)


class Points(NamedTuple):
    """What some pixels of a pair look like.

    Attributes:
        last, early: features (N, D) of the last layer and (N, D') of an earlier one.
        kinds: (N,) which classes the pixel's image bears: 0 or 1 for one of the pair alone, 2 for both.
        images: (N,) ascending, a number for each image.
    """

    last: np.ndarray
    early: np.ndarray
    kinds: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """All pairs that are told apart, with the network whose features they are of.

    Attributes:
        method: trained, in eval mode, on its device.
        config: says at which size images go through the network.
        classifiers: of early features, at least one, each of the two label ids of a pair.
    """

    method: Method
    config: InferenceConfig
    classifiers: tuple[PixelClassifier, ...]

    @torch.no_grad()
    def corrected(self, image: Image.Image, cams: Tensor, ids: Tensor) -> Tensor:
        """Give each pixel of a pair's CAMs to one of the two classes.

        Args:
            image: RGB.
            cams: (n, H, W) of its tags at its size.
            ids: (n,) their label ids.

        Returns:
            CAMs of the same shape; unchanged where the image does not show both classes of a pair.
        """
        present = ids.tolist()
        shown = [pair for pair in self.classifiers if {*pair.labels.tolist()} <= {*present}]
        if not shown:
            return cams
        _, early = _features(self.method, image, self.config)
        changed = cams.clone()
        for pair in shown:
            second = pair.logits(early).argmax(dim=0).float()
            own = [present.index(label) for label in pair.labels.tolist()]
            changed[own] = told_apart(changed[own], resize(second[None, None], cams.shape[1:])[0, 0])
        return changed


@torch.no_grad()
def fit_pairs(
    method: Method, dataset: Dataset, cams: Path, config: InferenceConfig, *, known: Collection[int] = ()
) -> Pairs | None:
    """Find what tells the classes of each `inseparable` pair apart.

    Args:
        method: trained, in eval mode, on its device.
        dataset: the training images, with their context classes apart.
        cams: folder of `NAME.npz`.
        config: size at which images go through the network.
        known: label ids that drawn masks tell apart; pairs of two such classes are left to them.

    Returns:
        the pairs; None where there is none that can be told apart.
    """
    wanted = [pair for pair in inseparable(dataset) if not {index + 1 for index in pair} <= {*known}]
    whole = dataset.with_context()
    found: list[PixelClassifier] = []
    for indices in wanted:
        pair = _fit(_points(method, whole.records, indices, cams, config), indices)
        names = "{} and {}".format(*(repr(whole.classes[index]) for index in indices))
        if pair is None:
            logger.info("%s come together: no image tells what each alone looks like, their masks stay mixed", names)
            continue
        logger.info("%s come together: told apart by what images look like that show one of them alone", names)
        found.append(pair)
    return Pairs(method, config, tuple(found)) if found else None


def _features(method: Method, image: Image.Image, config: InferenceConfig) -> tuple[Tensor, Tensor]:
    """Features of an RGB image on the CPU: (D, h, w) of the last layer at the finest scale, (D', h, w) of an earlier
    one at all scales."""
    tokens = tokens_of(method, image, config)
    size = tokens[-1].patches.shape[-2:]
    early = torch.cat([resize(each.aux.float(), size) for each in tokens], dim=1)
    return tokens[-1].patches[0].float().cpu(), early[0].cpu()


def _points(
    method: Method, records: Sequence[Record], indices: tuple[int, int], cams: Path, config: InferenceConfig
) -> Points | None:
    """Look at the pixels where the higher of a pair's CAMs is strong; None where nothing could name clusters."""
    kinds = {frozenset(indices): 2, frozenset(indices[:1]): 0, frozenset(indices[1:]): 1}
    groups: dict[int, list[Record]] = {0: [], 1: [], 2: []}
    for record in records:
        shown = frozenset(record.tags) & frozenset(indices)
        if shown and not {*indices} & {*record.unknown}:
            groups[kinds[shown]].append(record)
    alone = groups[0] + groups[1]
    if len(alone) < ALONE:
        return None
    chosen = [*_some(alone, IMAGES // 2), *_some(groups[2], IMAGES // 2)]
    found: list[tuple[np.ndarray, ...]] = []
    generator = np.random.default_rng(0)
    for number, record in enumerate(track(chosen, "classes that come together", len(chosen))):
        try:
            maps, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            last, early = _features(method, open_image(record.image), config)
        except TagmaskError:
            continue  # the stage that needs the image names it
        of_pair = torch.isin(ids, torch.tensor(indices) + 1)
        maps = resize(maps[None].float(), last.shape[-2:])[0]
        joint = maps[of_pair].amax(dim=0)
        shows = joint > STRONG
        if not of_pair.all():
            shows &= joint > maps[~of_pair].amax(dim=0)
        places = generator.permutation(shows.flatten().nonzero().flatten().numpy())[:PIXELS]
        kind = np.full(len(places), kinds[frozenset(record.tags) & frozenset(indices)])
        rows = (each.flatten(1)[:, places].t().numpy() for each in (last, early))
        found.append((*rows, kind, np.full(len(places), number)))
    points = Points(*(np.concatenate(parts) for parts in zip(*found, strict=True))) if found else None
    if points is None or not (points.kinds < 2).any() or (points.kinds == 2).sum() < 2:
        return None
    return points


def _some(records: Sequence[Record], most: int) -> Sequence[Record]:
    """At most so many records, spread over the set."""
    return records[:: max(1, -(-len(records) // most))]


def _fit(points: Points | None, indices: tuple[int, int]) -> PixelClassifier | None:
    """Fit the classifier of a pair on the better of two clusterings; None where neither can be named."""
    if points is None:
        return None
    named = [each for each in (_named(rows, points) for rows in (points.last, points.early)) if each is not None]
    if not named:
        return None
    second = max(named, key=lambda each: _mixed(each, points))
    second = np.where(points.kinds < 2, points.kinds, second)
    weights = np.where(second == 1, 1 / max(1, (second == 1).sum()), 1 / max(1, (second == 0).sum()))
    early, labels = torch.from_numpy(points.early), torch.tensor(indices)[torch.from_numpy(second)] + 1
    mean, std = early.mean(dim=0), early.std(dim=0) + LEAST_SPREAD
    return fit_pixel_classifier(early, labels, torch.from_numpy(weights).float(), mean=mean, std=std, penalty=PENALTY)


def _named(rows: np.ndarray, points: Points) -> np.ndarray | None:
    """Cluster features (N, D), and say (N,) which pixels are of the second class; None where nothing names them."""
    standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + LEAST_SPREAD)
    clusters, _ = kmeans(standard.clip(-FARTHEST, FARTHEST), 2)

    def share(kind: int, cluster: int) -> float:
        return float((clusters[points.kinds == kind] == cluster).mean())

    for order in ([0, 1], [1, 0]):
        sure = all(share(kind, order[kind]) >= SURE for kind in (0, 1) if (points.kinds == kind).any())
        if sure and all(share(2, cluster) >= SHARE for cluster in order):
            return (clusters == order[1]).astype(np.int64)
    return None


def _mixed(second: np.ndarray, points: Points) -> float:
    """The fraction of the images with both classes that have pixels of both clusters."""
    both = points.kinds == 2
    shares = [second[both & (points.images == number)].mean() for number in np.unique(points.images[both])]
    return float(np.mean([SHARE <= share <= 1 - SHARE for share in shares]))
