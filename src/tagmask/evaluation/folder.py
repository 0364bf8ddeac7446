"""A folder of predicted label maps against the truth of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tagmask.data.dataset import Dataset, MaskSource
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.protocols import Scores, score


@dataclass(frozen=True)
class Conditions:
    """Under which conditions label maps were made; part of every result. None: nobody said.

    Attributes:
        split: the split or splits that were evaluated.
        source: what the labels come from, e.g. `decoder` or `cam`.
        tags_given: whether the classes were restricted to the tags of each image.
        scales: the sizes at which each image was seen, relative to the network's own.
        flips: whether each image was also seen mirrored.
        refinement: what was done to the scores, e.g. `none`, `par`, `crf`.
        threshold: the background score, where the labels come from CAMs.
        tag_source: where the tags come from, in words.
    """

    split: str = ""
    source: str | None = None
    tags_given: bool | None = None
    scales: tuple[float, ...] | None = None
    flips: bool | None = None
    refinement: str | None = None
    threshold: float | None = None
    tag_source: str | None = None


@dataclass(frozen=True)
class Result:
    """Scores with all that is needed to compare them.

    Attributes:
        scores: under one protocol.
        conditions: how the label maps were made.
        classes: R names, in the order of the arrays of `scores`: `background`, if there is one, then the classes.
        images: how many were compared.
        matrix: for other protocols.
        left_out: what is wrong with the images that could not be.
    """

    scores: Scores
    conditions: Conditions
    classes: tuple[str, ...]
    images: int
    matrix: ConfusionMatrix
    left_out: tuple[str, ...] = ()


def evaluate_folder(
    predictions: Path | str,
    dataset: Dataset,
    *,
    protocol: str = "seco",
    conditions: Conditions | None = None,
    workers: int | None = None,
) -> Result:
    """Compare a folder of label maps with the truth of a data set.

    Args:
        predictions: holds `NAME.png` for each record of that name: palette or grey, ids 0..K, 255 ignored.
        dataset: the images to evaluate; each needs a mask.
        protocol: `seco`, `sccam`, `seam`, `eps` or `irn`; see `tagmask.evaluation.protocols`.
        conditions: how the label maps were made; their `split` is filled in from the data set if empty.
        workers: threads; by default one a core.

    Raises:
        TagmaskError: no folder or no images; label maps or true masks are missing (the first is named, all are
            counted), damaged, of different sizes, or hold ids that are no class.
    """
    folder = Path(predictions)
    if not folder.is_dir():
        raise TagmaskError(f"{folder}: no such folder; give the one that holds the predicted masks, NAME.png each")
    pairs = _pairs(folder, dataset)
    workers = min(len(pairs), workers or os.cpu_count() or 1)

    def count(share: Sequence[tuple[Path, MaskSource]]) -> ConfusionMatrix:
        matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
        for path, ground_truth in share:
            _compare(path, ground_truth, matrix)
        return matrix

    total = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    with ThreadPoolExecutor(workers) as pool:
        for matrix in pool.map(count, [pairs[start::workers] for start in range(workers)]):
            total.merge(matrix)
    conditions = conditions or Conditions()
    if not conditions.split:
        conditions = replace(conditions, split=", ".join(dataset.splits))
    return result_of(total, dataset, protocol=protocol, conditions=conditions)


def result_of(
    matrix: ConfusionMatrix,
    dataset: Dataset,
    *,
    protocol: str,
    conditions: Conditions,
    left_out: Sequence[str] = (),
) -> Result:
    """Scores of a confusion matrix counted over `dataset`, but for the images left out.

    Raises:
        TagmaskError: as `score`; or nothing was counted.
    """
    if left_out and len(left_out) == len(dataset):
        raise TagmaskError(f"none of the {len(dataset)} images could be compared; the first: {left_out[0]}")
    names = (("background",) if dataset.background else ()) + dataset.classes
    images = len(dataset) - len(left_out)
    return Result(score(matrix, protocol), conditions, names, images, matrix, tuple(left_out))


def _pairs(folder: Path, dataset: Dataset) -> list[tuple[Path, MaskSource]]:
    if not len(dataset):
        raise TagmaskError(f"{folder}: no images to evaluate; choose a split that has some")
    pairs = [(folder / f"{record.name}.png", record.mask) for record in dataset.records if record.mask is not None]
    if len(pairs) < len(dataset):
        untrue = [record for record in dataset.records if record.mask is None]
        raise TagmaskError(
            f"image {untrue[0].name!r} has no true mask, nor have {len(untrue) - 1} others of {len(dataset)};"
            " evaluate a split whose images all have one"
        )
    missing = [path for path, _ in pairs if not path.is_file()]
    if missing:
        raise TagmaskError(
            f"{missing[0]}: missing; {len(missing)} of {len(dataset)} images have no predicted mask in this folder;"
            " label all images of the split, or evaluate the split that was labelled"
        )
    return pairs


def _compare(path: Path, ground_truth: MaskSource, matrix: ConfusionMatrix) -> None:
    prediction = PngMask(path).ids()
    try:
        matrix.add(ground_truth.load(*prediction.shape), prediction)
    except TagmaskError as error:
        raise TagmaskError(
            f"{path}, {prediction.shape[1]} x {prediction.shape[0]}: does not fit its truth: {error}"
        ) from error
