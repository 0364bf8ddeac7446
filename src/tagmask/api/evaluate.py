"""The verb `evaluate`: a run, or a folder of masks, against the ground truth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tagmask.data.cam_files import CLASSES
from tagmask.data.dataset import Dataset, PathLike, listed_classes
from tagmask.data.mended import doubt_own_masks
from tagmask.data.splits import open_data, to_evaluate
from tagmask.engine.inference import Source, check_source
from tagmask.engine.model import is_run, load, overridden
from tagmask.errors import TagmaskError
from tagmask.evaluation.folder import evaluate_folder
from tagmask.evaluation.method import evaluate_cams, evaluate_method
from tagmask.evaluation.result import Result
from tagmask.evaluation.sweep import Sweep
from tagmask.recipes.load import load_recipe

logger = logging.getLogger(__name__)


def evaluate(
    predictions: PathLike,
    data: PathLike | None = None,
    *,
    split: Sequence[str] | None = None,
    protocol: str = "seco",
    source: Source = "decoder",
    tags: bool = False,
    recipe: PathLike | None = None,
    overrides: Iterable[str] = (),
) -> tuple[Result, Sweep | None]:
    """Compare a run, or a folder of masks, with the ground truth.

    Args:
        predictions: a run folder, `hf-hub:OWNER/NAME` of a pushed one, or a folder of `NAME.png` label maps.
        data: the data set with ground-truth masks; by default the run's own.
        split: the splits; by default the recipe's evaluated ones.
        protocol: `seco`, `sccam`, `seam`, `eps` or `irn`.
        source: of a run: its decoder, or its CAMs (which are given the tags).
        tags: whether a run's decoder is told the images' tags.
        recipe: for a folder of masks, the recipe whose `data` section says how to read `data`.
        overrides: of the recipe.

    Returns:
        the scores, and for CAMs the sweep over background scores.

    Raises:
        TagmaskError: whatever is wrong with any of them.
    """
    check_source(source)
    if is_run(predictions):
        if recipe is not None:
            raise TagmaskError("recipe: a run has its own; change it by overrides (--set data.…, inference.…)")
        model = load(predictions)
        if source == "decoder":
            model.check_decoder()
        chosen = overridden(model.run.recipe, overrides, only=("inference", "data"), but=("data.classes",))
        found = open_data(data, chosen.data, model.classes)
        dataset = to_evaluate(found, chosen.data, split)
        doubt_own_masks(dataset, chosen.data.review)
        if source == "cam":
            result, sweep = evaluate_cams(model.method, dataset, chosen.inference, protocol=protocol)
            return _with_warning(result, dataset), sweep
        result = evaluate_method(model.method, dataset, chosen.inference, source=source, protocol=protocol, tags=tags)
        return _with_warning(result, dataset), None
    if source != "decoder" or tags:
        raise TagmaskError(
            f"{predictions}: a folder of masks, which have no source and are told no tags; leave both out"
        )
    config = load_recipe(recipe, overrides).data if recipe else load_recipe({"method": "cam"}, overrides).data
    dataset = to_evaluate(open_data(data, config), config, split)
    doubt_own_masks(dataset, config.review)
    listed = Path(predictions) / CLASSES
    if listed.is_file() and (names := listed_classes(listed)) != dataset.classes:
        raise TagmaskError(
            f"{listed}: the label ids there stand for {', '.join(names)}, those of the data for "
            f"{', '.join(dataset.classes)}; give --set 'data.classes=[{', '.join(names)}]' if these are the same things"
        )
    return _with_warning(evaluate_folder(Path(predictions), dataset, protocol=protocol), dataset), None


def _with_warning(result: Result, dataset: Dataset) -> Result:
    """Warn where the ground truth shows no class, so that the scores are those of the background alone."""
    if dataset.background and np.isnan(result.scores.recall[1:]).all():
        logger.warning(
            "the ground truth shows none of the classes: the score is of the background alone. A mask holds a class's "
            "id, 1 for the first one; 255 means ignored"
        )
    return result
