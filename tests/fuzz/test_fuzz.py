"""Every reader of other people's files ends well, or with a TagmaskError, whatever the file holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tagmask.errors import TagmaskError
from tagmask.recipes.load import Recipe, load_recipe
from tests.fuzz.targets import CORPUS, TARGETS, mutated, seeds, try_input

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", list(TARGETS))
def test_whole_files_are_read(name: str, folder: Path) -> None:
    for number, content in enumerate(TARGETS[name].whole):
        place = folder / f"whole-{name}-{number}"
        for other, data in {**TARGETS[name].beside, TARGETS[name].name: content}.items():
            (place / other).parent.mkdir(parents=True, exist_ok=True)
            (place / other).write_bytes(data)
        if name == "export mark":  # it names a file of other content
            with pytest.raises(TagmaskError, match="was changed since the export"):
                TARGETS[name].read(place)
        else:
            TARGETS[name].read(place)


@pytest.mark.parametrize("name", list(TARGETS))
@QUICK
@given(seed=st.integers(0, 2**32))
def test_spoilt_files_are_refused_by_name(name: str, seed: int, folder: Path) -> None:
    finding, _ = try_input(name, mutated(name, random.Random(seed)), folder)
    assert finding is None, f"{finding}; the input is mutated({name!r}, random.Random({seed}))"


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_once_a_finding_is_none_any_more(path: Path, folder: Path) -> None:
    name = path.name.rpartition("-")[0].replace("_", " ")
    assert path.read_bytes() in seeds(name)
    finding, _ = try_input(name, path.read_bytes(), folder)
    assert finding is None, finding


KEYS = sorted(
    f"{section}.{key}"
    for section, field in Recipe.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {})
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(QUICK, max_examples=300)
@given(key=st.sampled_from(KEYS), value=VALUES)
@example("backbone.options", {"checkpoint_path": "/etc/passwd"})
@example("inference.size", 10**30)
def test_any_value_of_any_key_is_read_or_refused(key: str, value: object) -> None:
    section, _, name = key.partition(".")
    try:
        recipe = load_recipe({"method": "cam", section: {name: value}})
    except TagmaskError:
        return
    assert load_recipe(recipe.model_dump(mode="json")) == recipe
