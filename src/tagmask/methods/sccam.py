"""SC-CAM (CVPR 2020): clusters of a class's images as labels of a harder task, whose CAMs cover more of the object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, classification_loss
from tagmask.models.backbone import Backbone
from tagmask.ops.cam import summed_cams
from tagmask.ops.kmeans import kmeans
from tagmask.recipes.stages import SccamConfig

ABSENT = -1
DROPOUT = 0.5


class SubCategories(NamedTuple):
    """What clustering found in N images of C classes, K clusters a class at most.

    Attributes:
        assignment: (N, C) int64 cluster 0..K-1 of the image in the class, -1 where it does not bear the class.
        centres: (C, K, D) float32; zeros beyond the clusters of a class with fewer than K images.
    """

    assignment: np.ndarray
    centres: np.ndarray


def cluster_subcategories(
    features: np.ndarray, tags: np.ndarray, subclasses: int, *, starts: int = 10, seed: int = 0
) -> SubCategories:
    """Group the images of each class by k-means on their features.

    An image with several classes is clustered in each of them on its own. A class with n < K images gets n clusters, a
    class without images none.

    Args:
        features: (N, D) as pooled by the classifier, neither normalised nor reduced.
        tags: (N, C) 0/1.
        subclasses: K.
        starts: runs of k-means++ of which the best is kept.
        seed: of every class's runs alike.

    Raises:
        TagmaskError: a feature is not finite.

    Source: SC-CAM (CVPR 2020), section 3.2; spec B3.3.
    """
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise TagmaskError(
            f"features of image {broken[0]} ({len(broken)} in all) are not finite: the classifier that made them "
            "diverged; train it again with a lower optimizer.lr"
        )
    assignment = np.full(tags.shape, ABSENT, dtype=np.int64)
    centres = np.zeros((tags.shape[1], subclasses, features.shape[1]), dtype=np.float32)
    for index, column in enumerate(tags.T):
        rows = np.flatnonzero(column)
        clusters = min(subclasses, len(rows))
        if not clusters:
            continue
        labels, found = kmeans(features[rows], clusters, starts=starts, seed=seed)
        assignment[rows, index], centres[index, :clusters] = labels, found
    return SubCategories(assignment, centres)


def sub_labels(assignment: Tensor, subclasses: int) -> Tensor:
    """Labels (B, C * K) 0/1 of the sub-category task from clusters (B, C); column `class * K + cluster`."""
    hot = F.one_hot(assignment.clamp(min=0), subclasses) * (assignment != ABSENT).unsqueeze(-1)
    return hot.flatten(1).to(torch.get_default_dtype())


def class_major_order(tags: np.ndarray) -> np.ndarray:
    """(N,) image rows as the reference lists them for training: by first class; those without a class come last."""
    first = np.where(tags.any(axis=1), tags.argmax(axis=1), tags.shape[1])
    return np.argsort(first, kind="stable")


class SubCategoryOutput(NamedTuple):
    """What the heads say about B images.

    Attributes:
        parent: (B, C) logits of the classes.
        sub: (B, C * K) logits of the sub-categories; None in round 0.
        features: (B, D) pooled features the heads saw; in eval mode those that are clustered.
    """

    parent: Tensor
    sub: Tensor | None
    features: Tensor


class SubCategoryHeads(nn.Module):
    """A classifier of the classes and, after round 0, one of the sub-categories, on one feature map.

    Args:
        width: D, channels of the feature map.
        classes: C.
        subclasses: K; None in round 0, whose only head is called `fc8`.

    Source: SC-CAM (CVPR 2020), section 3.2; spec B2.
    """

    def __init__(self, width: int, num_classes: int, subclasses: int | None) -> None:
        super().__init__()
        names = (
            {"fc8": num_classes} if subclasses is None else {"fc8_20": num_classes, "fc8_200": num_classes * subclasses}
        )
        for name, outputs in names.items():
            head = nn.Conv2d(width, outputs, 1, bias=False)
            nn.init.xavier_uniform_(head.weight)
            self.add_module(name, head)

    def forward(self, patches: Tensor) -> SubCategoryOutput:
        """Logits of a feature map (B, D, h, w)."""
        # Dropping pooled values is what dropping whole channels before pooling comes to.
        features = F.dropout(patches.mean(dim=(2, 3)), DROPOUT, self.training)
        logits = [head(features[:, :, None, None]).flatten(1) for head in self._heads()]
        return SubCategoryOutput(logits[0], logits[1] if len(logits) > 1 else None, features)

    def maps(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Rectified maps (B, C, h, w), and after round 0 (B, C * K, h, w), of a feature map (B, D, h, w)."""
        return tuple(head(patches).relu_() for head in self._heads())

    def _heads(self) -> Iterator[nn.Module]:
        return self.children()


