"""Write docs/recipes.md from the pydantic models: `python docs/generate_recipes.py`, as `make docs` does."""

from __future__ import annotations

import itertools
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tagmask.recipes.load import RECIPES, Recipe, recipe_names
from tagmask.recipes.sections import MethodSection, Section, method_names, section_of

PAGE = Path(__file__).with_name("recipes.md")
INTRODUCTION = """\
# Recipes

<!-- written by docs/generate_recipes.py from the models; change those -->

A recipe is everything that decides a run, as one YAML file: sections, each with the keys below. What it does not name
has the default. A key that does not exist is an error, and so is a value of a wrong type; both name the key.

`tagmask train photos/ --recipe NAME` takes a recipe of the package, `--recipe my.yaml` one of yours, and
`--set section.key=value` changes one key. Without `--recipe` one is chosen from the data and the machine. The run
folder holds the recipe with every default written out, as `recipe.yaml`; it can be given to `--recipe` again.

A stage, `segmenter` or `refine.affinity`, may have `views`, `backbone`, `optimizer` and `training` of its own; without
one it takes the recipe's. `--set segmenter.training.steps=400` takes the recipe's training and changes its steps. A
section that is given whole, `--set 'segmenter.training={steps: 400}'` or in the file, has the default for what it does
not name.

```yaml
method: {name: cam, decoder_from: 500}   # or only a name: `method: cam`
backbone: {name: mobilenetv2_100, weights: timm/mobilenetv2_100.ra_in1k}
views: {crop: 224}
training: {steps: 1500, batch: 8}
```
"""
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", Any: "anything"}
SIGNS = {"gt": "above", "ge": "from", "le": "to", "lt": "below"}


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Recipes of the package\n", _packaged()]
    for key, info in Recipe.model_fields.items():
        if key == "method":
            models = {name: section_of(name) for name in method_names()}
            parts += [
                _section(f"method: {name}", "method", model, own_name=name) for name, model in models.items() if model
            ]
            continue
        (model,) = _sections(info.annotation)
        optional = type(None) in typing.get_args(info.annotation)
        parts.append(
            _section(key, key, model, note="Optional; left out, the stage does not exist." if optional else "")
        )
    return "\n".join(parts)


def is_comment(line: str) -> bool:
    """Tell whether a line of YAML is a comment."""
    return line.startswith("#")


def _packaged() -> str:
    rows = []
    for name in recipe_names():
        lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(is_comment, lines))
        sentence = re.split(r"(?<=\.) (?=[A-Z-])", comment)[0]
        rows.append(f"| `{name}` | {sentence} |")
    return "| recipe | what it is |\n| --- | --- |\n" + "\n".join(rows) + "\n"


def _section(title: str, prefix: str, model: type[BaseModel], *, own_name: str = "", note: str = "") -> str:
    rows = [
        f"| `{key}` | {_values(info)} | {_default(info)} | {_escape(info.description or '')} |"
        for key, info in _keys(prefix, model, own_name)
    ]
    text = " ".join(part for part in (" ".join((model.__doc__ or "").split()), note) if part)
    if not rows:
        return f"## {title}\n\n{text} It has no keys of its own.\n"
    return (
        f"## {title}\n\n{text}\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _keys(prefix: str, model: type[BaseModel], own_name: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every key under a section with its dotted path; sections inside it are walked through."""
    for key, info in model.model_fields.items():
        if key == "name" and own_name:
            continue
        inner = _sections(info.annotation)
        # A section that stands in for one of the recipe's, or for a method's, is described there.
        if len(inner) == 1 and inner[0] is not MethodSection and type(None) not in typing.get_args(info.annotation):
            yield from _keys(f"{prefix}.{key}", inner[0], "")
        else:
            yield f"{prefix}.{key}", info


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _sections(part)]


def _values(info: FieldInfo) -> str:
    if _sections(info.annotation) == [MethodSection]:
        return "name or section of a method"
    if _sections(info.annotation):
        return "a section like the recipe's own"
    bounds = _bounds(info.metadata)
    return _words(info.annotation) + (f", {bounds}" if bounds else "")


def _bounds(metadata: typing.Iterable[Any]) -> str:
    found = []
    for item in metadata:
        for part in item if isinstance(item, annotated_types.GroupedMetadata) else (item,):
            found += [f"{word} {getattr(part, sign):g}" for sign, word in SIGNS.items() if hasattr(part, sign)]
        if isinstance(item, FieldInfo):
            found.append(_bounds(item.metadata))
    return " ".join(part for part in found if part)


def _words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "none"
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        bounds = _bounds(arguments[1:])
        return _words(arguments[0]) + (f" {bounds}" if bounds else "")
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part) for part in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_words(arguments[0])}"
        return f"{len(arguments)} of {_words(arguments[0])}"
    if origin is dict:
        return "mapping"
    raise TypeError(f"no words for {annotation!r}; add them to {Path(__file__).name}")


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)  # pyright: ignore[reportCallIssue]
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_plain(item) for item in value)}]`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
