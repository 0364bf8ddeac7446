"""A linear classifier of features at pixels: fitted on labelled pixels, and joined with the CAMs of tags."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-3  # of a probability or a CAM, so that its logarithm stays finite
ITERATIONS = 80  # of L-BFGS


class PixelClassifier(NamedTuple):
    """The weights of a linear classifier of standardised features.

    Attributes:
        labels: (L,) int64, ascending, the label ids that it tells apart.
        weight, bias: (L, D) and (L,).
        mean, std: (D,) of the features that it was fitted on.
    """

    labels: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Logits (L, h, w) of features (D, h, w)."""
        rows = (features.flatten(1).t().float() - self.mean) / self.std
        return (rows @ self.weight.t() + self.bias).t().view(-1, *features.shape[1:])

    def without(self, labels: Tensor) -> PixelClassifier:
        """Forget some of the labels (n,); the others' logits stay as they are."""
        kept = ~torch.isin(self.labels, labels)
        return self._replace(labels=self.labels[kept], weight=self.weight[kept], bias=self.bias[kept])


def fit_pixel_classifier(
    features: Tensor, labels: Tensor, weights: Tensor, *, mean: Tensor, std: Tensor, penalty: float
) -> PixelClassifier:
    """Fit by weighted cross-entropy, in which frequent labels count by the root of their frequency alone.

    Args:
        features: (N, D).
        labels: (N,) int64 label ids, without 255; at least one pixel.
        weights: (N,) of the pixels, positive.
        mean, std: (D,) by which features are standardised: of many images, for those of a few say little of the rest.
        penalty: on the sum of the squared weights, beside the mean cross-entropy.

    Returns:
        the classifier of the labels that occur; the same inputs give the same classifier.
    """
    present, targets = labels.unique(return_inverse=True)
    rows = (features - mean) / std
    frequency = torch.zeros(len(present)).index_add_(0, targets, weights)
    weights = weights * frequency.rsqrt()[targets]
    weights = weights / weights.sum()
    weight = torch.zeros(len(present), rows.shape[1], requires_grad=True)
    bias = torch.zeros(len(present), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = F.cross_entropy(rows @ weight.t() + bias, targets, reduction="none")
        value = (entropy * weights).sum() + penalty * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return PixelClassifier(present, weight.detach(), bias.detach(), mean, std)


def shared_out(cams: Tensor, probabilities: Tensor) -> Tensor:
    """Share the CAMs out anew among an image's classes; how strong the strongest is at a pixel stays as it was.

    A class's part is its CAM times the root of its probability. So probabilities tell apart the classes whose CAMs are
    alike, such as classes that always come together. What competes with the background does not change.

    Args:
        cams: (n, H, W) in [0, 1].
        probabilities: (n, H, W) in [0, 1] of the same classes.
    """
    if len(cams) < 2:
        return cams
    parts = cams.clamp(min=LEAST) * probabilities.clamp(min=LEAST).sqrt()
    return cams.amax(dim=0) * parts / parts.amax(dim=0)
