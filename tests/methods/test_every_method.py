"""Every registered method answers the same questions; devices have a file of their own, `engine/test_devices.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagmask.recipes.sections import method_names
from tests.conftest import staged_recipe, tiny_recipe
from tests.methods.harness import ask

RECIPES = {
    "cam": lambda: tiny_recipe("cam"),
    "full": lambda: tiny_recipe("full"),
    "seco": lambda: tiny_recipe("seco"),
    "sccam": lambda: staged_recipe("sccam"),
    "rca": lambda: staged_recipe("rca"),
}


def test_no_method_is_left_out() -> None:
    assert method_names() == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_it_answers(name: str, tmp_path: Path) -> None:
    ask(RECIPES[name](), tmp_path)


def test_the_first_round_of_sccam_answers(tmp_path: Path) -> None:
    ask(staged_recipe("sccam"), tmp_path, number=0)


def test_seco_answers_with_all_quirks(tmp_path: Path) -> None:
    quirks = "method.quirks=[patch_area,strong_flip,view_tag,ptc_box,single_class,reseed,zero_gradients]"
    ask(tiny_recipe("seco", quirks), tmp_path)


def test_rca_answers_with_all_quirks(tmp_path: Path) -> None:
    recipe = staged_recipe("rca")
    quirks = ("noise_memory", "chained_masks", "attention_products", "denominator_floor", "uint8_maps")
    method = recipe.method.model_copy(update={"quirks": quirks})
    # Products that no softmax bounds are large with random weights, and what bf16 rounds off them is, too.
    ask(recipe.model_copy(update={"method": method}), tmp_path, bf16=1.0)
