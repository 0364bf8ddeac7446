"""What an evaluation gives: scores, and the conditions without which no number is worth reading."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tagmask.data.dataset import Dataset
from tagmask.engine.inference import Source
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import Scores, score
from tagmask.recipes.load import InferenceConfig


@dataclass(frozen=True)
class Conditions:
    """Under which conditions label maps were made; part of every result. None means that nobody said.

    Attributes:
        split: the split or splits that were evaluated.
        source: what the labels come from, e.g. `decoder` or `cam`.
        tags_given: whether the classes were restricted to the tags of each image.
        scales: the sizes at which each image was seen, relative to the network's own.
        flips: whether each image was also seen flipped.
        refinement: what was done to the scores, e.g. `none`, `par`, `crf`.
        background_score: what a CAM had to exceed, where the labels come from CAMs.
        tag_source: where the tags come from, in words.
        tag_weight: how much guessed tags counted, where none were given; None or 0: nothing was guessed.
        averaged: the classes over which, with the background, the means are taken; None means all.
    """

    split: str = ""
    source: str | None = None
    tags_given: bool | None = None
    scales: tuple[float, ...] | None = None
    flips: bool | None = None
    refinement: str | None = None
    background_score: float | None = None
    tag_source: str | None = None
    tag_weight: float | None = None
    averaged: tuple[str, ...] | None = None

    @property
    def threshold(self) -> float | None:
        """The former name of `background_score`."""
        warnings.warn("Conditions.threshold is now background_score", DeprecationWarning, stacklevel=2)
        return self.background_score


def conditions_of(dataset: Dataset, config: InferenceConfig, source: Source, *, tags_given: bool) -> Conditions:
    """Return the conditions under which a method labels `dataset` with these settings."""
    from_cams = source == "cam"
    return Conditions(
        split=",".join(dataset.splits) or "all",
        source=source if config.cam_head == "class" or not from_cams else f"{source}, {config.cam_head}",
        tags_given=tags_given,
        scales=config.seen_by_cams if from_cams else config.scales,
        flips=config.flip or from_cams,
        refinement=config.refine,
        background_score=config.background_score if from_cams and dataset.background else None,
        tag_source=dataset.tag_source,
        tag_weight=None if tags_given or from_cams or not config.tag_weight else config.tag_weight,
    )


@dataclass(frozen=True)
class Result:
    """Scores with all that is needed to compare them.

    Attributes:
        scores: under one protocol.
        conditions: how the label maps were made.
        classes: R names, in the order of the arrays of `scores`: `background`, if there is one, then the classes.
        images: how many were compared.
        matrix: the counted pixels, from which other protocols can be scored.
        left_out: for each image that could not be compared, what is wrong with it.
    """

    scores: Scores
    conditions: Conditions
    classes: tuple[str, ...]
    images: int
    matrix: ConfusionMatrix
    left_out: tuple[str, ...] = ()


def result_of(
    matrix: ConfusionMatrix,
    dataset: Dataset,
    *,
    protocol: str,
    conditions: Conditions,
    left_out: Sequence[str] = (),
) -> Result:
    """Score a confusion matrix that was counted over all images of `dataset` but those left out.

    Raises:
        TagmaskError: as `score`; or nothing was counted.
    """
    if left_out and len(left_out) == len(dataset):
        raise TagmaskError(f"none of the {len(dataset)} images could be compared; the first: {left_out[0]}")
    names = (("background",) if dataset.background else ()) + dataset.classes
    images = len(dataset) - len(left_out)
    conditions = replace(conditions, averaged=dataset.averaged or None)
    scores = score(matrix, protocol, averaged=dataset.averaged_ids)
    return Result(scores, conditions, names, images, matrix, tuple(left_out))
