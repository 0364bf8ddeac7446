"""Score what each stage of a run left: its CAMs, its refined masks and its segmenter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tagmask.data.cam_files import SUFFIX, read_cams
from tagmask.data.dataset import Dataset, PathLike
from tagmask.data.images import open_image
from tagmask.data.mended import doubt_own_masks
from tagmask.data.splits import evaluation_split, open_data, training_split
from tagmask.engine.checkpoint import MODEL_FILE
from tagmask.engine.model import load
from tagmask.engine.run import ALIKE, CAMS, LABELS, MASKS, SEGMENTER, open_run
from tagmask.errors import TagmaskError
from tagmask.evaluation.folder import evaluate_folder
from tagmask.evaluation.method import evaluate_method
from tagmask.evaluation.result import Conditions, Result, result_of
from tagmask.evaluation.sweep import ThresholdSweep
from tagmask.ops.labels import beside_context
from tagmask.recipes.stages import RefineConfig

CAMS_FIXED = "cams-fixed"


@dataclass(frozen=True)
class StageScore:
    """Scores of one stage's products.

    Attributes:
        stage: its name, as of its folder; `cams-fixed` for CAMs at the recipe's own background score.
        what: in words, with the background score where one was chosen.
        result: of CAMs at the best background score (which needs the ground truth) and at the recipe's, of masks as
            they are, of the segmenter without tags.
    """

    stage: str
    what: str
    result: Result


def evaluate_stages(run: PathLike, data: PathLike | None = None, *, protocol: str = "seco") -> list[StageScore]:
    """Score what every finished stage of a run left: CAMs and masks on the training images, the segmenter held out.

    Args:
        run: folder of a run of several stages.
        data: the data set with ground-truth masks; by default the run's own.
        protocol: as of `evaluate`; masks that leave pixels undecided are scored under `eps`, which drops them, where
            it allows none. Every result names its protocol.

    Raises:
        TagmaskError: no run, a recipe of a single stage, nothing to score yet, or data without ground truth.
    """
    opened = open_run(Path(run))
    recipe, folder = opened.recipe, opened.folder
    if not recipe.staged:
        raise TagmaskError(f"{folder}: its recipe has a single stage; use tagmask evaluate {folder}")
    dataset = open_data(data, recipe.data, opened.classes)
    training = training_split(dataset, recipe.data)
    without = [record.name for record in training.records if record.mask is None]
    if without:
        raise TagmaskError(f"image {without[0]!r} has no ground-truth mask ({len(without)} such); set data.masks")
    doubt_own_masks(dataset, recipe.data.review)
    scores = []
    if (folder / CAMS).is_dir() and dataset.background:
        sweep = _sweep_of(folder / CAMS, training)
        scores += [
            _cams_at(sweep, training, protocol, None),
            _cams_at(sweep, training, protocol, recipe.inference.background_score),
        ]
    if (folder / ALIKE).is_dir():
        joined = _cams_at(_sweep_of(folder / ALIKE, training), training, protocol, None)
        scores.append(replace(joined, stage=ALIKE, what=f"{joined.what}, joined by places that look alike"))
    for stage, what in (
        (LABELS, "labels that AffinityNet learns from"),
        (MASKS, f"masks, {(recipe.refine or RefineConfig()).name}"),
    ):
        if (folder / stage).is_dir():
            scores.append(score_masks(folder / stage, training, stage, what, protocol=protocol))
    if (folder / SEGMENTER / MODEL_FILE).exists():
        held_out = evaluation_split(dataset, recipe.data)
        if len(held_out):
            model = load(run)
            result = evaluate_method(model.method, held_out, recipe.inference, source="decoder", protocol=protocol)
            scores.append(StageScore(SEGMENTER, "decoder, no tags given", result))
    if not scores:
        raise TagmaskError(f"{folder}: no stage has left CAMs or masks yet; let tagmask train finish some")
    return scores


def score_cams(folder: Path, dataset: Dataset, *, protocol: str = "seco") -> StageScore:
    """Score a folder of CAMs at its best background score; an image without a file counts as all background."""
    return _cams_at(_sweep_of(folder, dataset), dataset, protocol, None)


def _sweep_of(folder: Path, dataset: Dataset) -> ThresholdSweep:
    """Count the CAMs of a folder against the ground truth, for every background score."""
    sweep = ThresholdSweep(len(dataset.classes))
    for record in dataset.records:
        assert record.mask is not None
        path = folder / f"{record.name}{SUFFIX}"
        ground_truth = record.mask.load(*open_image(record.image).size[::-1])
        maps = torch.zeros(len(dataset.classes), *ground_truth.shape)
        if path.exists():
            cams, ids = read_cams(path)
            if len(ids):
                cams = F.interpolate(cams[None], size=ground_truth.shape, mode="bilinear", align_corners=False)[0]
                known = ids <= len(maps)
                maps[ids[known] - 1] = beside_context(cams[known], cams[~known])
        sweep.add(maps, ground_truth)
    return sweep


def _cams_at(sweep: ThresholdSweep, dataset: Dataset, protocol: str, wanted: float | None) -> StageScore:
    """Score CAMs at the background score of the sweep nearest to the wanted one; where none is wanted, at the best."""
    found = sweep.result(protocol, averaged=dataset.averaged_ids)
    index = int(np.argmin(np.abs(found.thresholds - (found.best_threshold if wanted is None else wanted))))
    background_score = float(found.thresholds[index])
    conditions = Conditions(
        split=", ".join(dataset.splits), source="cam", tags_given=True, background_score=background_score
    )
    result = result_of(sweep.matrix(index), dataset, protocol=protocol, conditions=conditions)
    if wanted is None:
        return StageScore(CAMS, f"CAMs at their best background score, {background_score:.2f}", result)
    return StageScore(CAMS_FIXED, f"CAMs at the recipe's background score, {background_score:.2f}", result)


def score_masks(folder: Path, dataset: Dataset, stage: str, what: str, *, protocol: str = "seco") -> StageScore:
    """Score a folder of masks; where they leave pixels undecided (255), on those that they decide."""
    labelled = tuple(record for record in dataset.records if (folder / f"{record.name}.png").exists())
    own = replace(dataset, records=labelled)
    conditions = Conditions(split=", ".join(dataset.splits), source=stage, tags_given=True)
    result = evaluate_folder(folder, own, protocol="eps", conditions=conditions)
    if result.scores.coverage == 1 or protocol not in ("seco", "sccam"):
        result = result_of(result.matrix, own, protocol=protocol, conditions=conditions)
    return StageScore(stage, what, result)
