"""K-means: clusters that lie apart, the starts asked for, and no warning where points are the same."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tagmask.ops.kmeans import kmeans

PLACES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]])


def test_groups_that_lie_apart_are_found() -> None:
    points = np.repeat(PLACES, 20, axis=0) + np.random.default_rng(0).normal(0, 0.1, (60, 2))
    labels, centres = kmeans(points, 3)
    assert labels.shape == (60,)
    assert centres.shape == (3, 2)
    for place, group in zip(PLACES, labels.reshape(3, 20), strict=True):
        assert len(set(group)) == 1
        np.testing.assert_allclose(centres[group[0]], place, atol=0.1)


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = np.random.default_rng(1).random((60, 4))
    first, again = kmeans(points, 5, seed=3), kmeans(points, 5, seed=3)
    assert np.array_equal(first[0], again[0])
    others = [kmeans(points, 5, starts=1, seed=seed)[0] for seed in range(4)]
    assert len({labels.tobytes() for labels in others}) > 1
    assert np.array_equal(kmeans(points, 5)[0], kmeans(points, 5, seed=0)[0])


def test_what_scikit_learn_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants of its release: they decide which sub-categories SC-CAM finds."""
    import sklearn.cluster

    asked: list[dict[str, object]] = []
    real = sklearn.cluster.KMeans

    class Noted(real):
        def __init__(self, n_clusters: int = 8, **options: object) -> None:
            asked.append({"n_clusters": n_clusters, **options})
            super().__init__(n_clusters, **options)

    monkeypatch.setattr(sklearn.cluster, "KMeans", Noted)
    kmeans(np.random.default_rng(1).random((9, 2)), 3)
    expected = {"n_clusters": 3, "init": "k-means++", "n_init": 10, "max_iter": 300, "tol": 1e-4, "random_state": 0}
    assert asked == [expected]


def test_fewer_different_points_than_clusters_are_no_cause_for_a_warning() -> None:
    points = np.repeat(PLACES, 4, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels, _ = kmeans(points, 5)
    assert len(set(labels)) == 3
