"""K-means, as scikit-learn runs it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def kmeans(points: np.ndarray, clusters: int, *, starts: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The best of several runs of k-means++.

    Args:
        points: (N, D), N at least `clusters`.
        starts: runs; their default has changed between releases of scikit-learn, so it is always given.

    Returns:
        labels (N,) and centres (clusters, D). Where fewer points differ, some clusters stay empty.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    runs: Any = starts  # annotated as a string in scikit-learn
    estimator = KMeans(clusters, init="k-means++", n_init=runs, max_iter=300, tol=1e-4, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = estimator.fit_predict(points)
    return labels, estimator.cluster_centers_
