"""Sections of recipes with several stages: what makes masks of CAMs, and the segmenter trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from tagmask.recipes.sections import (
    AnyMethod,
    BackboneConfig,
    Fraction,
    OptimizerConfig,
    Positive,
    Section,
    Side,
    TrainingConfig,
    ViewsConfig,
)


class StageTraining(Section):
    """A training inside a run; sections it does not name are those of the recipe."""

    views: ViewsConfig | None = Field(default=None, description="Views of its own; none takes the recipe's.")
    backbone: BackboneConfig | None = Field(default=None, description="A backbone of its own; none takes the recipe's.")
    optimizer: OptimizerConfig | None = Field(
        default=None, description="An optimiser of its own; none takes the recipe's."
    )
    training: TrainingConfig | None = Field(default=None, description="A training of its own; none takes the recipe's.")


class AffinityConfig(StageTraining):
    """AffinityNet (PSA, CVPR 2018): its training labels and the random walk along its affinities.

    The presets of the papers as `low/alpha/high`: 4/16/32 (PSA's release, SC-CAM), 4/16/24 (PSA's paper) and
    4/6/24 with `logt: 6` (SEAM).
    """

    former_values: ClassVar = {"border": {"official": "skip", "clean": "keep"}}

    low: float = Field(default=4.0, gt=0, description="The power of the background score that leaves sure foreground.")
    high: float = Field(
        default=32.0, gt=0, description="The power of the background score that leaves sure background."
    )
    pool: Positive = Field(
        default=1,
        description="The side, in pixels, of the squares over which CRF scores are averaged before a label is decided; "
        "the release has 8, on the grid of its crops, here it is on that of the image.",
    )
    beta: float = Field(default=8.0, gt=0, description="The power that affinities are raised to.")
    logt: int = Field(default=8, ge=0, description="The walk takes 2^logt steps.")
    border: Literal["skip", "keep"] = Field(
        default="skip",
        description="Whether pixels near the border, whose neighbours may lie outside, are skipped, as released, or "
        "keep the neighbours they have.",
    )


class RefineConfig(Section):
    """What makes masks of CAMs."""

    former_keys: ClassVar = {"threshold": "background_score"}

    name: Literal["none", "par", "crf", "affinity", "fusion"] = Field(
        default="crf",
        description="What makes masks of CAMs: affinity is the random walk; fusion is RCA's CRF, with saliency maps "
        "where there are some.",
    )
    background_score: Fraction = Field(
        default=0.15, description="What a CAM has to exceed to win over the background (none, par)."
    )
    alpha: float = Field(
        default=16.0, gt=0, description="The power of the background score (crf, affinity, and fusion, where it is 4)."
    )
    band: tuple[float, float] | Literal["auto"] | None = Field(
        default=None,
        description="Two values in place of alpha (crf, affinity, fusion) or of background_score (none, par). Pixels "
        "whose masks by the two differ are undecided, 255, and teach the segmenter nothing. With context classes "
        "(`data.context`) these masks are made without them, and those of the weaker background with them, too; where "
        "they differ, pixels are undecided likewise (not of fusion). auto (crf) tries growing "
        "powers: all that lies outside the masks is made grey, and the first power at which the classifier still gives "
        "the tags two thirds of what it gives them in whole images is taken, and four times it; of data without "
        "background a pixel is undecided where the CRF gives it to another class than the CAMs do, and where no CAM "
        "lays claim to it: the CRF gives it to a background of four times that power (of `alpha`, where `tagmask "
        "refine` is told no run, whose classifier would choose).",
    )
    alike: bool = Field(
        default=False,
        description="Whether CAMs are joined, before masks are made of them, by what the CAMs of all images say of "
        "places that look alike: the pretrained network's features put all places into clusters, and the mean of the "
        "strongest CAM over a cluster is added to the CAMs in it. It needs pretrained weights and a background. "
        "Context classes and those of `data.last` take no part. It is a stage of a training; `tagmask refine` takes "
        "CAMs as they are, also those of a run's folder `alike`.",
    )
    crf: Literal["cam", "seco", "deeplabv2", "irn"] = Field(default="cam", description="The CRF's constants, by name.")
    pixel_classifier: bool = Field(
        default=True,
        description="Whether drawn masks (`data.use_masks`) teach the masks of the other images, too: a linear "
        "classifier of the network's features at each pixel, fitted on them, shares the CAMs out among an image's "
        "classes, and where it labels a pixel otherwise than the mask does, the pixel is undecided, 255. A class that "
        "would nearly vanish from the masks by it keeps those that tags alone make.",
    )
    tell_apart: bool = Field(
        default=True,
        description="Whether classes that come together in 85 % or more of the images with either, such as face and "
        "body, are told apart without masks: the pixels of their CAMs are put into two clusters by the network's "
        "features, and the images that show one of the classes alone say which cluster is whose. Where drawn masks "
        "show both, the masks tell them apart. Of data without background, with a band, it also says whether a class "
        "that is in half of the images of a rarer one, as the road is with cars, yields to it: what it would yield is "
        "undecided.",
    )
    saliency: Path | None = Field(
        default=None, description="The folder of grey saliency maps NAME.png (fusion); none does without."
    )
    longest: Side = Field(
        default=1024,
        description="The longest side, in pixels, at which images are refined; larger ones are refined smaller.",
    )
    affinity: AffinityConfig = AffinityConfig()

    @model_validator(mode="before")
    @classmethod
    def _power_of_fusion(cls, values: Any) -> Any:
        """RCA's own power is 4, the others' 16."""
        if isinstance(values, Mapping) and values.get("name") == "fusion":
            return {"alpha": 4.0, **values}
        return values

    @model_validator(mode="after")
    def _band_in_range(self) -> RefineConfig:
        if self.band is None:
            return self
        if isinstance(self.band, str):
            if self.name != "crf":
                raise ValueError(f"band: auto is for name crf, not {self.name}; give two values")
            return self
        scores = self.name in ("none", "par")
        if not all(0 <= value <= 1 if scores else value > 0 for value in self.band):
            kind = "two background scores from 0 to 1" if scores else "two powers above 0"
            raise ValueError(f"band: {list(self.band)} must be {kind} with name {self.name}")
        return self

    def members(self) -> tuple[RefineConfig, ...]:
        """The refinements whose agreement is the mask: itself, or one for each value of `band`, once it is known."""
        if self.band is None or isinstance(self.band, str):
            return (self,)
        key = "background_score" if self.name in ("none", "par") else "alpha"
        return tuple(self.model_copy(update={key: value, "band": None}) for value in self.band)

    def weakest(self) -> RefineConfig:
        """The member with the weakest background, by which classes cover most."""
        if self.name in ("none", "par"):
            return min(self.members(), key=lambda member: member.background_score)
        return max(self.members(), key=lambda member: member.alpha)


class SegmenterConfig(StageTraining):
    """A network trained on the masks, in which 255 is left out: the model that needs no tags."""

    method: AnyMethod = Field(
        default=cast(Any, "full"),
        description="The method that learns from the masks; it has to be one with `needs_masks`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_full_supervision(cls, values: Any) -> Any:
        """Keys of a method without its name are those of `full`."""
        if isinstance(values, Mapping) and isinstance(values.get("method"), Mapping):
            return {**values, "method": {"name": "full", **values["method"]}}
        return values

    start: Literal["weights", "classifier"] = Field(
        default="weights",
        description="Whether the segmenter begins from `backbone.weights` or from the trained classifier's backbone.",
    )
