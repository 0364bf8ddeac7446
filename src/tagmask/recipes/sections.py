"""The sections of a recipe. Unknown keys and wrong types are errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
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

from tagmask.recipes.backbone_options import MOST_PIXELS, checked_options

logger = logging.getLogger(__name__)

Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=MOST_PIXELS)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ImageOrder = Literal["shuffled", "balanced", "listed"]
Factor = Annotated[float, Field(gt=0)]
PartOf = Annotated[float, Field(gt=0, le=1)]
Jitter = tuple[Fraction, Fraction, Fraction, Annotated[float, Field(ge=0, le=0.5)]]
Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1, max_length=64)]


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
        constants: keys that are constants now, with their value; a recipe that says another is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    former_keys: ClassVar[Mapping[str, str]] = {}
    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    constants: ClassVar[Mapping[str, float]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        taken = {}
        for key, value in values.items():
            if key in cls.constants:
                if value != cls.constants[key]:
                    raise ValueError(f"{key} is {cls.constants[key]} and no option any more; leave it out")
                continue
            new = cls.former_keys.get(key, key)
            now = cls.former_values.get(new, {}).get(value, value) if isinstance(value, str) else value
            if (new, now) != (key, value):
                logger.info("the recipe's %s: %s is now called %s: %s", key, value, new, now)
            taken[new] = now
        return taken


class ViewsConfig(Section):
    """The augmented views of a training image."""

    crop: Side = Field(default=448, description="The side of the square crop, in pixels.")
    scale: Annotated[tuple[Factor, Factor], Rising] = Field(
        default=(0.5, 2.0), description="The range that a random rescale of the image is drawn from, before the crop."
    )
    factors: tuple[Factor, ...] = Field(
        default=(), description="In place of `scale`: one of these factors is drawn, as in DeepLab-v2."
    )
    resize_long: Annotated[tuple[Side, Side], Rising] | None = Field(
        default=None, description="In place of `scale`: the range that the long side is drawn from, in pixels."
    )
    squash: bool = Field(
        default=False, description="In place of `scale`: the whole image, whatever its aspect, at the size of the crop."
    )
    colours: Jitter | None = Field(
        default=None,
        description="The brightness, contrast, saturation and hue jitter of the training image itself; none leaves it.",
    )
    flip: Fraction = Field(default=0.5, description="The probability that a view is flipped, left for right.")
    resample: Literal["bilinear", "bicubic"] = Field(
        default="bilinear", description="How the training image itself is resized."
    )
    padding: Literal["black", "mean"] = Field(
        default="black",
        description="What stands beside an image that is smaller than the crop; mean is what normalisation takes to 0.",
    )
    weak_area: Annotated[tuple[PartOf, PartOf], Rising] = Field(
        default=(0.4, 1.0), description="The range of the area of the weak view's random resized crop."
    )
    jitter: Jitter = Field(
        default=(0.4, 0.4, 0.2, 0.1),
        description="The brightness, contrast, saturation and hue jitter of the weak and the strong view.",
    )


class BackboneConfig(Section):
    """The network that gives features: any timm network, or one of the papers'."""

    name: str = Field(default="vit_base_patch16_224", description="A timm model's name, or a paper's network.")
    weights: str | None = Field(
        default=None,
        description="A hub name (timm/…, hf-hub:…) or a local file of pretrained weights; none begins from scratch.",
    )
    options: Annotated[dict[str, Any], AfterValidator(checked_options)] = Field(
        default_factory=dict, description="What is passed to timm.create_model: known keys, plain values within bounds."
    )
    stem: Literal["patch", "conv"] = Field(
        default="patch", description="How a ViT sees pixels; conv puts convolutions first, for training from scratch."
    )
    output_stride: Literal[8, 16, 32] = Field(
        default=16, description="How many pixels a step of a CNN's feature map is; a ViT has its patch size."
    )
    mean: tuple[float, float, float] | None = Field(
        default=None,
        description="The mean of red, green, blue in 0..1 that is subtracted; none takes the weights' own.",
    )
    std: tuple[float, float, float] | None = Field(
        default=None, description="The deviation that is divided by; none takes the weights' own."
    )
    freeze_norm: bool | None = Field(
        default=None,
        description="Whether batch norm keeps its statistics and scale; none: where weights are given.",
    )
    frozen: bool = Field(default=False, description="Whether the network stays as it is, so that only the heads learn.")


