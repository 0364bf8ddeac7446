"""YAML that is small as text and huge, endless or no YAML at all once it is read."""

import time

import pytest
import yaml

from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe
from tagmask.recipes.yaml_safe import load_yaml


def bomb(line: str) -> str:
    lines = (line.format(level, ", ".join([f"*a{level - 1}"] * 9)) for level in range(1, 12))
    return "a0: &a0 {x: 1}\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb("a{0}: &a{0} [{1}]"), "once its aliases are written out"),
        (bomb("a{0}: &a{0} {{<<: [{1}]}}"), "once its aliases are written out"),
        ("a: &a [*a]", "once its aliases are written out"),
        ("[" * 100_000, "nested deeper than 50 levels"),
        ("- " * 100_000, "nested deeper than 50 levels"),
        ("[" + "1," * 30_000 + "]", "holds more than 25000 values"),
        ("x" * 2_000_000, "longer than 1048576 characters"),
        ("a: " + "9" * 5000, "over 300 digits"),
        ("a: 0x" + "f" * 9000, "over 300 digits"),
        ("a: 2020-99-99", "does not fit its kind"),
        ("!!timestamp 5", "does not fit its kind"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
    ],
    ids=range(12),
)
def test_bad_input(text, message):
    started = time.process_time()
    with pytest.raises(yaml.YAMLError, match=message):
        load_yaml(text)
    assert time.process_time() - started < 5


def test_plain_values_and_a_few_aliases_are_read():
    assert load_yaml("a: &a [1, 2.5, yes]\nb: *a\nc: {<<: {d: x}}") == {
        "a": [1, 2.5, True],
        "b": [1, 2.5, True],
        "c": {"d": "x"},
    }


def test_recipes_are_read_by_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("method: cam\n" + bomb("a{0}: &a{0} [{1}]"))
    with pytest.raises(TagmaskError, match=r"recipe\.yaml: not a recipe: holds more than"):
        load_recipe(path)
    with pytest.raises(TagmaskError, match="the value is not YAML"):
        load_recipe({"method": "cam"}, ["backbone.options=" + "[" * 100_000])
