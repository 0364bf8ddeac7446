"""The score that a finished training ends with: held-out images, labelled as `predict` labels new ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from tagmask.data.dataset import Dataset
from tagmask.data.files import write_text
from tagmask.engine.checkpoint import MODEL_FILE
from tagmask.engine.model import load
from tagmask.engine.run import SEGMENTER, Run
from tagmask.errors import TagmaskError
from tagmask.evaluation.method import evaluate_method
from tagmask.evaluation.report.costs import read_metrics, recorded_scores
from tagmask.evaluation.tables import to_json

logger = logging.getLogger(__name__)

SCORES = "scores.json"  # of a run folder; the report and the model card show what is in it
LOGGED = "eval/decoder_miou"  # in the log of a training
MOST = 500  # held-out images that are scored without being asked; of more, `tagmask evaluate` tells how long it takes


def score_finished(folder: Path, held_out: Dataset) -> None:
    """Score a finished run as `tagmask evaluate` would, and write that into the run folder.

    What a training logs is at one scale and without refinement, and may be points lower. Scores that are newer than
    the model are kept, and those of a model that was there before are removed. Where there are none to be had, that is
    logged; a finished run is not lost for it.

    Args:
        folder: of the run.
        held_out: images that it has not learnt from; nothing is scored where more than `MOST` of them have masks, or
            none.
    """
    if _is_scored(folder):
        return
    (folder / SCORES).unlink(missing_ok=True)
    images = sum(record.mask is not None for record in held_out.records)
    if not 0 < images <= MOST:
        return
    model = load(folder)
    if not model.run.decoder_learnt:
        return
    logger.info("scoring %d held-out images, labelled as `tagmask predict` labels photographs", images)
    try:
        result = evaluate_method(model.method, held_out, model.run.recipe.inference, source="decoder")
    except TagmaskError as error:
        logger.warning("the run has no score: %s", error)
        return
    write_text(folder / SCORES, json.dumps(to_json(result), indent=1) + "\n")


def _is_scored(folder: Path) -> bool:
    """Whether there are scores of the model that is there now, or a file that is not ours to replace."""
    scores = folder / SCORES
    if not scores.exists():
        return False
    try:
        recorded_scores(folder)
    except TagmaskError:  # something else of that name; the report says so
        return True
    made = [file.stat().st_mtime for file in folder.rglob(MODEL_FILE)]  # of all stages, and rounds of a classifier
    return scores.stat().st_mtime >= max(made, default=0.0)


def last_score(run: Run) -> str | None:
    """Say in a line what a run reached on held-out images without tags; None where nobody measured it.

    Raises:
        TagmaskError: the log cannot be read.
    """
    try:
        recorded = recorded_scores(run.folder)
    except TagmaskError:
        recorded = []
    for own in recorded:
        held = own.conditions
        if own.miou is not None and held.source == "decoder" and held.tags_given is False:
            scales = ", ".join(f"{scale:g}" for scale in held.scales or ())
            how = f"scales {scales or 'not stated'}; refinement {held.refinement or 'not stated'}"
            return f"score: mIoU {100 * own.miou:.1f} % on {own.images} held-out images, without tags ({how})"
    staged = run.recipe.segmenter is not None
    logged = [line for line in read_metrics(run.folder / SEGMENTER if staged else run.folder) if LOGGED in line]
    if not logged:
        return None
    return f"score: mIoU {logged[-1][LOGGED]:.1f} % on held-out images, without tags, at one scale"
