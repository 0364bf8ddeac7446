"""The sections of a recipe. Unknown keys and wrong types are errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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

    Attributes:
        former_keys: keys that were renamed, by their former name. They are still read, so that the recipe of every run
            folder opens; a warning in the log names the new one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    former_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_former_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not cls.former_keys.keys() & values.keys():
            return values
        for former in cls.former_keys.keys() & values.keys():
            logger.warning("the recipe's key %r is now called %r; please rename it", former, cls.former_keys[former])
        return {cls.former_keys.get(key, key): value for key, value in values.items()}


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
    """What the sections of all methods share: the name, which says whose section it is."""

    name: str


class CamConfig(MethodSection):
    """Plain CAM: a classifier, its class activation maps, and a decoder trained on their pseudo masks."""

    name: Literal["cam"] = "cam"
    pooling: Literal["max", "mean"] = Field(default="mean", description="of the token map before the classifier")
    scales: Scales = Field(default=(1.0, 0.5, 0.75, 1.5), description="of the CAMs the decoder is trained on")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    decoder_from: int = Field(default=2000, ge=0, description="step from which the decoder learns")
    decoder_weight: float = Field(default=0.12, ge=0)


class FullConfig(MethodSection):
    """The same decoder trained on true masks: the ceiling a tag-trained model is measured against."""

    name: Literal["full"] = "full"
    copies: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(),
        description="scales of copies that the decoder learns from as well, their largest logits counting, and then "
        "nothing but the decoder learns: 0.5 and 0.75 in DeepLab-v2",
    )


Quirk = Literal["patch_area", "strong_flip", "view_tag", "ptc_box", "single_class", "reseed"]


class SecoConfig(MethodSection):
    """SeCo (CVPR 2024). Defaults are the paper's VOC constants."""

    former_keys: ClassVar = {"accidents": "quirks"}

    name: Literal["seco"] = "seco"
    pooling: Literal["max", "mean"] = "max"
    scales: Scales = Field(default=(1.0, 0.5, 0.75, 1.5), description="of the CAMs inside a step")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    pseudo_mask_last_from: int = Field(
        default=0, ge=0, description="step from which pseudo masks come from the last CAM"
    )
    region_last_from: int = Field(
        default=10_000, ge=0, description="step from which regions come from the last CAM, not the auxiliary"
    )
    patches: Positive = Field(default=10, description="patches cut from an image")
    patch_size: Positive = Field(default=64, description="side of a patch, in pixels")
    patch_area: Fraction = Field(default=0.2, description="occupied share at or under which a patch is background")
    projection_hidden: Positive = 2048
    queue: Positive = Field(default=4608, description="entries of the queue")
    teacher_momentum: Fraction = 0.999
    prototypes_from: int = Field(default=600, ge=0, description="step from which prototypes move")
    prototype_momentum: Fraction = 0.9
    lil_form: Literal["reference", "supcon"] = Field(
        default="reference", description="local contrast: as released, or as meant"
    )
    lil_temperature: float = Field(default=0.08, gt=0)
    lig_temperature: float = Field(default=0.1, gt=0)
    ptc_weight: float = Field(default=0.3, ge=0)
    lil_weight: float = Field(default=0.5, ge=0)
    lig_weight: float = Field(default=0.5, ge=0)
    seg_weight: float = Field(default=0.12, ge=0)
    reg_weight: float = Field(default=0.05, ge=0, description="of the dense energy; 0: not computed")
    energy_weight: float = Field(default=1e-7, ge=0)
    ptc_from: int = Field(default=0, ge=0)
    contrast_from: int = Field(default=1001, ge=0)
    decoder_from: int = Field(default=2001, ge=0)
    quirks: tuple[Quirk, ...] = Field(
        default=("patch_area", "single_class"),
        description="accidents of the reference to reproduce; see docs/methods/seco",
    )


class OptimizerConfig(Section):
    """The optimiser and its schedule: linear warm-up, then (1 - t/steps)^power."""

    name: Literal["adamw", "sgd", "poly_sgd"] = Field(default="adamw", description="poly_sgd: as SC-CAM and PSA run it")
    lr: float = Field(default=6e-5, gt=0, description="of the backbone")
    head_scale: float = Field(default=10.0, gt=0, description="the heads' lr over the backbone's")
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: Fraction = 0.9
    nesterov: bool = False
    bias_scale: float = Field(default=1.0, gt=0, description="sgd: biases' lr over their weights'")
    bias_decay: bool = Field(default=True, description="sgd: weight decay of biases with a rate of their own, too")
    poly_momentum: Literal["official", "clean"] = Field(
        default="official",
        description="poly_sgd: practically none, as released; clean: the papers' 0.9 at a tenth of lr",
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
