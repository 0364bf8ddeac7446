from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from tagmask.errors import TagmaskError
from tagmask.recipes.load import RECIPES, Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipe_is_valid_and_survives_its_own_dump(name: str) -> None:
    recipe = load_recipe(name)
    assert name.startswith(recipe.method.name), "the path is the experiment's name"
    assert Recipe.model_validate(yaml.safe_load(recipe.dump())) == recipe


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("-paper")])
def test_paper_recipe_has_every_quirk_and_trains_in_fp32(name: str) -> None:
    recipe = load_recipe(name)
    quirks = type(recipe.method).model_fields.get("quirks")
    if quirks:
        (quirk, _) = get_args(quirks.annotation)
        assert sorted(recipe.method.quirks) == sorted(get_args(quirk))
    trainings = [recipe.training, *(stage.training for stage in (recipe.segmenter,) if stage)]
    if recipe.refine and recipe.refine.name == "affinity":
        trainings.append(recipe.refine.affinity.training)
    assert {training.precision for training in trainings} == {"32-true"}


def test_packaged_recipes_inherit_nothing() -> None:
    assert all("method" in yaml.safe_load(path.read_text()) for path in RECIPES.glob("*/*.yaml"))


def test_override_is_read_as_yaml() -> None:
    recipe = load_recipe({"method": "seco"}, ["optimizer.lr=1e-4", "method.queue=100", "inference.scales=[1, 1.5]"])
    assert recipe.optimizer.lr == 1e-4
    assert recipe.method.name == "seco"
    assert recipe.method.queue == 100
    assert recipe.inference.scales == (1.0, 1.5)


@pytest.mark.parametrize("stage", ["segmenter", "refine.affinity"])
@pytest.mark.parametrize("absent", ["left out", "none"])
def test_one_key_of_a_stage_changes_that_key_alone(stage: str, absent: str) -> None:
    start = {
        "method": "sccam",
        "refine": {"name": "affinity"},
        "backbone": {"name": "resnet50"},
        "training": {"batch": 3},
    }
    if absent == "none":
        start = yaml.safe_load(load_recipe(start, ["segmenter.start=weights"]).dump())
    changes = [f"{stage}.backbone.weights=mine.pth", f"{stage}.training.steps=7", "backbone.output_stride=8"]
    recipe = load_recipe(start, changes)
    section = recipe.segmenter if stage == "segmenter" else recipe.refine.affinity
    assert section.backbone == recipe.backbone.model_copy(update={"weights": "mine.pth"})
    assert section.backbone.name == "resnet50"
    assert section.backbone.output_stride == 8, "wherever it stands among the changes"
    assert section.training == recipe.training.model_copy(update={"steps": 7})
    assert (section.views, section.optimizer) == (None, None)
    assert (recipe.backbone.weights, recipe.training.batch) == (None, 3)


def test_a_section_of_a_stage_given_whole_is_that_section() -> None:
    start = {"method": "sccam", "backbone": {"name": "resnet50", "weights": "mine.pth"}}
    assert load_recipe(start, ["segmenter.backbone={name: vgg16}"]).segmenter.backbone.weights is None


def test_overrides_leave_the_mapping_as_it_is() -> None:
    start = {"method": {"name": "seco"}, "optimizer": {"lr": 1e-3}}
    load_recipe(start, ["optimizer.lr=1", "method.queue=3", "training.steps=2"])
    assert start == {"method": {"name": "seco"}, "optimizer": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.Lr=1", "optimizer.Lr: unknown key; did you mean 'optimizer.lr'?"),
        ("optimzer.lr=1", "optimzer: unknown key; did you mean 'optimizer'?"),
        ("method.queu=3", "method.queu: unknown key; did you mean 'method.queue'?"),
        ("segmenter.method.past=1", "segmenter.method.past: unknown key; did you mean 'segmenter.method.paste'?"),
        ("method.pseudo_mask.hig=0.3", "did you mean 'method.pseudo_mask.high'?"),
        ("training.steps=many", "training.steps: input should be a valid integer"),
        ("training.steps=0", "training.steps: input should be greater than 0"),
        ("method.name=secoo", "no method 'secoo'; there are: "),
        ("optimizer.lr", "expected KEY.PATH=VALUE"),
        ("optimizer.lr.x=1", "'lr' is a value, not a section"),
        ("data.context=water", "data.context: expected a list, not 'water'; write [water]"),
    ],
)
def test_wrong_override_names_the_key_and_the_nearest(override: str, told: str) -> None:
    start = {"method": {"name": "seco"}, "optimizer": {"lr": 1e-3}}
    with pytest.raises(TagmaskError) as caught:
        load_recipe(start, [override])
    assert told in str(caught.value)


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(TagmaskError, match="did you mean 'seco/voc'"):
        load_recipe("seco/vok")


def test_a_method_in_place_of_a_recipe_names_its_recipes() -> None:
    with pytest.raises(TagmaskError) as caught:
        load_recipe("full")
    assert str(caught.value) == (
        "no recipe 'full'; did you mean 'full/default'? there are: full/default, full/glas, "
        "full/msrc-things, full/voc-animals"
    )


def test_directory_in_place_of_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="a directory, not a recipe"):
        load_recipe(tmp_path)


def test_file_that_is_no_mapping(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("- method\n")
    with pytest.raises(TagmaskError, match=r"recipe\.yaml: a recipe is a mapping"):
        load_recipe(file)


@pytest.mark.parametrize(
    "text", ["method: cam\nmethod: seco\n", "method: cam\ntraining: {steps: 4}\ntraining: {batch: 2}\n"]
)
def test_a_key_that_stands_twice_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    line = text.count("\n")
    with pytest.raises(
        TagmaskError, match=rf"recipe\.yaml: not a recipe: key '\w+' stands twice, again in line {line}"
    ):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_key_that_became_a_constant_is_still_read_with_its_value():
    recipe = load_recipe("seco/voc", ["method.energy_weight=1e-7"])
    assert not hasattr(recipe.method, "energy_weight")


def test_a_key_that_became_a_constant_is_refused_with_another_value():
    with pytest.raises(TagmaskError, match="energy_weight is 1e-07 and no option any more; leave it out"):
        load_recipe("seco/voc", ["method.energy_weight=2e-7"])
