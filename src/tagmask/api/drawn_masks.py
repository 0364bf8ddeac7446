"""What `data.use_masks` finds, looked at before the first training begins."""

from __future__ import annotations

import logging
from pathlib import Path

from tagmask.data.dataset import Dataset
from tagmask.data.drawn import check_drawn
from tagmask.data.mended import mask_ledger
from tagmask.data.readers.assemble import NO_MASK_FITS
from tagmask.engine.run import STAGES
from tagmask.errors import TagmaskError
from tagmask.recipes.load import Recipe

logger = logging.getLogger(__name__)


def check_masks(recipe: Recipe, training: Dataset) -> None:
    """Say how many masks `data.use_masks` finds; raise a TagmaskError where nothing would come of them."""
    if recipe.segmenter is None:
        raise TagmaskError(
            "data.use_masks: masks of a few images teach a segmenter, and this recipe has none; choose one that has, "
            "such as -r cam/default, with an -o of its own"
        )
    masks = sum(record.mask is not None for record in training.records)
    if not masks:
        where = recipe.data.use_masks
        unfit = next((line for line in training.skipped if NO_MASK_FITS in line), None)
        if where is True and unfit is not None:
            raise TagmaskError(f"data.use_masks: {unfit}; rename the masks")
        raise TagmaskError(
            "data.use_masks: no training image has a drawn mask; put masks NAME.png into masks/ beside images/, or "
            "name their folder in data.masks. What tagmask wrote there counts once it is mended on the page (tagmask "
            "serve)"
            if where is True
            else _unmended(Path(str(where)), recipe, training)
        )
    check_drawn(training)
    logger.info("%d of %d training images have a mask, which takes the place of the one made", masks, len(training))


def _unmended(folder: Path, recipe: Recipe, training: Dataset) -> str:
    """Say why a folder that `data.use_masks` names holds no mask to learn from."""
    if mask_ledger(folder).is_new:
        name = training.records[0].name
        return f"data.use_masks {folder}: holds no mask of a training image; for {name!r} expected {name}.png in it"
    if recipe.data.review is not None:
        return f"data.use_masks: no mask in {folder} was mended, and {recipe.data.review} keeps none"
    return (
        f"data.use_masks: no mask in {folder} was mended; mend some on the page (tagmask serve), or name its table in "
        "data.review to take those that were kept"
    )


def check_apart(recipe: Recipe, folder: Path) -> None:
    """Raise a TagmaskError where drawn masks lie in the folder of a stage, of this run or of another.

    A stage makes its files anew, and nothing there says which of them a person drew.
    """
    made = [(folder / name).resolve() for name in STAGES]
    for key in ("use_masks", "masks"):
        named = getattr(recipe.data, key)
        if not isinstance(named, Path):
            continue
        if any(named.resolve().is_relative_to(place) for place in made):
            raise TagmaskError(
                f"data.{key} {named}: holds what this run makes and replaces; copy the masks that you mended to a "
                "folder of their own, and name that"
            )
        if key == "use_masks" and any(_is_stage(place) for place in (named.resolve(), *named.resolve().parents)):
            raise TagmaskError(
                f"data.use_masks {named}: holds what a run made, which nobody drew; copy the masks that you mended to "
                "a folder of their own, and name that"
            )


def _is_stage(place: Path) -> bool:
    return place.name in STAGES and (place.parent / "run.json").is_file()
