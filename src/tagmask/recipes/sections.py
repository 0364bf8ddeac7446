"""The sections of a recipe. Unknown keys and wrong types are errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    SerializeAsAny,
    model_validator,
)
from pydantic_core import PydanticCustomError

logger = logging.getLogger(__name__)

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0)]
PartOf = Annotated[float, Field(gt=0, le=1)]
Jitter = tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]]
Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1)]


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{list(pair)} runs backwards; exchange the two")
    return pair


Rising = AfterValidator(_rising)


class Section(BaseModel):
    """A part of a recipe; keys it does not know are errors.

    Keys and values of earlier versions are still read, so that the recipe of every run folder opens.

    Attributes:
        former_keys: keys that were renamed, by their former name.
        former_values: for a key, values that were renamed, by their former name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    former_keys: ClassVar[Mapping[str, str]] = {}
    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        taken = {}
        for key, value in values.items():
            new = cls.former_keys.get(key, key)
            now = cls.former_values.get(new, {}).get(value, value) if isinstance(value, str) else value
            if (new, now) != (key, value):
                logger.info("the recipe's %s: %s is now called %s: %s", key, value, new, now)
            taken[new] = now
        return taken


class DataConfig(Section):
    """Where images, tags and (for evaluation or `full`) masks come from."""

    path: Path | None = Field(
        default=None, description="folder, table or annotation file; the command line's argument sets it"
    )
    format: Literal[
        "auto",
        "table",
        "folders",
        "coco",
        "voc",
        "yolo",
        "label_studio",
        "cvat",
        "imagefolder",
        "parquet",
        "cls_labels",
    ] = "auto"
    image_folder: Path | None = Field(default=None, description="folder of the images; none: where the format says")
    classes: tuple[str, ...] | None = Field(default=None, description="names in id order; none: those of the data")
    context: tuple[str, ...] = Field(
        default=(), description="tags of surroundings (water, road): learnt like classes, background in every mask"
    )
    background: bool = Field(default=True, description="false where every pixel has one of the classes")
    masks: Path | None = Field(default=None, description="folder of mask PNGs; none: where the format keeps them")
    mask_classes: tuple[str, ...] | None = Field(
        default=None, description="names of the mask ids 1, 2, …; none: the data's list"
    )
    untagged: Literal["skip", "negative", "error"] = Field(
        default="skip", description="what an image without a tag means"
    )
    tag_source: Literal["annotations", "masks"] = Field(
        default="annotations", description="VOC: XML files or the masks"
    )
    train: tuple[str, ...] | None = Field(
        default=None, description="splits to learn from; none: all but val, test, the evaluated"
    )
    evaluate: tuple[str, ...] | None = Field(
        default=None, description="splits to evaluate on; none: val, else test, if there is one"
    )


class ViewsConfig(Section):
    """The augmented views of a training image."""

    crop: Positive = Field(default=448, description="side of the square crop, in pixels")
    scale: Annotated[tuple[Factor, Factor], Rising] = Field(
        default=(0.5, 2.0), description="random rescale of the image before the crop"
    )
    factors: tuple[Factor, ...] = Field(
        default=(), description="instead: one of these factors, as DeepLab-v2 draws them"
    )
    resize_long: Annotated[tuple[Positive, Positive], Rising] | None = Field(
        default=None, description="instead: long side drawn from this range, in pixels"
    )
    squash: bool = Field(
        default=False, description="instead: the whole image, whatever its aspect, at the size of the crop"
    )
    colours: Jitter | None = Field(
        default=None, description="brightness, contrast, saturation, hue jitter of the training image itself"
    )
    flip: Fraction = 0.5
    resample: Literal["bilinear", "bicubic"] = Field(default="bilinear", description="of the training image itself")
    padding: Literal["black", "mean"] = Field(
        default="black", description="beside an image smaller than the crop; mean: what normalisation takes to zero"
    )
    weak_area: Annotated[tuple[PartOf, PartOf], Rising] = Field(
        default=(0.4, 1.0), description="area of the weak view's random resized crop"
    )
    jitter: Jitter = Field(
        default=(0.4, 0.4, 0.2, 0.1), description="brightness, contrast, saturation, hue of the contrast views"
    )