class PseudoMaskConfig(Section):
    """From CAM to pseudo mask: two background scores, PAR, agreement (SeCo, section 3.4)."""

    high: Fraction = Field(default=0.7, description="The background score that only sure foreground exceeds.")
    low: Fraction = Field(default=0.25, description="The background score that only sure background stays under.")
    refine: Literal["par", "none"] = Field(default="par", description="Whether PAR refines the two.")

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

    name: Literal["adamw", "sgd", "poly_sgd"] = Field(
        default="adamw", description="The optimiser; poly_sgd is SGD as SC-CAM and PSA run it."
    )
    lr: float = Field(default=6e-5, gt=0, description="The learning rate of the backbone.")
    head_scale: float = Field(default=10.0, gt=0, description="How many times as fast the heads learn.")
    weight_decay: float = Field(default=0.01, ge=0, description="The weight decay.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="The two betas of AdamW.")
    momentum: Fraction = Field(default=0.9, description="The momentum of sgd.")
    nesterov: bool = Field(default=False, description="Whether sgd's momentum is Nesterov's.")
    bias_scale: float = Field(default=1.0, gt=0, description="How many times as fast biases learn under sgd.")
    bias_decay: bool = Field(
        default=True, description="Whether biases with a rate of their own have weight decay under sgd, too."
    )
    poly_momentum: Literal["weight_decay", "paper"] = Field(
        default="weight_decay",
        description="The momentum of poly_sgd: its weight decay, so practically none, as was run and published; or the "
        "0.9 that the papers name, with a tenth of lr (paper).",
    )
    milestones: tuple[Positive, ...] = Field(
        default=(), description="The steps at which the rate falls to a tenth, in place of `power`."
    )
    warmup: int = Field(default=1500, ge=0, description="The steps over which the rate rises to lr.")
    warmup_factor: float = Field(default=1e-6, gt=0, le=1, description="The factor of lr at step 0.")
    power: float = Field(default=0.9, ge=0, description="The power of the rate's fall to 0.")
    lr_every: Positive = Field(default=1, description="How many steps a rate is kept before `power` sets it anew.")
    clip: float | None = Field(default=None, gt=0, description="The largest norm of the gradient; none does not clip.")


class TrainingConfig(Section):
    """Length, batch, and how often things happen. One step is one update of the weights."""

    steps: Positive = Field(default=20_000, description="The steps of the schedule.")
    stop: int | None = Field(
        default=None, gt=0, description="The step of the schedule at which training ends; none trains to its end."
    )
    batch: Positive = Field(default=4, description="The images of a step, over all devices.")
    workers: int = Field(default=2, ge=0, description="The loader processes of a device.")
    order: ImageOrder = Field(
        default="shuffled",
        description="The order of images: shuffled is another in every epoch; balanced too, and images of classes that "
        "are rarer than the median class come more often, and every class is pasted equally often; listed is always "
        "that of the data.",
    )
    seed: int = Field(default=0, description="The seed of initial weights, views and order.")
    log_every: Positive = Field(default=20, description="How many steps lie between two lines of the log.")
    evaluate_every: int = Field(
        default=0, ge=0, description="How many steps lie between two evaluations; at 0 only the end is evaluated."
    )
    checkpoint_every: int = Field(
        default=500, ge=0, description="How many steps lie between two checkpoints; at 0 only the end is saved."
    )
    devices: Positive = Field(
        default=1,
        description="The processes, each with its part of the batch; where torchrun starts them, it says how many.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="auto",
        description="The precision of products; auto is bf16 where the hardware multiplies it, else fp32.",
    )
    compile: bool = Field(
        default=False,
        description="Whether torch.compile fuses a ViT's blocks: half a minute at the start, for trainings on a GPU.",
    )


class InferenceConfig(Section):
    """How images go through the trained network."""

    former_keys: ClassVar = {"background": "background_score"}

    size: Side | None = Field(
        default=448, description="The side of the square that images are resized to; none keeps their own size."
    )
    long_side: Side | None = Field(
        default=None, description="In place of `size`: the long side, in pixels; the aspect is kept."
    )
    scales: Scales = Field(default=(1.0,), description="The scales at which each image is seen.")
    cam_scales: Scales | None = Field(
        default=None,
        description="The scales of CAMs in place of `inference.scales`; none takes those, and for the CAMs that become "
        "a segmenter's masks `method.scales`.",
    )
    cam_head: Literal["class", "auxiliary", "subclasses"] = Field(
        default="class",
        description="Which head CAMs are read off, also those that become masks: that of the classes, SeCo's auxiliary "
        "one, or SC-CAM's sub-categories, of which the largest of a class counts.",
    )
    scale_from: Literal["size", "photograph"] = Field(
        default="size",
        description="Whether the other scales are resized from the image at scale 1, with antialiasing before it, or "
        "each from the photograph, without, and compared at the photograph's size, as SeCo's release has it.",
    )
    flip: bool = Field(default=True, description="Whether each image is also seen flipped.")
    background_score: Fraction = Field(
        default=0.5, description="what a CAM has to exceed to win over the background, when labelling with tags"
    )
    tag_weight: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="How much the classifier's guess of an image's tags counts where none are given, as the power that "
        "their probabilities are raised to: by these a pixel's probability of all classes together is shared out among "
        "them, and the background keeps its own. At 0 nothing is guessed; images labelled in tiles are not guessed of.",
    )
    refine: Literal["none", "par", "crf"] = Field(default="none", description="What refines the scores.")
    crf: Literal["cam", "seco", "deeplabv2", "irn"] = Field(default="seco", description="The CRF's constants, by name.")
    longest: Side = Field(
        default=1024,
        description="The longest side, in pixels, at which images are refined; larger ones are refined smaller.",
    )
    tile: Annotated[int, Field(ge=64, le=MOST_PIXELS)] | None = Field(
        default=None,
        description="Images with a longer side than this, in pixels, are labelled in overlapping tiles of this side, "
        "each of which goes through the network as an image of its own; none labels every image as a whole.",
    )
    microns: Factor | None = Field(
        default=None,
        description="Micrometres a pixel at which whole slides are read, by the level that comes nearest; none takes "
        "the finest level that `data.max_pixels` allows.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        default="32-true",
        description="The precision of products; auto is bf16 where the hardware has it, and changes scores a little.",
    )

    @property
    def seen_by_cams(self) -> tuple[float, ...]:
        """The scales at which images are seen when CAMs are made."""
        return self.cam_scales or self.scales
