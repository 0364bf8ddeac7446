"""SC-CAM (CVPR 2020): clusters of a class's images as labels of a harder task, whose CAMs cover more of the object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, Round, TrainingSet, classification_loss
from tagmask.methods.registry import register
from tagmask.models.backbone import Backbone
from tagmask.ops.cam import merge_subclasses, summed_cams
from tagmask.ops.kmeans import kmeans
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import MethodSection, Positive, Scales, TrainingConfig

ABSENT = -1
DROPOUT = 0.5


class SccamConfig(MethodSection):
    """SC-CAM (CVPR 2020). The defaults are the released code's; its optimiser is `optimizer.name: poly_sgd`."""

    name: Literal["sccam"] = "sccam"
    pooling: Literal["max", "mean"] = Field(
        default="mean",
        description="How features are pooled; max helps where so few steps teach the mean little.",
    )
    rounds: Positive = Field(
        default=3, description="How often images are clustered and a classifier is trained anew, after the first one."
    )
    subclasses: Positive = Field(default=10, description="How many clusters a class has (K in the paper).")
    sub_weight: float = Field(default=5.0, ge=0, description="The weight of the sub-categories' loss.")
    starts: Positive = Field(default=10, description="How many runs of k-means there are, of which the best is kept.")
    first_steps: int | None = Field(
        default=None, gt=0, description="The steps of the first classifier; none takes training.steps."
    )
    stop_at: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = Field(
        default=(31 / 61, 41 / 61, 51 / 61),
        description="The fraction of the schedule at which each round's network is taken; the last serves further "
        "rounds, too.",
    )
    scales: Scales = Field(default=(1.0, 0.5, 1.5, 2.0), description="The scales of the CAMs that become masks.")


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
    """Turn clusters (B, C) into labels (B, C * K) 0/1 of the sub-category task; the column is `class * K + cluster`."""
    hot = F.one_hot(assignment.clamp(min=0), subclasses) * (assignment != ABSENT).unsqueeze(-1)
    return hot.flatten(1).to(torch.get_default_dtype())


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
    """Compute the soft-margin losses `parent` and `sub`, and their weighted sum `loss`.

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


class SccamNetwork(nn.Module):
    """Backbone and heads.

    Args:
        backbone: gives the feature map.
        heads: on the backbone's channels.
        pooling: of features before the heads, `mean` or `max`.
    """

    def __init__(self, backbone: Backbone, heads: SubCategoryHeads, pooling: str) -> None:
        super().__init__()
        self.backbone, self.heads, self.pooling = backbone, heads, pooling

    def forward(self, images: Tensor) -> SubCategoryOutput:
        """Logits and pooled features of normalised images (B, 3, H, W)."""
        patches = self.backbone(images).patches
        # The heads take the mean; of a single cell it is that cell.
        return self.heads(patches.amax(dim=(2, 3), keepdim=True) if self.pooling == "max" else patches)


@register(SccamConfig)
class Sccam(Method):
    """One round: the classes and, after round 0, the clusters that the round before found in them.

    Args:
        first: whether this is round 0, which knows no sub-categories.

    Attributes:
        clusters: (N, C) of `cluster`, by position in the training set; empty until `start_training`.
    """

    has_decoder: ClassVar[bool] = False
    staged: ClassVar[bool] = True
    network: SccamNetwork
    clusters: Tensor

    def __init__(
        self, backbone: Backbone, num_classes: int, background: bool, config: SccamConfig, *, first: bool = False
    ) -> None:
        heads = SubCategoryHeads(backbone.width, num_classes, None if first else config.subclasses)
        super().__init__(SccamNetwork(backbone, heads, config.pooling), num_classes, background)
        self.config = config
        self.register_buffer("clusters", torch.empty(0, num_classes, dtype=torch.int64), persistent=False)

    @classmethod
    def build(
        cls, backbone: Backbone, num_classes: int, background: bool, section: MethodSection, number: int = -1
    ) -> Sccam:
        """Make the method of a round; only the first, number 0, has no sub-categories."""
        assert isinstance(section, SccamConfig)
        return cls(backbone, num_classes, background, section, first=number == 0)

    @classmethod
    def rounds(cls, section: MethodSection, training: TrainingConfig) -> tuple[Round, ...]:
        """Name the first classifier and, for each round after it, the clustering and the classifier on its clusters."""
        assert isinstance(section, SccamConfig)
        found = [Round("round0", steps=section.first_steps or training.steps)]
        for number in range(1, section.rounds + 1):
            fraction = section.stop_at[min(number, len(section.stop_at)) - 1]
            stop = max(1, round(fraction * training.steps))
            found.append(Round(f"round{number}", stop=stop, clusters=f"clusters{number}"))
        return tuple(found)

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raise a TagmaskError where the recipe ends trainings otherwise than by `method.stop_at`."""
        if recipe.training.stop is not None:
            raise TagmaskError("training.stop: a round of SC-CAM ends by method.stop_at; remove training.stop")

    def start_training(self, training_set: TrainingSet) -> None:
        """Take the clusters of the training images."""
        if training_set.clusters is not None:
            self.clusters = training_set.clusters.to(self.clusters.device)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the classification of tags and, after round 0, of clusters."""
        output = self.network(batch.images)
        if output.sub is None:
            return {"loss": classification_loss(output.parent, batch.tags, batch.known)}
        labels = sub_labels(self.clusters[batch.indices], self.config.subclasses)
        return sub_category_loss(output, batch.tags, labels, batch.known, self.config.sub_weight)

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the tags of normalised images."""
        return self.network(images).parent

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1) of the classes' head."""

        def forward(views: Tensor) -> Tensor:
            return self.network.heads.maps(self.network.backbone(views).patches)[0]

        return summed_cams(forward, images, scales)

    def cams_of(self, head: str, images: Tensor, scales: Sequence[float]) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1) of the sub-categories' head: at each pixel the largest of a class.

        Source: SC-CAM (CVPR 2020), released code; spec B4.
        """
        if head != "subclasses" or not hasattr(self.network.heads, "fc8_200"):
            return super().cams_of(head, images, scales)

        def forward(views: Tensor) -> Tensor:
            return self.network.heads.maps(self.network.backbone(views).patches)[1]

        return summed_cams(forward, images, scales, merge=lambda maps: merge_subclasses(maps, self.config.subclasses))

    def pooled_features(self, images: Tensor) -> Tensor:
        """Features (B, D) to be clustered, of normalised images; in eval mode, without dropout."""
        return self.network(images).features

    def cluster(self, features: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """Cluster the images of each class by their features (N, D); see `cluster_subcategories`."""
        return cluster_subcategories(features, tags, self.config.subclasses, starts=self.config.starts).assignment
