"""The sections of a recipe. Unknown keys and wrong types are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1)]


class Section(BaseModel):
    """A part of a recipe; keys it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(Section):
    """Where images, tags and (for evaluation or `full`) masks come from."""

    path: Path | None = Field(None, description="folder, table or annotation file; the command line's argument sets it")
    format: Literal["auto", "table", "folders", "coco", "voc"] = "auto"
    classes: tuple[str, ...] | None = Field(None, description="names in id order; none: those of the data")
    background: bool = Field(True, description="false where every pixel has one of the classes")
    masks: Path | None = Field(None, description="folder of mask PNGs; none: where the format keeps them")
    mask_classes: tuple[str, ...] | None = Field(None, description="names of the mask ids 1, 2, …; none: the data's list")
    untagged: Literal["skip", "negative", "error"] = Field("skip", description="what an image without a tag means")
    tag_source: Literal["annotations", "masks"] = Field("annotations", description="VOC: XML files or the masks")
    train: tuple[str, ...] | None = Field(None, description="splits to learn from; none: all but the evaluated")
    evaluate: tuple[str, ...] | None = Field(None, description="splits to evaluate on; none: val or test if they exist")


class ViewsConfig(Section):
    """The augmented views of a training image."""

    crop: Positive = Field(448, description="side of the square crop, in pixels")
    scale: tuple[float, float] = Field((0.5, 2.0), description="random rescale of the image before the crop")
    resize_long: tuple[int, int] | None = Field(None, description="instead: long side drawn from this range, in pixels")
    flip: Share = 0.5
    weak_area: tuple[float, float] = Field((0.4, 1.0), description="area of the weak view's random resized crop")
    jitter: tuple[float, float, float, float] = Field(
        (0.4, 0.4, 0.2, 0.1), description="brightness, contrast, saturation, hue of the contrast views"
    )


class BackboneConfig(Section):
    """Any timm network."""

    name: str = Field("vit_base_patch16_224", description="a timm model name")
    weights: str | None = Field(None, description="hub name (timm/…, hf-hub:…), a local file, or none: from scratch")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    stem: Literal["patch", "conv"] = Field("patch", description="conv: convolutions before a ViT trained from scratch")
    output_stride: Literal[8, 16, 32] = Field(16, description="of a CNN; a ViT has its patch size")
    mean: tuple[float, float, float] | None = Field(None, description="of RGB in 0..1; none: the network's own")
    std: tuple[float, float, float] | None = None
    freeze_norm: bool | None = Field(
        None, description="batch norm keeps its statistics and scale; none: where weights are given"
    )


class PseudoMaskConfig(Section):
    """CAM to pseudo mask: two background scores, PAR, agreement (SeCo, step 4)."""

    high: Share = Field(0.7, description="background score that only sure foreground exceeds")
    low: Share = Field(0.25, description="background score that only sure background stays under")
    refine: Literal["par", "none"] = "par"


class MethodSection(Section):
    """What the sections of all methods share: the name, which says whose section it is."""

    name: str


class CamConfig(MethodSection):
    """Plain CAM: a classifier, its class activation maps, and a decoder trained on their pseudo masks."""

    name: Literal["cam"] = "cam"
    pooling: Literal["max", "mean"] = Field("mean", description="of the token map before the classifier")
    scales: Scales = Field((1.0, 0.5, 0.75, 1.5), description="of the CAMs the decoder is trained on")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    decoder_from: int = Field(2000, ge=0, description="step from which the decoder learns")
    decoder_weight: float = Field(0.12, ge=0)


class FullConfig(MethodSection):
    """The same decoder trained on true masks: the ceiling a tag-trained model is measured against."""

    name: Literal["full"] = "full"


Accident = Literal["patch_area", "strong_flip", "view_tag", "ptc_box", "key_gradients", "reseed"]


class SecoConfig(MethodSection):
    """SeCo (CVPR 2024). Defaults are the paper's VOC constants."""

    name: Literal["seco"] = "seco"
    pooling: Literal["max", "mean"] = "max"
    scales: Scales = Field((1.0, 0.5, 0.75, 1.5), description="of the CAMs inside a step")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    pseudo_mask_last_from: int = Field(0, ge=0, description="step from which pseudo masks come from the last CAM")
    region_last_from: int = Field(10_000, ge=0, description="step from which regions come from the last CAM, not the auxiliary")
    patches: Positive = Field(10, description="patches cut from an image")
    patch_size: Positive = Field(64, description="side of a patch, in pixels")
    patch_area: Share = Field(0.2, description="occupied share at or under which a patch is background")
    projection_hidden: Positive = 2048
    queue: Positive = Field(4608, description="entries of the queue")
    teacher_momentum: Share = 0.999
    prototypes_from: int = Field(600, ge=0, description="step from which prototypes move")
    prototype_momentum: Share = 0.9
    lil_form: Literal["reference", "supcon"] = Field("reference", description="local contrast: as released, or as meant")
    lil_temperature: float = Field(0.08, gt=0)
    lig_temperature: float = Field(0.1, gt=0)
    ptc_weight: float = Field(0.3, ge=0)
    lil_weight: float = Field(0.5, ge=0)
    lig_weight: float = Field(0.5, ge=0)
    seg_weight: float = Field(0.12, ge=0)
    reg_weight: float = Field(0.05, ge=0)
    energy_weight: float = Field(1e-7, ge=0)
    ptc_from: int = Field(0, ge=0)
    contrast_from: int = Field(1000, ge=0)
    decoder_from: int = Field(2000, ge=0)
    accidents: tuple[Accident, ...] = Field(
        ("patch_area",), description="accidents of the reference to reproduce; see docs/methods/seco"
    )


class OptimizerConfig(Section):
    """The optimiser and its schedule: linear warm-up, then (1 - t/steps)^power."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(6e-5, gt=0, description="of the backbone")
    head_scale: float = Field(10.0, gt=0, description="the heads' lr over the backbone's")
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: Share = 0.9
    warmup: int = Field(1500, ge=0, description="steps")
    warmup_factor: float = Field(1e-6, gt=0, le=1, description="factor of lr at step 0")
    power: float = Field(0.9, ge=0)
    clip: float | None = Field(None, gt=0, description="largest gradient norm; none: not clipped")


class TrainingConfig(Section):
    """Length, batch, and how often things happen. One step is one update of the weights."""

    steps: Positive = 20_000
    batch: Positive = Field(4, description="images a step over all devices")
    workers: int = Field(2, ge=0, description="loader processes a device")
    seed: int = 0
    log_every: Positive = 20
    evaluate_every: int = Field(0, ge=0, description="0: only at the end")
    checkpoint_every: int = Field(500, ge=0, description="0: only at the end")
    devices: Positive = Field(1, description="processes, each with its share of the batch")
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16 where the hardware multiplies it, else fp32"
    )


class InferenceConfig(Section):
    """How images go through the trained network."""

    size: int | None = Field(448, gt=0, description="square side images are resized to; none: their own size")
    long_side: int | None = Field(None, gt=0, description="instead: long side, aspect kept")
    scales: Scales = (1.0,)
    flip: bool = True
    background: Share = Field(0.5, description="background score against CAMs when labelling with tags")
    refine: Literal["none", "par", "crf"] = "none"
