"""Class balance: images of rare classes come more often than chance brings them, and their pixels are pasted as often.

Of 200 images two bear the rarest class: a training that shows every image equally often sees it in one view of a
hundred, and gives its pixels to whatever is around them.
"""

from __future__ import annotations

import numpy as np

from tagmask.data.dataset import Dataset


def repeat_factors(dataset: Dataset) -> np.ndarray:
    """Return how many times as often each image should come, (N,) float, 1 or more.

    A class that is tagged in fewer images than the median class has the factor sqrt(median / its images), every other
    class 1; an image has the largest factor of its tags.

    Source: LVIS (Gupta et al., CVPR 2019), section 5; there the threshold is a constant, here the median, so that a
    set whose classes are alike stays as it is.
    """
    counts = np.bincount(dataset.tag_pairs()[1], minlength=1)
    present = counts > 0
    if not present.any():
        return np.ones(len(dataset))
    factors = np.ones(len(counts))
    factors[present] = np.sqrt(np.maximum(1.0, np.median(counts[present]) / counts[present]))
    return np.array([max((factors[k] for k in record.tags), default=1.0) for record in dataset.records])


def balanced_epoch(factors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw the images of an epoch, as many as there are images, each as often as its share of the factors.

    An image whose share is 2.3 comes two or three times, one whose share is 0.7 once or not at all.

    Args:
        factors: (N,) positive.

    Returns:
        (N,) indices in random order.
    """
    share = np.cumsum(factors) * (len(factors) / factors.sum())
    share[-1] = len(factors)  # not a hair less by rounding
    upto = np.floor(share + random.random()).astype(np.int64)
    return random.permutation(np.repeat(np.arange(len(factors)), np.diff(upto, prepend=0)))


class Donors:
    """Draws the images that something is cut out of, to be pasted onto another.

    Args:
        balanced: whether a class is drawn first, every one equally often, and then one of its images; else any image
            is drawn, and any class in it may be cut out.
    """

    def __init__(self, dataset: Dataset, *, balanced: bool) -> None:
        self.images = len(dataset)
        self.bearers: tuple[tuple[int, np.ndarray], ...] = ()
        if balanced:
            rows, tags = dataset.tag_pairs()
            self.bearers = tuple((int(k) + 1, rows[tags == k]) for k in np.unique(tags))

    def draw(self, random: np.random.Generator) -> tuple[int, int | None]:
        """Return the index of an image, and the label id to cut out of it; None is any."""
        if not self.bearers:
            return int(random.integers(self.images)), None
        label, images = self.bearers[int(random.integers(len(self.bearers)))]
        return int(images[int(random.integers(len(images)))]), label
