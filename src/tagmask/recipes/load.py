"""Recipes: everything that decides a run, as pydantic models. Unknown keys and wrong types are errors."""

from __future__ import annotations

import contextlib
import copy
import difflib
import string
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tagmask.errors import TagmaskError, first_line, no_such
from tagmask.recipes import RECIPES as RECIPES
from tagmask.recipes import recipe_names as recipe_names
from tagmask.recipes.data_section import DataConfig
from tagmask.recipes.sections import (
    AnyMethod,
    BackboneConfig,
    InferenceConfig,
    OptimizerConfig,
    Section,
    TrainingConfig,
    ViewsConfig,
    section_of,
)
from tagmask.recipes.sections import PseudoMaskConfig as PseudoMaskConfig
from tagmask.recipes.stages import RefineConfig, SegmenterConfig, StageTraining
from tagmask.recipes.yaml_safe import BoundedLoader, load_yaml


class Recipe(Section):
    """A whole run."""

    method: AnyMethod
    data: DataConfig = DataConfig()
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    refine: RefineConfig | None = None
    segmenter: SegmenterConfig | None = None

    @property
    def staged(self) -> bool:
        """Whether the run is of several stages: CAMs of a classifier, masks of the CAMs, a segmenter on them."""
        return self.method.method_class.staged or self.refine is not None or self.segmenter is not None

    def dump(self) -> str:
        """The fully resolved recipe as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply `key.path=value` overrides, values in YAML.

    Args:
        source: the name of a recipe of the package (`seco/voc`), a YAML file, or a mapping.
        overrides: as given to `--set`. A key of a section that a stage does not have, as `segmenter.training.steps`,
            gives it the recipe's own section with that key changed.

    Raises:
        TagmaskError: no such recipe, not YAML, an unknown key or a wrong type; names the key's path.
    """
    if isinstance(source, Mapping):
        values, origin = copy.deepcopy(dict(source)), "recipe"
    else:
        path = _find(source)
        values, origin = _read(path), str(path)
    # Those of stages come last, for a stage may take over a section of the recipe, with what was changed there.
    for override in sorted(overrides, key=lambda text: text.startswith(("segmenter", "refine"))):
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TagmaskError(_explain(error, values, origin)) from None


def _find(source: str | Path) -> Path:
    packaged = RECIPES / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    if packaged.is_file():
        return packaged
    if path.is_dir():
        raise TagmaskError(
            f"{path}: a directory, not a recipe; give a YAML file or one of: {', '.join(recipe_names())}"
        )
    if path.suffix in (".yaml", ".yml"):
        raise no_such(path, "recipe", f"give a YAML file or one of: {', '.join(recipe_names())}")
    if own := [name for name in recipe_names() if name.startswith(f"{source}/")]:
        first = f"{source}/default" if f"{source}/default" in own else own[0]
        raise TagmaskError(f"no recipe {str(source)!r}; did you mean {first!r}? there are: {', '.join(own)}")
    near = difflib.get_close_matches(str(source), recipe_names(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise TagmaskError(f"no recipe {str(source)!r}; {hint}there are: {', '.join(recipe_names())}, or give a YAML file")


class _Loader(BoundedLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} stands twice, again in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = load_yaml(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TagmaskError(f"{path}: not a recipe: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise TagmaskError(f"{path}: a recipe is a mapping of sections (method, data, …), not {type(values).__name__}")
    return values


_MARKS = {*string.punctuation, " ", "\t"} - {"~"}
"""Marks that mean themselves as a value, such as a separator; in YAML most of them begin something else."""


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise TagmaskError(f"--set {override}: expected KEY.PATH=VALUE, such as optimizer.lr=1e-4")
    try:
        value = text if len(text) == 1 and text in _MARKS else load_yaml(text)
    except yaml.YAMLError:
        raise TagmaskError(f"--set {override}: the value is not YAML; put quotes around it") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-4 as a string
    *parents, last = key.split(".")
    if parents[:1] == ["method"] and isinstance(values.get("method"), str):
        values["method"] = {"name": values["method"]}
    target = values
    for depth, parent in enumerate(parents, start=1):
        if target.get(parent) is None:
            target[parent] = _begun(values, parents[:depth])
        target = target[parent]
        if not isinstance(target, dict):
            raise TagmaskError(f"--set {override}: {parent!r} is a value, not a section")
    target[last] = value


def _begun(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Give a section that is not there yet its values: a stage's training begins as the recipe's, others are empty."""
    *stage, name = path
    if stage in (["segmenter"], ["refine", "affinity"]) and name in StageTraining.model_fields:
        return copy.deepcopy(values.get(name) or {})
    return {}


def _explain(error: ValidationError, values: Mapping[str, Any], origin: str) -> str:
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        name = ".".join(path) or "recipe"
        if item["type"] == "extra_forbidden":
            keys = _keys(item["loc"], values)
            near = difflib.get_close_matches(path[-1], keys, n=1, cutoff=0.5)
            hint = f"did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else f"keys: {', '.join(keys)}"
            lines.append(f"{name}: unknown key; {hint}")
        elif item["type"] == "no_method":
            lines.append(f"method.name: {item['msg']}")
        elif item["type"] == "tuple_type":
            lines.append(f"{name}: expected a list, not {item['input']!r}; write [{item['input']}]")
        else:
            given = "" if isinstance(item["input"], dict) else f", not {item['input']!r}"
            lines.append(f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}{given}")
    return f"{origin}: " + "; ".join(lines)


def _keys(location: tuple[int | str, ...], values: Mapping[str, Any]) -> list[str]:
    """The keys that are valid where the last part of `location` stands, in a recipe of `values`."""
    models: list[type[BaseModel]] = [Recipe]
    here: Any = values
    for part in location[:-1]:
        here = here.get(part) if isinstance(here, Mapping) else None
        if part == "method":
            # A segmenter's method has a name of its own, where it is another than `full`.
            section = section_of(here.get("name", "full") if isinstance(here, Mapping) else here)
            models = [section] if section else []
            continue
        fields = [model.model_fields for model in models]
        models = [section for keys in fields if part in keys for section in _sections(keys[str(part)].annotation)]
    return sorted({key for model in models for key in model.model_fields})


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]