def sub_category_loss(
    output: SubCategoryOutput, tags: Tensor, clusters: Tensor, known: Tensor, weight: float = 5.0
) -> dict[str, Tensor]:
    """Soft-margin losses `parent`, `sub`, and their weighted sum `loss`.

    Args:
        output: with logits of sub-categories.
        tags: (B, C) 0/1.
        clusters: (B, C * K) labels of `sub_labels`.
        known: (B, C) 0 where nobody knows the tag; left out of both.
        weight: of the sub-categories.

    Source: SC-CAM (CVPR 2020), equation 4; spec B3.4.
    """
    if output.sub is None:
        raise ValueError("round 0 has no sub-categories")
    parent = classification_loss(output.parent, tags, known)
    each = clusters.shape[1] // tags.shape[1]
    sub = classification_loss(output.sub, clusters, known.repeat_interleave(each, dim=1))
    return {"parent": parent, "sub": sub, "loss": parent + weight * sub}


class Sccam(Method):
    """One round: the classes and, after round 0, the clusters that the round before found in them.

    Args:
        clusters: (N, C) of `cluster_subcategories`, by position in the data set; none where nothing is trained.
        first: round 0, which knows no sub-categories.
    """

    clusters: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        background: bool,
        config: SccamConfig,
        *,
        clusters: Tensor | None = None,
        first: bool = False,
    ) -> None:
        super().__init__(backbone, num_classes, background, pooling="mean")
        self.config = config
        del self.network.classifier, self.network.aux_classifier, self.network.decoder
        subclasses = None if first else config.subclasses
        self.network.add_module("heads", SubCategoryHeads(backbone.width, num_classes, subclasses))
        none = torch.empty(0, num_classes, dtype=torch.int64)
        self.register_buffer("clusters", none if clusters is None else clusters, persistent=False)

    @property
    def heads(self) -> SubCategoryHeads:
        """Of the network."""
        return cast(SubCategoryHeads, self.network.get_submodule("heads"))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Classification of tags, and of clusters."""
        output = self._output(batch.images)
        if output.sub is None:
            return {"loss": classification_loss(output.parent, batch.tags, batch.known)}
        labels = sub_labels(self.clusters[batch.indices], self.config.subclasses)
        return sub_category_loss(output, batch.tags, labels, batch.known, self.config.sub_weight)

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1) of the classes' head."""
        return summed_cams(lambda views: self.heads.maps(self.network.backbone(views).patches)[0], images, scales)

    def pooled_features(self, images: Tensor) -> Tensor:
        """(B, D) features to be clustered; in eval mode."""
        return self._output(images).features

    def _output(self, images: Tensor) -> SubCategoryOutput:
        patches = self.network.backbone(images).patches
        # The heads take the mean; of a single cell it is that cell.
        return self.heads(patches.amax(dim=(2, 3), keepdim=True) if self.config.pooling == "max" else patches)

    def scores(self, images: Tensor) -> Tensor:
        """There are none: the masks come from a segmenter."""
        raise TagmaskError("SC-CAM has no decoder: give the recipe a `segmenter`, or use the CAMs (--source cam)")
