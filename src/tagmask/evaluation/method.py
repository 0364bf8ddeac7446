"""One pass of a method over a data set, beside its ground truth: what `evaluate` and `report` both count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from tagmask.data.dataset import Dataset, Record
from tagmask.engine.inference import Item, Prediction, Source, stream
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.result import Result, conditions_of, result_of
from tagmask.evaluation.sweep import Sweep, ThresholdSweep
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig


@dataclass(frozen=True)
class Compared:
    """One image as the method sees it, beside what is known of it.

    Attributes:
        record: the image with its tags.
        prediction: its label map, scores and confidence.
        ground_truth: (H, W) ids at the size of the label map; None where the image has none.
    """

    record: Record
    prediction: Prediction
    ground_truth: np.ndarray | None


def while_training(config: InferenceConfig) -> InferenceConfig:
    """Say how images are labelled for the scores that a training logs.

    It is at one scale and without refinement, as in the papers' logs: it happens often, and `evaluate` does it whole.
    """
    return config.model_copy(update={"scales": (1.0,), "flip": False, "refine": "none"})


def compare(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    *,
    source: Source,
    tags_given: bool,
    left_out: list[str],
) -> Iterator[Compared]:
    """Predict every image of a data set and read its ground truth.

    Args:
        method: trained, in eval mode, on its device.
        dataset: the images.
        config: how images go through the network.
        source: `decoder`, or `cam`, which needs the tags.
        tags_given: whether only an image's own tags and background can win.
        left_out: takes what is wrong with images, or ground truths, that do not open; these are not yielded.
    """
    records = {record.name: record for record in dataset.records}
    items = [
        Item(record.name, record.image, record.tags if tags_given else None, record.context)
        for record in dataset.records
    ]
    predictions = stream(method, items, config, source=source, on_error=lambda _, error: left_out.append(str(error)))
    for prediction in predictions:
        record = records[prediction.item.name]
        try:
            ground_truth = None if record.mask is None else record.mask.load(*prediction.labels.shape)
        except TagmaskError as error:
            left_out.append(str(error))
            continue
        yield Compared(record, prediction, ground_truth)


def evaluate_method(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    *,
    source: Source,
    protocol: str = "seco",
    tags: bool = False,
) -> Result:
    """Score a method's label maps against a data set's ground truth, without writing them.

    Args:
        method: trained, in eval mode, on its device.
        dataset: the images; those without ground truth are left out and named in the result.
        config: how images go through the network.
        source: `decoder`, or `cam`, which is given the tags.
        protocol: see `tagmask.evaluation.protocols`.
        tags: whether the decoder is given the images' tags.

    Raises:
        TagmaskError: no image can be compared, or as `score`.
    """
    return _evaluate(method, dataset, config, source, protocol, tags or source == "cam", None)


def evaluate_cams(
    method: Method, dataset: Dataset, config: InferenceConfig, *, protocol: str = "seco"
) -> tuple[Result, Sweep | None]:
    """Score a method's CAMs with tags given, at the recipe's background score and over a sweep of it.

    Without a background class there is nothing to sweep, and the second value is None. The rest is as for
    `evaluate_method`.
    """
    sweep = ThresholdSweep(len(dataset.classes)) if dataset.background else None
    result = _evaluate(method, dataset, config, "cam", protocol, True, sweep)
    return result, None if sweep is None else sweep.result(protocol, averaged=dataset.averaged_ids)


def _evaluate(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    source: Source,
    protocol: str,
    tags_given: bool,
    sweep: ThresholdSweep | None,
) -> Result:
    """Score label maps; where there is a sweep, add the CAMs to it as well."""
    comparable, left_out = _with_ground_truth(dataset)
    matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    for each in compare(method, comparable, config, source=source, tags_given=tags_given, left_out=left_out):
        assert each.ground_truth is not None
        matrix.add(each.ground_truth, each.prediction.labels)
        if sweep is not None:
            sweep.add(_own_cams(each, len(dataset.classes)), each.ground_truth)
    conditions = conditions_of(dataset, config, source, tags_given=tags_given)
    return result_of(matrix, dataset, protocol=protocol, conditions=conditions, left_out=left_out)


def _own_cams(each: Compared, num_classes: int) -> torch.Tensor:
    """Return CAMs (K, H, W) at the size of the ground truth, 0 for classes that are not among the image's tags."""
    assert each.ground_truth is not None
    present = torch.zeros(num_classes)
    present[list(each.record.tags)] = 1
    cams = each.prediction.scores.cpu() * present[:, None, None]
    return torch.nn.functional.interpolate(cams[None], size=each.ground_truth.shape, mode="bilinear")[0]


def _with_ground_truth(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """Return the part of the data set that has ground truth, and one line on each of the other images."""
    if not len(dataset):
        raise TagmaskError("no images to evaluate: the data has no split to hold out; name one with --split")
    comparable = tuple(record for record in dataset.records if record.mask is not None)
    if not comparable:
        raise TagmaskError(
            f"none of the {len(dataset)} images has a ground-truth mask: name a folder of palette PNGs, "
            f"{dataset.records[0].name}.png and so on, by --set data.masks=FOLDER, or put it as masks/ beside the table"
        )
    left_out = [f"image {record.name!r}: no ground-truth mask" for record in dataset.records if record.mask is None]
    return replace(dataset, records=comparable), left_out
