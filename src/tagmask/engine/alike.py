"""CAMs joined by what the CAMs of all images say of places that look alike.

A CAM of one image leaves out parts of a thing and takes in what lies around it. Other images know better: their CAMs
light up the leg that is missing here, and the grass that is lit up here is dark in the many images that show it beside
something else, or alone. So the places of all training images are put into clusters by the features of the pretrained
network, which has not learnt from these tags and makes other mistakes than the classifier. Each cluster has a strength:
the mean over its places, in images with and without tags, of the strongest CAM there. It is added to the CAMs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.data.cam_files import SUFFIX, read_cams, write_cams
from tagmask.data.dataset import Record
from tagmask.data.images import open_image
from tagmask.engine.pretrained import Features
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError
from tagmask.ops.distributed import from_first, gather_lists, share
from tagmask.ops.kmeans import kmeans
from tagmask.ops.resize import resize

CLUSTERS = 200
PLACES, IMAGES = 30_000, 400  # that clusters are made of: places of images spread over the set
LEAST_PLACES = 10  # for each cluster
CHANNELS = 64  # that features are brought down to
FARTHEST = 2.0  # standard deviations: one channel beyond counts no more
LEAST_SPREAD = 1e-3
DARK = 1e-5  # the highest value of a CAM that lights up nowhere


@dataclass(frozen=True)
class Clusters:
    """Clusters of places by what they look like.

    Attributes:
        mean, std: (D,) of the features.
        centre, axes: (D,) and (d, D), that standardised features of length 1 are brought down by.
        centres: (C, d) of the clusters.
    """

    mean: np.ndarray
    std: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    centres: np.ndarray

    def of(self, features: Tensor) -> np.ndarray:
        """Give the cluster (h, w), 0..C-1, of each place of features (D, h, w)."""
        points = (_standardised(_rows(features), self.mean, self.std) - self.centre) @ self.axes.T
        # The nearest centre: the squared length of the points themselves is the same for all.
        nearest = ((self.centres**2).sum(axis=1) - 2 * points @ self.centres.T).argmin(axis=1)
        return nearest.reshape(features.shape[1:])


def fit_clusters(records: Sequence[Record], features: Features) -> Clusters | None:
    """Put places of some images, spread over the set, into clusters.

    Places at the border of an image are left out: what a network pads images with makes them look like one another.

    Args:
        records: the training images.
        features: of an image.

    Returns:
        at most `CLUSTERS` clusters; None where no image opens.
    """
    from sklearn.decomposition import PCA

    chosen = records[:: max(1, -(-len(records) // IMAGES))]
    parts: list[np.ndarray] = []
    for record in track(chosen, "what places look like", len(chosen)):
        try:
            found = features(open_image(record.image))
        except TagmaskError:
            continue  # training reports images that do not open
        inner = found[:, 1:-1, 1:-1] if min(found.shape[1:]) > 2 else found
        rows = _rows(inner)
        parts.append(rows[:: max(1, -(-len(rows) * len(chosen) // PLACES))])
    if not parts:
        return None
    points = np.concatenate(parts)
    mean, std = points.mean(axis=0), points.std(axis=0) + LEAST_SPREAD
    points = _standardised(points, mean, std)
    reduced = PCA(min(CHANNELS, *points.shape), random_state=0).fit(points)
    centre, axes = np.asarray(reduced.mean_), np.asarray(reduced.components_)
    points = (points - centre) @ axes.T
    _, centres = kmeans(points, max(1, min(CLUSTERS, len(points) // LEAST_PLACES)), starts=1)
    return Clusters(mean, std, centre, axes, centres)


def write_alike(
    cams: Path, records: Sequence[Record], output: Path, features: Features, *, counted: Collection[int]
) -> list[str]:
    """Write the CAMs of every image again, with the strength of the clusters added; files that are there are kept.

    Args:
        cams: folder of `NAME.npz`.
        records: the training images, all of them: each process takes its share.
        output: folder for the new CAMs.
        features: of an image, by a network that has not learnt from its tags.
        counted: the label ids whose CAMs say where things are; the others stay as they are.

    Returns:
        what is wrong with the images or CAMs of this process's share that were left out, a line each.
    """
    clusters = from_first(lambda: fit_clusters(records, features))
    skipped: list[str] = []
    maps: dict[str, np.ndarray] = {}
    sums = np.zeros((2, 0 if clusters is None else len(clusters.centres)))
    own = share(records)
    for record in track(own, "places that look alike", len(own)):
        try:
            found = features(open_image(record.image))
            own_cams, ids = read_cams(cams / f"{record.name}{SUFFIX}")
        except TagmaskError as error:
            skipped.append(str(error))
            continue
        assert clusters is not None  # at least this image opens
        places = maps[record.name] = clusters.of(found)
        strength = _strongest(own_cams, ids, counted, places.shape)
        for row, weights in enumerate((strength.numpy().ravel(), None)):
            sums[row] += np.bincount(places.ravel(), weights, minlength=sums.shape[1])
    total, places_of = np.sum(gather_lists([sums]), axis=0)
    means = torch.from_numpy(total / np.maximum(places_of, 1)).float()
    for record in own:
        path = output / f"{record.name}{SUFFIX}"
        if record.name in maps and not path.exists():
            own_cams, ids = read_cams(cams / f"{record.name}{SUFFIX}")
            changed = strengthened(own_cams, ids, means[torch.from_numpy(maps[record.name])], counted)
            write_cams(path, changed, (ids - 1).tolist())
    return skipped


def strengthened(cams: Tensor, ids: Tensor, strength: Tensor, counted: Collection[int]) -> Tensor:
    """Add the strength of clusters to an image's CAMs, and bring each back to a highest value of 1.

    Args:
        cams: (n, H, W) in [0, 1].
        ids: (n,) their label ids.
        strength: (h, w) in [0, 1], of the cluster at each place.
        counted: the label ids that it is added to. A CAM that lights up nowhere stays as it is, too.

    Returns:
        CAMs (n, H, W) in [0, 1].
    """
    if not len(cams):
        return cams
    added = cams + resize(strength[None, None], cams.shape[1:])[0]
    highest = cams.amax(dim=(1, 2), keepdim=True)
    changed = torch.isin(ids, torch.tensor([*counted], dtype=ids.dtype))[:, None, None] & (highest > DARK)
    return torch.where(changed, added / added.amax(dim=(1, 2), keepdim=True).clamp(min=DARK), cams)


def _strongest(cams: Tensor, ids: Tensor, counted: Collection[int], size: tuple[int, ...]) -> Tensor:
    """Give the strongest (h, w) of an image's CAMs (n, H, W) of the counted classes; zeros where there is none."""
    own = cams[torch.isin(ids, torch.tensor([*counted], dtype=ids.dtype))]
    return resize(own.amax(dim=0)[None, None], size)[0, 0] if len(own) else torch.zeros(*size)


def _rows(features: Tensor) -> np.ndarray:
    """Turn features (D, h, w) into rows (h * w, D)."""
    return features.flatten(1).t().numpy()


def _standardised(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Standardise rows (N, D), and bring each to the length 1."""
    points = np.clip((rows - mean) / std, -FARTHEST, FARTHEST)
    return points / np.linalg.norm(points, axis=1, keepdims=True).clip(min=LEAST_SPREAD)
