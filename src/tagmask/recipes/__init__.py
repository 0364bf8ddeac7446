"""Recipes: what decides a run. The packaged ones lie beside this file as METHOD/DATASET.yaml."""

from pathlib import Path

RECIPES = Path(__file__).parent


def recipe_names() -> list[str]:
    """List the recipes that come with the package, as METHOD/DATASET."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml"))
