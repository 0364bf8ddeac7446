"""What the choice of a recipe can end in: a method on a network, with the lengths and sizes that go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tagmask.api.machine import Machine
from tagmask.data.dataset import Dataset
from tagmask.recipes.sections import ImageOrder

CAM_SCALES = [1.0, 1.5, 2.25]  # of the CAMs that become masks: small things need more than a step of 16 pixels

VIT_BASE = {"name": "vit_base_patch14_reg4_dinov2", "weights": "timm/vit_base_patch14_reg4_dinov2.lvd142m"}
VIT_SMALL = {"name": "vit_small_patch14_reg4_dinov2", "weights": "timm/vit_small_patch14_reg4_dinov2.lvd142m"}
MOBILENET = {"name": "mobilenetv2_100", "weights": "timm/mobilenetv2_100.ra_in1k", "options": {"pad_type": "same"}}
SCRATCH: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "stem": "conv",
    "options": {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3},
}


@dataclass(frozen=True)
class Course:
    """How a method is trained and used where nobody says otherwise.

    Attributes:
        method: the name under which it is registered.
        keys: the keys of its section, from the side of a crop, the side of a patch and the number of steps.
        staged: whether masks and a segmenter always follow; if not, they do where `data.last` or `data.context` needs
            them.
        epochs: how often an image is seen, within `steps`.
        steps: no fewer than learning needs and no more than people wait for.
        resize: shortest and longest long side of a photograph in training, in crops. A length, not a factor, says how
            much of a photograph a crop shows, since photographs come in any size.
        long_side: long side of a photograph in use, in crops.
        scales: of the photographs in use.
        background_score: in 0..1.
        order: of the images, `training.order`.
    """

    method: str
    keys: Callable[[int, int, int], dict[str, Any]]
    staged: bool
    epochs: int
    steps: tuple[int, int]
    resize: tuple[float, float]
    long_side: float
    scales: tuple[float, ...]
    background_score: float
    order: ImageOrder


def _seco_keys(crop: int, patch: int, steps: int) -> dict[str, Any]:
    """Phases begin at about the same fractions of the schedule as in `seco/default`."""
    return {
        "patch_size": max(1, crop // 7 // patch) * patch,
        "prototypes_from": steps // 25,
        "contrast_from": steps // 13,
        "decoder_from": steps // 6,
        "region_last_from": steps // 2,
        "quirks": [],
    }


def _cam_keys(crop: int, patch: int, steps: int) -> dict[str, Any]:
    """Trained beside the classifier, a decoder spreads the CAMs it learns from: the segmenter comes after it."""
    return {"pooling": "mean", "scales": [1.0, 1.5], "decoder_from": steps}


SECO = Course("seco", _seco_keys, False, 20, (2000, 20_000), (0.6, 2.0), 1.25, (1.0, 1.25), 0.5, "shuffled")
# As many epochs for the classifier as for the segmenter after it.
# In use photographs are 1.125 and 1.5 crops long: about as long as in the segmenter's training, on average 1.3.
CAM = Course("cam", _cam_keys, True, 12, (300, 3000), (0.9, 1.7), 1.5, (0.75, 1.0), 0.4, "balanced")


@dataclass(frozen=True)
class Plan:
    """A method on a network, before it is fitted to the data.

    Attributes:
        crop: side of the crops in pixels; of a network from scratch at the most.
        small_crop: that side where things are small; None where that makes no difference.
        multiple: what that side has to be a multiple of, so that crops are whole patches of the network.
    """

    course: Course
    backbone: dict[str, Any]
    crop: int
    batch: int
    rates: dict[str, float] = field(default_factory=dict)
    multiple: int = 32
    small_crop: int | None = None

    @property
    def from_scratch(self) -> bool:
        """Whether the network starts without pretrained weights."""
        return self.backbone is SCRATCH

    def _joins_alike(self, dataset: Dataset) -> bool:
        """Whether CAMs are joined by places that look alike.

        A network from scratch does not see what looks alike. Of small things masks got worse: a place of the network is
        as large as they are. With context classes, which say what is around things, it has not been measured.
        """
        small = self.crop == self.small_crop
        return dataset.background and not dataset.context and not self.from_scratch and not small

    def steps(self, images: int) -> int:
        """Return the steps of the course's epochs, within its bounds."""
        low, high = self.course.steps
        return max(low, min(high, self.course.epochs * images // self.batch))

    def values(self, steps: int, machine: Machine, dataset: Dataset, last: Iterable[str]) -> dict[str, Any]:
        """Return the recipe as a mapping.

        Args:
            last: the classes that get what the others leave, `data.last`.
        """
        course, crop, last = self.course, self.crop, list(last)
        staged = course.staged or bool(last) or bool(dataset.context)
        stages = {
            "refine": {"name": "crf", "band": "auto", "alike": self._joins_alike(dataset)},
            "segmenter": {
                "start": "classifier" if self.from_scratch else "weights",
                "method": {"name": "full", "decoder": "skip", "paste": 0.5},
            },
        }
        backbone = {**self.backbone}
        if self.from_scratch:
            backbone["options"] = {**backbone["options"], "img_size": crop}
        patch = 14 if self.multiple % 14 == 0 else 16
        return {
            "method": {"name": course.method, **course.keys(crop, patch, steps)},
            "data": {"background": dataset.background, "last": last},
            "views": {"crop": crop, "resize_long": [round(crop * factor) for factor in course.resize]},
            "backbone": backbone,
            "optimizer": {**self.rates, "warmup": steps // 20},
            "training": {
                "steps": steps,
                "batch": self.batch,
                "order": course.order,
                "workers": min(4 if machine.cuda else 1, machine.cores - 1),
                "checkpoint_every": min(500, max(50, steps // 10)),
            },
            "inference": {
                "size": None,
                "long_side": round(course.long_side * crop),
                "scales": list(course.scales),
                "cam_scales": CAM_SCALES if staged else None,
                "background_score": course.background_score,
                # Outlines come from the photograph, for a network's are as coarse as its steps. The kernels are of
                # photographs about as long as this.
                "refine": "crf",
                "longest": 512,
                # Guessed tags bring points where there is a background, and cost one where there is none.
                "tag_weight": 1.0 if staged and dataset.background else 0.0,
                "precision": "auto",
            },
            **(stages if staged else {}),
        }


FROM_SCRATCH = Plan(CAM, SCRATCH, crop=128, batch=16, rates={"lr": 5e-4, "head_scale": 2.0})
