"""Every key of a recipe is used: a recipe of ours sets it, or a page says what it is for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import tagmask
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import MethodSection, method_names, section_of

ROOT = Path(__file__).parents[2]
GENERATED = "recipes.md"


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that an annotation such as `Section | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from sections_in(inner)


def keys_of(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield (section, key) for every key in a section and in those below it."""
    for key, field in section.model_fields.items():
        below = [inner for inner in sections_in(field.annotation) if inner is not MethodSection]
        if not below:
            yield section.__name__, key
        for inner in below:
            yield from keys_of(inner)


def set_keys(section: type[BaseModel], values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (section, key) for every key that a recipe's YAML sets."""
    for key, value in values.items():
        yield section.__name__, key
        if key == "method":
            name = value if isinstance(value, str) else value["name"]
            yield from set_keys(section_of(name), value if isinstance(value, dict) else {})
        elif isinstance(value, dict) and key in section.model_fields:
            for inner in sections_in(section.model_fields[key].annotation):
                yield from set_keys(inner, value)


def test_every_key_is_set_by_a_recipe_or_explained_on_a_page():
    recipes = Path(tagmask.__file__).parent / "recipes"
    used = {pair for path in recipes.rglob("*.yaml") for pair in set_keys(Recipe, yaml.safe_load(path.read_text()))}
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md") if page.name != GENERATED)
    explained = set(re.findall(r"[`.](\w+)[`:=]", pages))
    known = {*keys_of(Recipe), *(pair for name in method_names() for pair in keys_of(section_of(name)))}
    unused = sorted(f"{section}.{key}" for section, key in known - used if key not in explained)
    assert not unused, f"set by no recipe and on no page: {unused}"
