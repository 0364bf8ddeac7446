"""Sections of recipes with several stages: SC-CAM, RCA, what makes masks of CAMs, the segmenter trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tagmask.recipes.sections import (
    BackboneConfig,
    Fraction,
    FullConfig,
    MethodSection,
    OptimizerConfig,
    Positive,
    Scales,
    Section,
    TrainingConfig,
    ViewsConfig,
)


class SccamConfig(MethodSection):
    """SC-CAM (CVPR 2020). Defaults are the released code's; its optimiser is `optimizer.name: poly_sgd`."""

    name: Literal["sccam"] = "sccam"
    pooling: Literal["max", "mean"] = Field(
        default="mean", description="of features; max where so few steps teach the mean little"
    )
    rounds: Positive = Field(default=3, description="of clustering and training anew, after the first classifier")
    subclasses: Positive = Field(default=10, description="clusters of a class (K)")
    sub_weight: float = Field(default=5.0, ge=0, description="of the sub-categories' loss")
    starts: Positive = Field(default=10, description="runs of k-means of which the best is kept")
    first_steps: int | None = Field(default=None, gt=0, description="of the first classifier; none: training.steps")
    stop_at: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = Field(
        default=(31 / 61, 41 / 61, 51 / 61),
        description="share of the schedule at which each round's network is taken; the last also of further rounds",
    )
    scales: Scales = Field(default=(1.0, 0.5, 1.5, 2.0), description="of the CAMs that become masks")


class RcaConfig(MethodSection):
    """RCA (CVPR 2022). Constants are the paper's; of the release's accidents the harmful ones are off by default."""

    name: Literal["rca"] = "rca"
    pooling: Literal["max", "mean"] = Field(default="mean", description="of maps to logits; mean as released")
    width: int | None = Field(
        default=None, gt=0, description="channels a 1x1 convolution brings the backbone's to; none: as they are"
    )
    hidden: int | None = Field(default=None, gt=0, description="channels of the maps' branches; none: the features'")
    start: Literal["official", "he"] = Field(
        default="official", description="of the heads: deviation 0.01, which suits 512 channels; he: by their width"
    )
    memory: Positive = Field(default=500, description="regions a class")
    prototypes: Positive = Field(default=10, description="k-means centres of a class's regions")
    memory_init: Literal["randn", "first_write"] = Field(default="first_write", description="randn: noise, as released")
    memory_feature: Literal["x", "mid"] = Field(
        default="x", description="x: the backbone's, as released; mid: the anchors'"
    )
    memory_momentum: Fraction = 0.99
    memory_above: Fraction = Field(default=0.7, description="probability above which a tag's region is remembered")
    chained_mask: Literal["official", "fixed"] = Field(
        default="fixed", description="official: masks of one image intersect"
    )
    attention: Literal["official", "softmax", "mean"] = Field(
        default="official", description="how pixels weigh prototypes"
    )
    clamp: Literal["official", "clean"] = Field(default="clean", description="official: a floor under the denominator")
    reduction: Literal["sum", "mean"] = Field(default="sum", description="of the contrast over the images of a batch")
    temperature: float = Field(default=0.07, gt=0)
    mixing: Positive = Field(default=8, description="a of the Beta(a, a) that regions are mixed with")
    coarse_weight: float = Field(default=0.4, ge=0)
    contrast_weight: float = Field(default=0.01, ge=0)
    contrast_from: int = Field(default=2, ge=0, description="epoch, from 0")
    gather_from: int = Field(default=1, ge=0, description="epoch from which attention maps are gathered")
    gather_above: Fraction = Field(default=0.1, description="probability from which a map is gathered")
    precision: Literal["uint8", "float16"] = Field(default="float16", description="of gathered maps; uint8 as released")
    cam_source: Literal["gathered", "final"] = Field(default="gathered", description="final: of the trained network")
    scales: Scales = Field(default=(1.0, 0.5, 1.5, 2.0), description="of final CAMs")


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

    low: float = Field(default=4.0, gt=0, description="power of the background score that leaves sure foreground")
    high: float = Field(default=32.0, gt=0, description="power of the background score that leaves sure background")
    beta: float = Field(default=8.0, gt=0, description="power of the affinities")
    logt: int = Field(default=8, ge=0, description="2^logt steps")
    border: Literal["official", "clean"] = Field(
        default="official", description="clean: border pixels keep their neighbours"
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
    """A decoder trained on the masks, 255 left out: the model that needs no tags."""

    method: FullConfig = FullConfig()

    start: Literal["weights", "classifier"] = Field(
        default="weights", description="classifier: the trained one's backbone"
    )
