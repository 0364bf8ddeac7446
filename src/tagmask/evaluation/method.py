"""Score a method in memory on a data set with ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from tagmask.data.dataset import Dataset, Record
from tagmask.engine.inference import Item, Prediction, Source, stream
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.folder import Conditions, Result, result_of
from tagmask.evaluation.sweep import Sweep, ThresholdSweep
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig


def evaluate_method(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    *,
    source: Source,
    protocol: str = "seco",
    tags: bool = False,
) -> Result:
    """Scores of a method's label maps against a data set's masks, without writing them."""
    matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    records, left_out = _with_ground_truth(dataset)
    given = tags or source == "cam"
    items = [
        Item(record.name, record.image, record.tags if given else None, record.context) for record in records.values()
    ]
    for prediction, ground_truth in _compared(method, items, config, source, records, left_out):
        matrix.add(ground_truth, prediction.labels)
    conditions = _conditions(dataset, config, source, given)
    return result_of(matrix, dataset, protocol=protocol, conditions=conditions, left_out=left_out)


def evaluate_cams(
    method: Method, dataset: Dataset, config: InferenceConfig, *, protocol: str = "seco"
) -> tuple[Result, Sweep | None]:
    """Scores of a method's CAMs with tags given, at the recipe's background score and over a sweep of it."""
    if not dataset.background:
        return evaluate_method(method, dataset, config, source="cam", protocol=protocol), None
    matrix = ConfusionMatrix(len(dataset.classes))
    sweep = ThresholdSweep(len(dataset.classes))
    records, left_out = _with_ground_truth(dataset)
    items = [Item(record.name, record.image, record.tags, record.context) for record in records.values()]
    for prediction, ground_truth in _compared(method, items, config, "cam", records, left_out):
        matrix.add(ground_truth, prediction.labels)
        present = torch.zeros(len(dataset.classes))
        present[list(records[prediction.item.name].tags)] = 1
        cams = prediction.scores.cpu() * present[:, None, None]
        sweep.add(
            torch.nn.functional.interpolate(cams[None], size=ground_truth.shape, mode="bilinear")[0], ground_truth
        )
    conditions = _conditions(dataset, config, "cam", True)
    result = result_of(matrix, dataset, protocol=protocol, conditions=conditions, left_out=left_out)
    return result, sweep.result(protocol)


def _compared(
    method: Method,
    items: Sequence[Item],
    config: InferenceConfig,
    source: Source,
    records: Mapping[str, Record],
    left_out: list[str],
) -> Iterator[tuple[Prediction, np.ndarray]]:
    """Predictions with their true label maps; what does not open is noted in `left_out`."""

    def note(_: Item, error: TagmaskError) -> None:
        left_out.append(str(error))

    for prediction in stream(method, items, config, source=source, on_error=note):
        ground_truth = records[prediction.item.name].mask
        assert ground_truth is not None
        try:
            labels = ground_truth.load(*prediction.labels.shape)
        except TagmaskError as error:
            left_out.append(str(error))
            continue
        yield prediction, labels


def _with_ground_truth(dataset: Dataset) -> tuple[dict[str, Record], list[str]]:
    """The records that have a true mask, by name, and what is to be said of the others."""
    if not len(dataset):
        raise TagmaskError("no images to evaluate: the data has no split to hold out; name one with --split")
    true = {record.name: record for record in dataset.records if record.mask is not None}
    if not true:
        raise TagmaskError(
            f"none of the {len(dataset)} images has a true mask, such as {dataset.records[0].name!r}; put them where "
            "the format keeps them (docs/formats.md), or set data.masks"
        )
    return true, [f"image {record.name!r}: no true mask" for record in dataset.records if record.mask is None]


def _conditions(dataset: Dataset, config: InferenceConfig, source: Source, tags: bool) -> Conditions:
    return Conditions(
        split=",".join(dataset.splits),
        source=source,
        tags_given=tags,
        scales=config.scales,
        flips=config.flip or source == "cam",
        refinement=config.refine,
        threshold=config.background_score if source == "cam" and dataset.background else None,
        tag_source=dataset.tag_source,
    )
