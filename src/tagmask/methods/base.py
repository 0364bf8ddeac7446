"""What every method is to training, to prediction and to the reader, and the losses that several of them share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.data.batch import Batch
from tagmask.errors import TagmaskError
from tagmask.models.backbone import Backbone
from tagmask.models.tag_network import TagNetwork
from tagmask.ops.cam import multiscale_cams
from tagmask.ops.distributed import global_mean
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import pseudo_masks
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.ops.whole_batch import whole_batch
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import MethodSection, PseudoMaskConfig, TrainingConfig


class ParameterGroup(TypedDict):
    """Parameters that share a learning rate.

    Attributes:
        params: the parameters.
        head: whether their learning rate is multiplied by `optimizer.head_scale`.
    """

    params: list[nn.Parameter]
    head: bool


class TrainingSet(NamedTuple):
    """What a method may want to know of the images it is about to be trained on.

    Attributes:
        tags: (N, K) uint8, 0 or 1, a row an image; sparse, for most of it is 0.
        batch: images a step, over all devices.
        steps: updates of the whole training.
        side: side of the square training views, in pixels.
        clusters: (N, K) int64 of `Method.cluster`, where the round's recipe asked for it.
    """

    tags: Tensor
    batch: int
    steps: int
    side: int
    clusters: Tensor | None = None


class Round(NamedTuple):
    """One training of a classifier whose recipe may have several, one after another.

    Attributes:
        name: of its folder in the run folder.
        steps, stop: in place of `training.steps` and `training.stop`; None leaves them.
        clusters: folder of the stage before it, which clusters the training images by what the round before learnt;
            empty where there is none.
    """

    name: str = "classifier"
    steps: int | None = None
    stop: int | None = None
    clusters: str = ""


class Method(nn.Module):
    """A network with its losses, CAMs and scores: all that training and prediction know of a method.

    What a method needs and has stands in class attributes, so that nobody asks for its name or type.

    Args:
        network: what prediction needs, with the backbone as `network.backbone`; it is saved as the model.
        num_classes: K.
        background: whether label 0 exists; where not, score channel c is label c + 1.

    Attributes:
        needs_views: whether batches must carry the weak and the strong view.
        needs_masks: whether batches must carry ground-truth masks.
        has_decoder: whether `scores` labels images without tags; where not, a segmenter has to be trained.
        staged: whether its trainings are stages of a run, even where nothing comes after the classifier.
        paste: the probability that something of another image is pasted onto a training view that has a mask.
    """

    needs_views: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = False
    has_decoder: ClassVar[bool] = True
    staged: ClassVar[bool] = False
    paste: float = 0.0

    def __init__(self, network: nn.Module, num_classes: int, background: bool) -> None:
        super().__init__()
        self.num_classes, self.background = num_classes, background
        self.network: Any = network

    @property
    def classes(self) -> int:
        """The former name of `num_classes`."""
        warnings.warn("Method.classes is now Method.num_classes", DeprecationWarning, stacklevel=2)
        return self.num_classes

    # What recipe and stages ask the class, before there is a network.

    @classmethod
    def build(
        cls, backbone: Backbone, num_classes: int, background: bool, section: MethodSection, number: int = -1
    ) -> Method:
        """Make the method of a round.

        Args:
            backbone: with or without weights.
            num_classes: K.
            background: whether label 0 exists.
            section: the method's part of the recipe.
            number: which of `rounds`, -1 for the last.
        """
        return cls(backbone, num_classes, background, section)  # pyright: ignore

    @classmethod
    def rounds(cls, section: MethodSection, training: TrainingConfig) -> tuple[Round, ...]:
        """Name the trainings that make the classifier, in order; most methods have one."""
        return (Round(),)

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raise a TagmaskError where other sections of the recipe do not go with this method."""

    @classmethod
    def decoder_begins(cls, section: MethodSection) -> int:
        """The step from which the decoder learns: the section's `decoder_from`, where it has one."""
        return getattr(section, "decoder_from", 0)

    # What the training loop calls.

    def start_training(self, training_set: TrainingSet) -> None:
        """Take note of the training set; called once, before the state of a former start is loaded."""

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute the losses; wrappers for several devices go through here."""
        with whole_batch():
            return self.losses(batch, step)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Compute scalars to log, of which `loss` is the one to minimise.

        Args:
            batch: images and tags, and what the class attributes ask for.
            step: updates done before this one.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Part the parameters into the backbone's and all others, the heads; frozen ones are in neither."""
        inside = {id(parameter) for parameter in self.network.backbone.parameters()}
        free = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in free if id(parameter) in inside], "head": False},
            {"params": [parameter for parameter in free if id(parameter) not in inside], "head": True},
        ]

    # What prediction and the later stages call.

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1] of normalised images (B, 3, H, W), over scales and flips."""
        raise TagmaskError(f"{type(self).__name__} has no class activation maps")

    def cams_of(self, head: str, images: Tensor, scales: Sequence[float]) -> Tensor:
        """CAMs as `cams`, of another head than that of the classes; `inference.cam_head` names it.

        Raises:
            TagmaskError: the method has no such head.
        """
        raise TagmaskError(
            f"inference.cam_head: {type(self).__name__} has no head {head!r}; SeCo has `auxiliary`, SC-CAM after its "
            "first round `subclasses`; take `class`"
        )

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the tags of normalised images, for `refine.band: auto` and `inference.tag_weight`."""
        raise TagmaskError(
            f"{type(self).__name__} has no tag logits, by which refine.band auto is chosen and inference.tag_weight "
            "guesses tags; give it two powers, and set inference.tag_weight=0"
        )

    def scores(self, images: Tensor) -> Tensor:
        """Decoder logits (B, C, h, w) of normalised images; C = K + 1 with background, else K."""
        raise TagmaskError(
            f"{type(self).__name__} has no decoder: give the recipe a `segmenter`, or use the CAMs (--source cam)"
        )

    @property
    def gathers_cams(self) -> bool:
        """Whether the CAMs of the training images were gathered while training; see `gathered_cams`."""
        return False

    def gathered_cams(self, index: int) -> tuple[Tensor, Tensor]:
        """Give the classes (n,) of the training image at `index` and its gathered maps (n, h, w) in [0, 1]."""
        raise NotImplementedError

    def pooled_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of normalised images, by which `cluster` groups them; for methods with such rounds."""
        raise NotImplementedError

    def cluster(self, features: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """Cluster N training images by (N, D) features within each of the (N, K) tags.

        Returns:
            (N, K) int64 cluster of the image in the class, -1 where it does not bear the class.
        """
        raise NotImplementedError


class TagMethod(Method):
    """A method on a `TagNetwork`: backbone, two tag classifiers, decoder.

    Args:
        backbone: of the network.
        num_classes: K.
        background: whether label 0 exists.
        pooling: of tokens before the classifiers, `max` or `mean`.
        skips: whether the decoder looks at the backbone's finer features, too, where it has such.
    """

    network: TagNetwork

    def __init__(
        self, backbone: Backbone, num_classes: int, background: bool, pooling: str, skips: bool = False
    ) -> None:
        network = TagNetwork(backbone, num_classes, num_classes + int(background), pooling, skips)
        super().__init__(network, num_classes, background)

    def cams(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        """CAMs (B, K, H, W) in [0, 1] of normalised images (B, 3, H, W), over scales and flips."""

        def forward(views: Tensor) -> tuple[Tensor]:
            return (self.network.classifier(self.network.backbone(views).patches),)

        (cams,) = multiscale_cams(forward, images, scales)
        return cams

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the tags of normalised images."""
        return self.network(images).logits

    def scores(self, images: Tensor) -> Tensor:
        """Decoder logits (B, C, h, w) of normalised images; C = K + 1 with background, else K."""
        return self.network.decode(self.network.backbone(images))


