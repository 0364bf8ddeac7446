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
    TrainingConfig,
    ViewsConfig,
)


class StageTraining(Section):
    """A training inside a run; sections it does not name are those of the recipe."""

    views: ViewsConfig | None = None
    backbone: BackboneConfig | None = None
    optimizer: OptimizerConfig | None = None
    training: TrainingConfig | None = None


class AffinityConfig(StageTraining):
    """AffinityNet (PSA, CVPR 2018): its training labels and the random walk along its affinities.

    The presets of the papers as `low/alpha/high`: 4/16/32 (PSA's release, SC-CAM), 4/16/24 (PSA's paper) and
    4/6/24 with `logt: 6` (SEAM).
    """

    former_values: ClassVar = {"border": {"official": "skip", "clean": "keep"}}

    low: float = Field(default=4.0, gt=0, description="power of the background score that leaves sure foreground")
    high: float = Field(default=32.0, gt=0, description="power of the background score that leaves sure background")
    beta: float = Field(default=8.0, gt=0, description="power of the affinities")
    logt: int = Field(default=8, ge=0, description="2^logt steps")
    border: Literal["skip", "keep"] = Field(
        default="skip",
        description="Whether pixels near the border, whose neighbours may lie outside, are skipped, as released, or keep "
        "the neighbours they have.",
    )


class RefineConfig(Section):
    """CAMs to masks."""

    former_keys: ClassVar = {"threshold": "background_score"}

    name: Literal["none", "par", "crf", "affinity", "fusion"] = Field(
        default="crf", description="affinity: random walk; fusion: RCA's CRF, with saliency maps where there are some"
    )
    background_score: Fraction = Field(default=0.15, description="none, par: what a CAM has to exceed")
    alpha: float = Field(
        default=16.0, gt=0, description="crf, affinity, fusion (there 4): power of the background score"
    )
    band: tuple[float, float] | None = Field(
        default=None,
        description="two values in place of alpha (crf, affinity, fusion) or of background_score (none, par): pixels "
        "whose masks by the two differ are undecided, 255, and teach the segmenter nothing",
    )
    crf: Literal["cam", "seco", "deeplabv2", "irn"] = Field(default="cam", description="the CRF's preset")
    saliency: Path | None = Field(
        default=None, description="fusion: folder of NAME.png in grey; none: without saliency"
    )
    longest: Positive = Field(default=1024, description="side in pixels; larger images are refined at this size")
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
        scores = self.name in ("none", "par")
        if not all(0 <= value <= 1 if scores else value > 0 for value in self.band):
            kind = "two background scores from 0 to 1" if scores else "two powers above 0"
            raise ValueError(f"band: {list(self.band)} must be {kind} with name {self.name}")
        return self

    def members(self) -> tuple[RefineConfig, ...]:
        """The refinements whose agreement is the mask: itself, or one for each value of `band`."""
        if self.band is None:
            return (self,)
        key = "background_score" if self.name in ("none", "par") else "alpha"
        return tuple(self.model_copy(update={key: value, "band": None}) for value in self.band)


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
        default="weights", description="classifier: the trained one's backbone"
    )
