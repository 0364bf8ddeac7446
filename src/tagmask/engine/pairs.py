"""Classes that nearly always come together, told apart by the images that show one of them alone.

Where nearly every image with a face shows a body too, the tags of both are the same, and so are their CAMs. But the
pixels of a face and of a body look different to the network. So the pixels under the CAMs of such a pair are put into
two clusters by their features. The images that show one class without the other name the clusters: their pixels lie in
one of the two. From then on each pixel of the pair belongs to the class of the nearer cluster.

Nothing but tags is needed. Where too few images show one class alone, or their pixels lie in both clusters, the CAMs
stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams
from tagmask.data.dataset import Dataset, Record
from tagmask.data.images import open_image
from tagmask.data.untaught import inseparable
from tagmask.engine.pixels import features_of, spread_of
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.kmeans import kmeans
from tagmask.ops.labels import told_apart
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig

STRONG = 0.4  # a CAM above which a pixel is taken to show the pair
PIXELS = 400  # that are looked at of an image
IMAGES = 256  # that are looked at for a pair, half of them with one of its classes alone where there are so many
ALONE = 3  # images that have to show one class without the other
SURE = 0.8  # of the pixels of these images have to lie in one cluster
SHARE = 0.1  # of the pixels of images with both classes have to lie in each cluster, at the least
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Two classes and what their pixels look like.

    Attributes:
        labels: their label ids.
        centres: (2, D) of the clusters of standardised features, in the order of `labels`.
    """

    labels: tuple[int, int]
    centres: Tensor


@dataclass(frozen=True)
class Pairs:
    """All pairs that are told apart, with the network whose features they are of.

    Attributes:
        method: trained, in eval mode, on its device.
        config: says at which size images go through the network.
        pairs: at least one.
        mean, std: (D,) by which features are standardised.
    """

    method: Method
    config: InferenceConfig
    pairs: tuple[Pair, ...]
    mean: Tensor
    std: Tensor

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
        shown = [pair for pair in self.pairs if {*pair.labels} <= {*present}]
        if not shown:
            return cams
        features = features_of(self.method, image, self.config)
        rows = (features.flatten(1).t() - self.mean) / self.std
        changed = cams.clone()
        for pair in shown:
            nearer = torch.cdist(rows, pair.centres).argmin(dim=1).view(1, 1, *features.shape[-2:])
            own = [present.index(label) for label in pair.labels]
            changed[own] = told_apart(changed[own], resize(nearer.float(), cams.shape[1:])[0, 0])
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
    if not wanted:
        return None
    whole = dataset.with_context()
    spread = spread_of(method, whole.records, config)
    found: list[Pair] = []
    for indices in wanted:
        points, origins = _points(method, whole.records, indices, cams, config, spread)
        centres = _named_centres(points, origins)
        names = "{} and {}".format(*(repr(whole.classes[index]) for index in indices))
        if centres is None:
            logger.info("%s come together: no image tells what each alone looks like, their masks stay mixed", names)
            continue
        logger.info("%s come together: told apart by what images look like that show one of them alone", names)
        found.append(Pair((indices[0] + 1, indices[1] + 1), torch.from_numpy(centres).float()))
    return Pairs(method, config, tuple(found), *spread) if found else None


def _points(
    method: Method,
    records: Sequence[Record],
    indices: tuple[int, int],
    cams: Path,
    config: InferenceConfig,
    spread: tuple[Tensor, Tensor],
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features (N, D) of pixels of a pair, and (N,) which of its classes their images bear.

    That is 0 or 1 for the class that an image bears alone, and 2 for both.
    """
    kinds = {frozenset(indices): 2, frozenset(indices[:1]): 0, frozenset(indices[1:]): 1}
    groups: dict[int, list[Record]] = {0: [], 1: [], 2: []}
    for record in records:
        shown = frozenset(record.tags) & frozenset(indices)
        if shown and not {*indices} & {*record.unknown}:
            groups[kinds[shown]].append(record)
    alone = groups[0] + groups[1]
    chosen = [*_some(alone, IMAGES // 2), *_some(groups[2], IMAGES // 2)] if len(alone) >= ALONE else []
    points, origins = [np.zeros((0, len(spread[0])), np.float32)], [np.zeros(0, np.int64)]
    generator = np.random.default_rng(0)
    for record in track(chosen, "classes that come together", len(chosen)):
        try:
            maps, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            features = features_of(method, open_image(record.image), config)
        except TagmaskError:
            continue  # the stage that needs the image names it
        of_pair = torch.isin(ids, torch.tensor(indices) + 1)
        maps = resize(maps[None].float(), features.shape[-2:])[0]
        joint = maps[of_pair].amax(dim=0)
        shows = joint > STRONG
        if not of_pair.all():
            shows &= joint > maps[~of_pair].amax(dim=0)
        rows = ((features.flatten(1).t() - spread[0]) / spread[1])[shows.flatten()].numpy()
        points.append(rows[generator.permutation(len(rows))[:PIXELS]])
        origins.append(np.full(len(points[-1]), kinds[frozenset(record.tags) & frozenset(indices)]))
    return np.concatenate(points), np.concatenate(origins)


def _some(records: Sequence[Record], most: int) -> Sequence[Record]:
    """At most so many records, spread over the set."""
    return records[:: max(1, -(-len(records) // most))]


def _named_centres(points: np.ndarray, origins: np.ndarray) -> np.ndarray | None:
    """Cluster the points of a pair, and order the centres (2, D) as its classes; None where nothing names them.

    Args:
        points, origins: of `_points`.
    """
    if not (origins < 2).any() or (origins == 2).sum() < 2:
        return None
    clusters, centres = kmeans(points, 2)

    def share(kind: int, cluster: int) -> float:
        return float((clusters[origins == kind] == cluster).mean())

    for order in ([0, 1], [1, 0]):
        sure = all(share(kind, order[kind]) >= SURE for kind in (0, 1) if (origins == kind).any())
        if sure and all(share(2, cluster) >= SHARE for cluster in order):
            return centres[order]
    return None
