"""Score a folder of predicted label maps against the ground truth of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tagmask.data.dataset import Dataset, MaskSource
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError, no_such
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.result import Conditions, Result, result_of


def evaluate_folder(
    predictions: Path | str,
    dataset: Dataset,
    *,
    protocol: str = "seco",
    conditions: Conditions | None = None,
    workers: int | None = None,
) -> Result:
    """Compare a folder of label maps with the ground truth of a data set.

    Args:
        predictions: holds `NAME.png` for each record of that name: palette or grey, ids 0..K, 255 ignored.
        dataset: the images to evaluate; each needs a mask.
        protocol: `seco`, `sccam`, `seam`, `eps` or `irn`; see `tagmask.evaluation.protocols`.
        conditions: how the label maps were made; their `split` is filled in from the data set if empty.
        workers: threads; by default one for each core.

    Raises:
        TagmaskError: no folder or no images; label maps or ground-truth masks are missing (the first is named, all are
            counted), damaged, of different sizes, or hold ids that are no class.
    """
    folder = Path(predictions)
    if not folder.is_dir():
        raise no_such(folder, "folder", "give the one that holds the predicted masks, NAME.png each")
    pairs = _pairs(folder, dataset)
    workers = min(len(pairs), workers or os.cpu_count() or 1)

    def count(part: Sequence[tuple[Path, MaskSource]]) -> ConfusionMatrix:
        matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
        for path, ground_truth in part:
            _compare(path, ground_truth, matrix)
        return matrix

    total = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    with ThreadPoolExecutor(workers) as pool:
        for matrix in pool.map(count, [pairs[start::workers] for start in range(workers)]):
            total.merge(matrix)
    conditions = conditions or Conditions()
    if not conditions.split:
        conditions = replace(conditions, split=",".join(dataset.splits) or "all")
    return result_of(total, dataset, protocol=protocol, conditions=conditions)


def _pairs(folder: Path, dataset: Dataset) -> list[tuple[Path, MaskSource]]:
    if not len(dataset):
        raise TagmaskError(f"{folder}: no images to evaluate; choose a split that has some")
    pairs = [(folder / f"{record.name}.png", record.mask) for record in dataset.records if record.mask is not None]
    if len(pairs) < len(dataset):
        without = [record for record in dataset.records if record.mask is None]
        raise TagmaskError(
            f"image {without[0].name!r} has no ground-truth mask, nor have {len(without) - 1} others of {len(dataset)};"
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
            f"{path}, {prediction.shape[1]} x {prediction.shape[0]}: does not fit its ground truth: {error}"
        ) from error
