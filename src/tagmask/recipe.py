"""Recipes: everything that decides a run, as pydantic models. Unknown keys and wrong types are errors."""

from __future__ import annotations

import contextlib
import difflib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tagmask.errors import TagmaskError

RECIPES = Path(__file__).parent / "recipes"

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


class CamConfig(Section):
    """Plain CAM: a classifier, its class activation maps, and a decoder trained on their pseudo masks."""

    name: Literal["cam"] = "cam"
    pooling: Literal["max", "mean"] = Field("max", description="of the token map before the classifier")
    scales: Scales = Field((1.0, 0.5, 0.75, 1.5), description="of the CAMs the decoder is trained on")
    pseudo_mask: PseudoMaskConfig = PseudoMaskConfig()
    decoder_from: int = Field(2000, ge=0, description="step from which the decoder learns")
    decoder_weight: float = Field(0.12, ge=0)


class FullConfig(Section):
    """The same decoder trained on true masks: the ceiling a tag-trained model is measured against."""

    name: Literal["full"] = "full"


Accident = Literal["patch_area", "strong_flip", "view_tag", "ptc_box", "key_gradients", "reseed"]


class SecoConfig(Section):
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


MethodConfig = Annotated[CamConfig | FullConfig | SecoConfig, Field(discriminator="name")]


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


class Recipe(Section):
    """A whole run."""

    method: MethodConfig
    data: DataConfig = DataConfig()
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="before")
    @classmethod
    def _method_by_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("method"), str):
            return {**values, "method": {"name": values["method"]}}
        return values

    def dump(self) -> str:
        """The fully resolved recipe as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def recipe_names() -> list[str]:
    """The recipes that come with the package, as METHOD/DATASET."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml"))


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides, values in YAML.

    Args:
        source: the name of a recipe of the package (`seco/voc`), a YAML file, or a mapping.
        overrides: as given to `--set`.

    Raises:
        TagmaskError: no such recipe, not YAML, an unknown key or a wrong type; names the key's path.
    """
    if isinstance(source, Mapping):
        values, origin = dict(source), "recipe"
    else:
        path = _find(source)
        values, origin = _read(path), str(path)
    for override in overrides:
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TagmaskError(_explain(error, origin)) from None


def _find(source: str | Path) -> Path:
    packaged = RECIPES / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    if packaged.is_file():
        return packaged
    if path.is_dir():
        raise TagmaskError(f"{path}: a directory, not a recipe; give a YAML file or one of: {', '.join(recipe_names())}")
    near = difflib.get_close_matches(str(source), recipe_names(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise TagmaskError(f"no recipe {str(source)!r}; {hint}there are: {', '.join(recipe_names())}, or give a YAML file")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TagmaskError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise TagmaskError(f"{path}: a recipe is a mapping of sections (method, data, …), not {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise TagmaskError(f"--set {override}: expected KEY.PATH=VALUE, such as optimizer.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise TagmaskError(f"--set {override}: the value is not YAML; put quotes around it") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-4 as a string
    *parents, last = key.split(".")
    if parents[:1] == ["method"] and isinstance(values.get("method"), str):
        values["method"] = {"name": values["method"]}
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise TagmaskError(f"--set {override}: {parent!r} is a value, not a section")
    target[last] = value


def _explain(error: ValidationError, origin: str) -> str:
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        if path[:1] == ["method"] and len(path) > 2:
            del path[1]  # the discriminator's value, which is no key
        name = ".".join(path) or "recipe"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], _keys(item["loc"]), n=1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"keys: {', '.join(_keys(item['loc']))}"
            lines.append(f"{name}: unknown key; {hint}")
        elif item["type"] == "union_tag_invalid":
            lines.append(f"method.name: no method {item['input'].get('name')!r}; there are: {item['ctx']['expected_tags']}")
        else:
            given = "" if isinstance(item["input"], dict) else f", not {item['input']!r}"
            lines.append(f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}{given}")
    return f"{origin}: " + "; ".join(lines)


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are valid where the last part of `location` stands."""
    models: list[type[BaseModel]] = [Recipe]
    for part in location[:-1]:
        fields = [(model, model.model_fields) for model in models]
        chosen = [model for model, keys in fields if "name" in keys and keys["name"].default == part]
        inner = [section for _, keys in fields if part in keys for section in _sections(keys[str(part)].annotation)]
        models = chosen or inner
    return sorted({key for model in models for key in model.model_fields})


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]
