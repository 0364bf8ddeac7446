"""K-means clustering, as scikit-learn runs it, with every setting stated."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def kmeans(points: np.ndarray, clusters: int, *, starts: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cluster points by k-means++, and keep the best of several runs.

    Args:
        points: (N, D), N at least `clusters`.
        clusters: how many.
        starts: how many runs; scikit-learn's default has changed between releases, so it is always given.
        seed: of all runs.

    Returns:
        labels (N,) and centres (clusters, D). Where fewer points differ, some clusters stay empty.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    runs: Any = starts  # annotated as a string in scikit-learn
    estimator = KMeans(clusters, init="k-means++", n_init=runs, max_iter=300, tol=1e-4, random_state=seed)
    with warnings.catch_warnings():
        # Warned of where fewer points differ than there are clusters, which is no fault here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = estimator.fit_predict(points)
    return labels, estimator.cluster_centers_
