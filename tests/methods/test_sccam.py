"""SC-CAM: clusters, sub-category labels, heads and loss."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.errors import TagmaskError
from tagmask.methods.sccam import (
    SubCategoryHeads,
    SubCategoryOutput,
    cluster_subcategories,
    sub_category_loss,
    sub_labels,
)

NAMES = Path(__file__).parents[1] / "golden" / "resnet38_state_dict.json"


def separated(classes: int, subclasses: int, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features around K far points a class, the tags, and the true cluster of each image."""
    generator = np.random.default_rng(0)
    owner = np.repeat(np.arange(classes), subclasses * images)
    cluster = np.tile(np.repeat(np.arange(subclasses), images), classes)
    points = generator.normal(size=(classes, subclasses, 6)) * 50
    features = points[owner, cluster] + generator.normal(size=(len(owner), 6))
    return features.astype(np.float32), np.eye(classes)[owner], cluster


def test_separated_points_are_told_apart() -> None:
    features, tags, ground_truth = separated(classes=3, subclasses=4, images=5)
    assignment, centres = cluster_subcategories(features, tags, 4)
    for index in range(3):
        rows = tags[:, index] == 1
        pairs = set(zip(ground_truth[rows].tolist(), assignment[rows, index].tolist(), strict=True))
        assert len(pairs) == 4
        for _, found in pairs:
            own = features[rows & (assignment[:, index] == found)]
            np.testing.assert_allclose(centres[index, found], own.mean(axis=0), rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 99), subclasses=st.integers(1, 4))
def test_labels_sum_to_the_tags(seed: int, subclasses: int) -> None:
    generator = np.random.default_rng(seed)
    tags = (generator.random((12, 3)) < 0.5).astype(np.float32)
    tags[0] = 0
    assignment, _ = cluster_subcategories(generator.random((12, 4), dtype=np.float32), tags, subclasses, starts=2)
    labels = sub_labels(torch.from_numpy(assignment), subclasses)
    assert labels.shape == (12, 3 * subclasses)
    blocks = labels.view(12, 3, subclasses)
    assert torch.equal(blocks.sum(dim=2), torch.from_numpy(tags))
    assert ((blocks == 0) | (blocks == 1)).all()
    if subclasses == 1:
        assert torch.equal(labels, torch.from_numpy(tags))


def test_fewer_images_than_clusters_one_image_and_none() -> None:
    tags = np.zeros((5, 3))
    tags[:3, 0] = 1
    tags[3, 1] = 1
    features = np.eye(5, dtype=np.float32)
    assignment, centres = cluster_subcategories(features, tags, 4)
    assert sorted(assignment[:3, 0].tolist()) == [0, 1, 2]
    assert assignment[3, 1] == 0
    assert (assignment[:, 2] == -1).all()
    assert (assignment[4] == -1).all()
    np.testing.assert_array_equal(centres[1, 0], features[3])
    assert not centres[0, 3].any()
    assert not centres[2].any()
    assert not sub_labels(torch.from_numpy(assignment), 4)[:, 8:].any()


def test_equal_images_are_one_cluster_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assignment, _ = cluster_subcategories(np.ones((6, 3), dtype=np.float32), np.ones((6, 1)), 3)
    assert len(set(assignment[:, 0].tolist())) == 1


def test_diverged_features_are_refused() -> None:
    features = np.ones((4, 2), dtype=np.float32)
    features[2, 1] = np.nan
    with pytest.raises(TagmaskError, match=r"image 2 .* diverged"):
        cluster_subcategories(features, np.ones((4, 1)), 2)


@pytest.mark.parametrize(("subclasses", "key"), [(None, "heads_round_0"), (10, "heads_later_rounds")])
def test_names_and_shapes_are_the_published_ones(subclasses: int | None, key: str) -> None:
    expected = {item["name"]: item["shape"] for item in json.loads(NAMES.read_text())[key]}
    heads = SubCategoryHeads(4096, 20, subclasses)
    assert {name: list(value.shape) for name, value in heads.state_dict().items()} == expected


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 99))
def test_logits_are_means_of_maps_before_rectifying(seed: int) -> None:
    torch.manual_seed(seed)
    heads, patches = SubCategoryHeads(8, 3, 2).eval(), torch.rand(2, 8, 5, 4)
    with torch.no_grad():
        output, (parent, sub) = heads(patches), heads.maps(patches)
        assert output.parent.shape == (2, 3)
        assert output.sub.shape == (2, 6)
        assert parent.shape == (2, 3, 5, 4)
        assert sub.shape == (2, 6, 5, 4)
        torch.testing.assert_close(output.features, patches.mean(dim=(2, 3)))
        assert (parent.mean(dim=(2, 3)) >= output.parent - 1e-6).all()
        assert SubCategoryHeads(8, 3, None)(patches).sub is None
        assert not torch.equal(heads.train()(patches).features, output.features)


def test_loss_of_zero_logits() -> None:
    output = SubCategoryOutput(torch.zeros(4, 20), torch.zeros(4, 200), torch.zeros(4, 8))
    losses = sub_category_loss(output, torch.ones(4, 20), torch.zeros(4, 200), torch.ones(4, 20))
    assert float(losses["loss"]) == pytest.approx(6 * math.log(2), rel=1e-5)
    assert float(losses["parent"]) == pytest.approx(math.log(2), rel=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99))
def test_loss_is_pytorch_s_and_does_not_see_unknown_tags_or_numbering(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parent, sub = torch.randn(5, 3, generator=generator), torch.randn(5, 12, generator=generator)
    tags, clusters = (torch.randint(2, shape, generator=generator).float() for shape in ((5, 3), (5, 12)))
    output = SubCategoryOutput(parent, sub, parent)
    losses = sub_category_loss(output, tags, clusters, torch.ones(5, 3), weight=2)
    margin = torch.nn.MultiLabelSoftMarginLoss()
    torch.testing.assert_close(losses["loss"], margin(parent, tags) + 2 * margin(sub, clusters))
    order = torch.randperm(12, generator=generator)
    renumbered = sub_category_loss(output._replace(sub=sub[:, order]), tags, clusters[:, order], torch.ones(5, 3))
    torch.testing.assert_close(renumbered["sub"], losses["sub"])
    known = torch.ones(5, 3)
    known[0, 1] = 0
    changed = parent.clone(), sub.clone()
    changed[0][0, 1] = 50
    changed[1][0, 4:8] = -50
    for given_output in (output, SubCategoryOutput(*changed, parent)):
        loss = sub_category_loss(given_output, tags, clusters, known)["loss"]
        torch.testing.assert_close(loss, sub_category_loss(output, tags, clusters, known)["loss"])