def classification_loss(logits: Tensor, tags: Tensor, known: Tensor) -> Tensor:
    """Multilabel soft margin over the known entries of (B, K) tags."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), tags, reduction="none")
    return global_mean((losses * known).sum(), known.sum())


def segmentation_loss(logits: Tensor, labels: Tensor, background: bool) -> Tensor:
    """Cross-entropy, background and foreground weighing the same whatever their areas.

    Args:
        logits: (B, C, H, W) at label size.
        labels: (B, H, W) label maps; 255 is left out.
        background: whether channel 0 is background; where not, channel c is label c + 1 and all pixels weigh the same.

    Returns:
        scalar: half the mean over background pixels plus half the mean over foreground pixels.

    Source: ToCo (CVPR 2023); SeCo (CVPR 2024), section 3.4.
    """
    if not background:
        targets = torch.where(labels == IGNORE, -1, labels - 1)  # 255 is the channel of the label 256
        losses = F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="none")
        return global_mean(losses.sum(), (targets >= 0).sum())
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    behind, front = labels == 0, (labels > 0) & (labels != IGNORE)
    halves = [global_mean((losses * part).sum(), part.sum()) for part in (behind, front)]
    return 0.5 * torch.stack(halves).sum()


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (B, C, h, w) to (B, C, *size)."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def refined_pseudo_masks(
    backbone: Backbone, batch: Batch, cams: Tensor, ids: Tensor, config: PseudoMaskConfig, background: bool
) -> Tensor:
    """`ops.labels.pseudo_masks` of a batch, refined by PAR on the images at half size where the recipe says so."""

    def refine(scores: Tensor) -> Tensor:
        if config.refine == "none":
            return scores
        small = F.interpolate(
            backbone.pixels(batch.images), size=scores.shape[-2:], mode="bilinear", align_corners=False
        )
        return pixel_adaptive_refinement(small, scores)

    return pseudo_masks(
        cams,
        (ids > 0).to(cams),
        high=config.high,
        low=config.low,
        boxes=batch.boxes,
        refine=refine,
        ids=ids,
        background=background,
    )
