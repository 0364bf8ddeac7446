"""SC-CAM's vectors."""

from __future__ import annotations

import numpy as np
import torch

from tagmask.methods.sccam import cluster_subcategories, sub_labels
from tagmask.ops.cam import divide_by_maximum, merge_subclasses, sum_views
from tagmask.ops.labels import to_labels
from tests.golden_checks import Vectors, assert_close, check, tensor


def _summed(vectors: Vectors, prefix: str) -> torch.Tensor:
    count = sum(key.startswith(prefix) for key in vectors)
    maps = [tensor(vectors[f"{prefix}{index}"]) for index in range(count)]
    return sum_views(maps, (int(vectors["param_height"]), int(vectors["param_width"])))


def _labels(cams: torch.Tensor, vectors: Vectors) -> torch.Tensor:
    threshold = float(vectors["param_threshold"])
    return to_labels(cams[None], tensor(vectors["in_label"])[None], low=threshold, high=threshold)[0]


@check("sccam_cam_merge")
def cam_merge(vectors: Vectors) -> None:
    tags = tensor(vectors["in_label"])
    cams = divide_by_maximum(_summed(vectors, "in_map_"), tags)
    assert_close(cams, vectors["out_cam"])
    assert torch.equal(_labels(cams, vectors), tensor(vectors["out_label_map"]).long())
    assert tags[int(vectors["param_all_zero_class"])] == 1
    assert not cams[int(vectors["param_all_zero_class"])].any()


@check("sccam_subcam_merge")
def subcam_merge(vectors: Vectors) -> None:
    summed = merge_subclasses(_summed(vectors, "in_sub_map_"), int(vectors["param_subclasses"]))
    cams = divide_by_maximum(summed, tensor(vectors["in_label"]))
    assert_close(cams, vectors["out_merged_cam"])
    assert torch.equal(_labels(cams, vectors), tensor(vectors["out_label_map"]).long())


@check("sccam_sub_labels")
def labels_of_clusters(vectors: Vectors) -> None:
    subclasses = int(vectors["param_subclasses"])
    assignment, centres = cluster_subcategories(
        vectors["in_features"],
        vectors["in_tags"],
        subclasses,
        starts=int(vectors["param_n_init"]),
        seed=int(vectors["param_random_state"]),
    )
    # Another release of scikit-learn may number the clusters of a class otherwise.
    expected = vectors["out_centres"]
    distances = np.linalg.norm(centres[:, :, None] - expected[:, None], axis=-1)
    names = distances.argmin(axis=2)
    assert (np.sort(names, axis=1) == np.arange(subclasses)).all()
    assert_close(torch.from_numpy(centres), np.take_along_axis(expected, names[..., None], axis=1), relative=1e-4)
    assignment = np.where(assignment >= 0, names[np.arange(len(names)), assignment], -1)
    np.testing.assert_array_equal(assignment, vectors["out_assignment"])
    np.testing.assert_array_equal(sub_labels(torch.from_numpy(assignment), subclasses), vectors["out_sub_label"])
    np.testing.assert_array_equal(class_major_order(vectors["in_tags"]), vectors["out_training_order"])


def class_major_order(tags: np.ndarray) -> np.ndarray:
    """Order the image rows (N,) as the release lists them for training: by first class, those without one last."""
    first = np.where(tags.any(axis=1), tags.argmax(axis=1), tags.shape[1])
    return np.argsort(first, kind="stable")
