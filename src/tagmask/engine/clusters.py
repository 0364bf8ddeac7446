"""SC-CAM's clusters of a training set: image features grouped class by class, written to a file and read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.data.dataset import Dataset, Record
from tagmask.data.files import replacing
from tagmask.data.images import open_image
from tagmask.engine.photographs import network_size
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError, first_line
from tagmask.methods.base import Method
from tagmask.methods.sccam import ABSENT
from tagmask.ops.distributed import join_shares, share
from tagmask.recipes.load import InferenceConfig

CLUSTERS = "clusters.npz"


def write_clusters(place: Path, former: Method, dataset: Dataset, config: InferenceConfig) -> None:
    """Group each class's images by the features of the round before; images that do not open bear no class.

    Args:
        place: folder for `clusters.npz`.
        former: the classifier of the round before, in eval mode, on its device.
        dataset: the training records.
        config: the size at which images are seen.
    """
    features, opened = (
        join_shares(part, len(dataset)) for part in pooled_features(former, share(dataset.records), config)
    )
    if features is None or opened is None:  # the first process clusters
        return
    tags = dataset.tag_matrix() * opened[:, None]
    assignment = former.cluster(features, tags)
    with replacing(place / CLUSTERS) as temporary, temporary.open("wb") as file:
        np.savez(file, assignment=assignment)


def read_clusters(place: Path, dataset: Dataset) -> Tensor:
    """Read the clusters (N, K) that `write_clusters` wrote of these images.

    Raises:
        TagmaskError: they are damaged, of other images, or of other tags.
    """
    try:
        with np.load(place / CLUSTERS, allow_pickle=False) as arrays:
            assignment = arrays["assignment"].astype(np.int64)
    except Exception as error:  # a damaged archive makes NumPy and zipfile raise nearly anything
        raise TagmaskError(
            f"{place / CLUSTERS}: damaged ({first_line(error)}); cluster anew with --from {place.name}"
        ) from None
    bears = dataset.tag_matrix() > 0
    if assignment.shape != bears.shape or (assignment[~bears] != ABSENT).any():
        raise TagmaskError(f"{place / CLUSTERS}: of other training data; cluster anew with --from {place.name}")
    return torch.from_numpy(assignment)


@torch.inference_mode()
def pooled_features(
    method: Method, records: Sequence[Record], config: InferenceConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the pooled features of images, one by one.

    Returns:
        features (N, D) float32, and (N,) bool, whether each image opened; the features of one that did not are 0.
    """
    device = next(method.parameters()).device
    backbone = method.network.backbone
    features = np.zeros((len(records), backbone.width), dtype=np.float32)
    opened = np.zeros(len(records), dtype=bool)
    for row, record in enumerate(track(records, "features", len(records))):
        try:
            image = open_image(record.image)
        except TagmaskError:
            continue  # the training has named it
        pixels = np.array(image.resize(network_size(image.width, image.height, config)))
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device).float() / 255
        features[row] = method.pooled_features(backbone.normalise(images))[0].float().cpu().numpy()
        opened[row] = True
    return features, opened