class BackboneConfig(Section):
    """Any timm network."""

    name: str = Field(default="vit_base_patch16_224", description="a timm model name")
    weights: str | None = Field(
        default=None, description="hub name (timm/…, hf-hub:…), a local file, or none: from scratch"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    stem: Literal["patch", "conv"] = Field(
        default="patch", description="conv: convolutions before a ViT trained from scratch"
    )
    output_stride: Literal[8, 16, 32] = Field(default=16, description="of a CNN; a ViT has its patch size")
    mean: tuple[float, float, float] | None = Field(default=None, description="of RGB in 0..1; none: the network's own")
    std: tuple[float, float, float] | None = None
    freeze_norm: bool | None = Field(
        default=None, description="batch norm keeps its statistics and scale; none: where weights are given"
    )


class PseudoMaskConfig(Section):
    """CAM to pseudo mask: two background scores, PAR, agreement (SeCo, step 4)."""

    high: Fraction = Field(default=0.7, description="background score that only sure foreground exceeds")
    low: Fraction = Field(default=0.25, description="background score that only sure background stays under")
    refine: Literal["par", "none"] = "par"

    @model_validator(mode="after")
    def _in_order(self) -> PseudoMaskConfig:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; exchange them")
        return self


class MethodSection(Section):
    """What the sections of all methods share: the name, which says whose section it is.

    Attributes:
        method_class: the class that `methods.registry.register` put beside the section.
    """

    method_class: ClassVar[Any] = None

    name: str


METHODS: dict[str, type[MethodSection]] = {}
"""The section of every method that was loaded, by its name; `methods.registry.register` adds to it."""

PLUGINS = "tagmask.methods"
"""The entry points whose names are methods' and whose modules register them; tagmask's own are among them."""


def method_names() -> list[str]:
    """Name every method that is installed or was registered."""
    return sorted({*METHODS, *entry_points(group=PLUGINS).names})


def section_of(name: str) -> type[MethodSection] | None:
    """Find the section of a method, loading its module where needed; None where there is no such method."""
    if name not in METHODS:
        for plugin in entry_points(group=PLUGINS, name=name):
            plugin.load()
    return METHODS.get(name)


def _method_section(value: Any) -> Any:
    """Make a method's section of its name, or of a mapping that holds it."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return value
    name = str(value.get("name", ""))
    section = section_of(name)
    if section is None:
        known = ", ".join(repr(method) for method in method_names())
        raise PydanticCustomError(
            "no_method", "no method {name}; there are: {known}", {"name": repr(name), "known": known}
        )
    return section.model_validate(value)


AnyMethod = Annotated[SerializeAsAny[InstanceOf[MethodSection]], BeforeValidator(_method_section)]


class OptimizerConfig(Section):
    """The optimiser and its schedule: linear warm-up, then (1 - t/steps)^power."""

    former_values: ClassVar = {"poly_momentum": {"official": "weight_decay", "clean": "paper"}}

    name: Literal["adamw", "sgd", "poly_sgd"] = Field(default="adamw", description="poly_sgd: as SC-CAM and PSA run it")
    lr: float = Field(default=6e-5, gt=0, description="of the backbone")
    head_scale: float = Field(default=10.0, gt=0, description="the heads' lr over the backbone's")
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: Fraction = 0.9
    nesterov: bool = False
    bias_scale: float = Field(default=1.0, gt=0, description="sgd: biases' lr over their weights'")
    bias_decay: bool = Field(default=True, description="sgd: weight decay of biases with a rate of their own, too")
    poly_momentum: Literal["weight_decay", "paper"] = Field(
        default="weight_decay",
        description="The momentum of poly_sgd: its weight decay, so practically none, as was run and published; or the "
        "0.9 that the papers name, with a tenth of lr (paper).",
    )
    milestones: tuple[Positive, ...] = Field(
        default=(), description="steps at which lr falls to a tenth, in place of power"
    )
    warmup: int = Field(default=1500, ge=0, description="steps")
    warmup_factor: float = Field(default=1e-6, gt=0, le=1, description="factor of lr at step 0")
    power: float = Field(default=0.9, ge=0)
    lr_every: Positive = Field(default=1, description="updates between two changes of lr by power")
    clip: float | None = Field(default=None, gt=0, description="largest gradient norm; none: not clipped")


class TrainingConfig(Section):
    """Length, batch, and how often things happen. One step is one update of the weights."""

    steps: Positive = 20_000
    stop: int | None = Field(default=None, gt=0, description="end after these steps of the schedule; none: after all")
    batch: Positive = Field(default=4, description="images a step over all devices")
    workers: int = Field(default=2, ge=0, description="loader processes a device")
    seed: int = 0
    log_every: Positive = 20
    evaluate_every: int = Field(default=0, ge=0, description="0: only at the end")
    checkpoint_every: int = Field(default=500, ge=0, description="0: only at the end")
    devices: Positive = Field(default=1, description="processes, each with its share of the batch")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="auto", description="auto: bf16 where the hardware multiplies it, else fp32"
    )
    compile: bool = Field(
        default=False, description="fuse a ViT's blocks by torch.compile; half a minute first, for trainings on a GPU"
    )


class InferenceConfig(Section):
    """How images go through the trained network."""

    former_keys: ClassVar = {"background": "background_score"}

    size: int | None = Field(default=448, gt=0, description="square side images are resized to; none: their own size")
    long_side: int | None = Field(default=None, gt=0, description="instead: long side, aspect kept")
    scales: Scales = (1.0,)
    cam_scales: Scales | None = Field(
        default=None, description="of the CAMs that become a segmenter's masks; none: method.scales"
    )
    flip: bool = True
    background_score: Fraction = Field(
        default=0.5, description="what a CAM has to exceed to win over the background, when labelling with tags"
    )
    refine: Literal["none", "par", "crf"] = "none"
    crf: Literal["cam", "seco", "deeplabv2", "irn"] = Field(default="seco", description="the CRF's preset")
    longest: Positive = Field(default=1024, description="side in pixels; larger images are refined at this size")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="32-true",
        description="auto: bf16 where the hardware multiplies it; scores then differ a little",
    )
