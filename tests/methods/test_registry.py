"""Methods that are registered from outside, and what is refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal

import pytest

from tagmask.errors import TagmaskError
from tagmask.methods import registry, seco
from tagmask.methods.base import Method
from tagmask.recipes import load as recipe
from tagmask.recipes import sections
from tagmask.recipes.load import Recipe, load_recipe
from tagmask.recipes.sections import MethodSection


class MineConfig(MethodSection):
    name: Literal["mine"] = "mine"
    strength: float = 0.5


class Mine(Method):
    pass


@pytest.fixture(autouse=True)
def forgotten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sections.method_names():
        sections.section_of(name)  # what is loaded only in the copy would be forgotten with it
    known = dict(sections.METHODS)
    monkeypatch.setattr(sections, "METHODS", known)
    monkeypatch.setattr(registry, "METHODS", known)


def test_registered_method_is_a_name_like_any_other() -> None:
    registry.register(MineConfig)(Mine)
    made = load_recipe({"method": {"name": "mine", "strength": 0.25}})
    assert made.method == MineConfig(strength=0.25)
    assert Recipe.model_validate(recipe.yaml.safe_load(made.dump())) == made
    with pytest.raises(TagmaskError, match=r"did you mean 'method\.strength'"):
        load_recipe({"method": "mine"}, ["method.strengt=1"])


def test_name_of_another_method_is_refused() -> None:
    class OtherConfig(MethodSection):
        name: Literal["seco"] = "seco"

    assert sections.METHODS["seco"] is seco.SecoConfig  # known, as its module has been imported

    with pytest.raises(TagmaskError, match="there is a method 'seco' already"):
        registry.register(OtherConfig)(Mine)


def test_section_without_a_name_is_refused() -> None:
    with pytest.raises(TagmaskError, match="no default for `name`"):
        registry.register(MethodSection)(Mine)


def test_entry_point_is_loaded_when_its_name_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        def load(self) -> None:
            registry.register(MineConfig)(Mine)

    found = sections.entry_points
    mine = {"group": "tagmask.methods", "name": "mine"}
    monkeypatch.setattr(sections, "entry_points", lambda **asked: [Plugin()] if asked == mine else found(**asked))
    assert load_recipe({"method": "mine"}).method.name == "mine"
    with pytest.raises(TagmaskError, match="no method 'yours'; there are: "):
        load_recipe({"method": "yours"})


def test_the_former_name_of_register_warns_where_it_is_called() -> None:
    with pytest.warns(DeprecationWarning, match="decorator `register`") as told:
        registry.register_method(MineConfig, Mine)
    assert told[0].filename == __file__
    assert sections.METHODS["mine"].method_class is Mine


def test_a_backbone_without_its_weights_has_norms_as_frozen_as_with_them() -> None:
    for weights, frozen, expected in (
        ("a.pth", None, True),
        (None, None, False),
        ("a.pth", False, False),
        (None, True, True),
    ):
        config = sections.BackboneConfig(
            name="resnet18", weights=weights, freeze_norm=frozen, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
        )
        bare = registry.without_weights(config)
        assert (bare.weights, bare.freeze_norm, bare.mean) == (None, expected, config.mean)


@pytest.mark.parametrize(
    ("options", "fetched"), [({}, True), ({"pretrained": True}, True), ({"pretrained": False}, False)]
)
def test_weights_are_fetched_unless_a_state_is_about_to_be_loaded(
    options: dict[str, bool], fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[sections.BackboneConfig] = []

    class Asked(Exception):
        pass

    def noted(config: sections.BackboneConfig) -> None:
        asked.append(config)
        raise Asked

    monkeypatch.setattr(registry, "Backbone", noted)
    backbone = {"name": "resnet18", "weights": "a.pth", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    made = load_recipe({"method": "seco", "backbone": backbone})
    with pytest.raises(Asked):
        registry.build_method(made, 3, **options)
    assert asked[0].weights == ("a.pth" if fetched else None)


def test_no_line_asks_which_method_it_is() -> None:
    """What differs from method to method is an attribute of the method's class or section (docs/adding_a_method.md)."""
    root, names, found = Path(sections.__file__).parents[1], set(sections.method_names()), []
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            said = {part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)}
            asked = [ast.unparse(side).rpartition(".")[2] for side in sides]
            if said & names and {"method", "name"} & set(asked):
                found.append(f"{file.relative_to(root)}:{node.lineno}: {ast.unparse(node)}")
    assert not found, "\n".join(found)
