"""AffinityNet's and the random walk's vectors."""

from __future__ import annotations

import torch

from tagmask.methods.affinitynet import AffinityHead, affinity_loss
from tagmask.ops.affinity import (
    affinity_matrix,
    confident_labels,
    pair_affinity,
    pair_labels,
    pair_offsets,
    pair_positions,
    walk_scores,
    walk_to_labels,
)
from tests.golden_checks import Vectors, assert_close, check, tensor

STAGES = ("f8_3", "f8_4", "f8_5")


def _head(vectors: Vectors) -> AffinityHead:
    weights = {name: tensor(vectors[f"param_{name}_weight"]) for name in (*STAGES, "f9")}
    head = AffinityHead([weights[name].shape[1] for name in STAGES], [len(weights[name]) for name in STAGES])
    head.load_state_dict({f"{name}.weight": weight for name, weight in weights.items()})
    return head


@check("psa_affinity_labels")
def labels_of_pairs(vectors: Vectors) -> None:
    radius = int(vectors["param_radius"])
    labels = tensor(vectors["in_label_map"])
    height, width = labels.shape
    source, target = pair_positions(height, width, radius)
    assert torch.equal(torch.tensor(pair_offsets(radius)), tensor(vectors["param_offsets"]))
    assert torch.equal(source, tensor(vectors["out_source_index"]))
    assert torch.equal(target, tensor(vectors["out_target_index"]))
    pairs = pair_labels(labels[None], radius)
    for part, name in zip(pairs, ("background_positive", "foreground_positive", "negative"), strict=True):
        assert torch.equal(part[0].float(), tensor(vectors[f"out_{name}"]))


@check("psa_affinity_targets")
def targets(vectors: Vectors) -> None:
    low, high = (tensor(vectors[f"in_marginals_{name}_alpha"]) for name in ("low", "high"))
    labels = confident_labels(low, high, int(vectors["param_pool"]))
    assert torch.equal(labels, tensor(vectors["out_label_map"]).long())
    sums = [int(part.sum()) for part in pair_labels(labels[None])]
    assert sums == vectors["out_pair_sums"].tolist()


@check("psa_affinity_matrix")
def matrix(vectors: Vectors) -> None:
    radius = int(vectors["param_radius"])
    with torch.no_grad():
        feature = _head(vectors)([tensor(vectors[f"in_conv{stage}"]) for stage in (4, 5, 6)])
    assert_close(feature, vectors["out_feature"])
    assert_close(pair_affinity(feature, radius), vectors["out_pair_affinity"])
    assert_close(affinity_matrix(feature[0], radius=radius).to_dense(), vectors["out_dense_matrix"])


@check("psa_affinity_loss")
def loss(vectors: Vectors) -> None:
    head = _head(vectors)
    features = [tensor(vectors[f"in_conv{stage}"], requires_grad=True) for stage in (4, 5, 6)]
    labels = tensor(vectors["in_label_maps"])
    losses = affinity_loss(head(features), labels)
    losses.loss.backward()
    for value, name in zip(losses, ("loss", "background_loss", "foreground_loss", "negative_loss"), strict=True):
        assert_close(value, vectors[f"out_{name}"])
    assert [int(part.sum()) for part in pair_labels(labels)] == vectors["out_counts"].tolist()
    for feature, stage in zip(features, (4, 5, 6), strict=True):
        assert feature.grad is not None
        assert_close(feature.grad, vectors[f"out_grad_conv{stage}"])
    assert head.f9.weight.grad is not None
    assert_close(head.f9.weight.grad, vectors["out_grad_f9_weight"])


@check("psa_random_walk")
def walk(vectors: Vectors) -> None:
    affinity, cams = tensor(vectors["in_dense_matrix"]), tensor(vectors["in_cam"])
    ids = tensor(vectors["in_class_ids"]) + 1
    alpha, beta = float(vectors["param_alpha"]), float(vectors["param_beta"])
    for key in (key for key in vectors if key.startswith("out_scores_logt_")):
        logt = int(key.rpartition("_")[2])
        scores = walk_scores(affinity, cams, alpha, beta=beta, logt=logt)[0]
        assert list(scores.shape[1:]) == vectors["param_grid"].tolist()
        assert_close(scores, vectors[key], relative=1e-4)
        labels = walk_to_labels(affinity, cams, ids, alpha, beta=beta, logt=logt)[0]
        assert (labels == tensor(vectors[f"out_label_logt_{logt}"])).float().mean() >= 0.999
