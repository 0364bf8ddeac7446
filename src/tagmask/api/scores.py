"""The verb `evaluate`, and the same on a method in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tagmask.api.datasets import open_data, to_evaluate
from tagmask.api.model import PathLike, is_run, load, overridden
from tagmask.cam.files import CLASSES
from tagmask.data.dataset import Dataset, Record
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.folder import Conditions, Result, evaluate_folder, result_of
from tagmask.evaluation.sweep import Sweep, ThresholdSweep
from tagmask.inference import Item, Prediction, Source, check_source, stream
from tagmask.methods.base import Method
from tagmask.recipe import InferenceConfig, load_recipe


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
    """Compare a run, or a folder of masks, with the truth.

    Args:
        predictions: a run folder, `hf-hub:OWNER/NAME` of a pushed one, or a folder of `NAME.png` label maps.
        data: the data set with true masks; by default the run's own.
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
        if source == "cam":
            return evaluate_cams(model.method, dataset, chosen.inference, protocol=protocol)
        result = evaluate_method(model.method, dataset, chosen.inference, source=source, protocol=protocol, tags=tags)
        return result, None
    if source != "decoder" or tags:
        raise TagmaskError(
            f"{predictions}: a folder of masks, which have no source and are told no tags; leave both out"
        )
    config = load_recipe(recipe, overrides).data if recipe else load_recipe({"method": "cam"}, overrides).data
    dataset = to_evaluate(open_data(data, config), config, split)
    conditions = Conditions(split=",".join(dataset.splits))
    listed = Path(predictions) / CLASSES
    if listed.is_file() and (names := listed.read_text(encoding="utf-8").split("\n")[:-1]) != list(dataset.classes):
        raise TagmaskError(
            f"{listed}: the label ids there stand for {', '.join(names)}, those of the data for "
            f"{', '.join(dataset.classes)}; give --set 'data.classes=[{', '.join(names)}]' if these are the same things"
        )
    return evaluate_folder(Path(predictions), dataset, protocol=protocol, conditions=conditions), None


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
    records, left_out = _with_truth(dataset)
    given = tags or source == "cam"
    items = [
        Item(record.name, record.image, record.tags if given else None, record.context) for record in records.values()
    ]
    for prediction, truth in _compared(method, items, config, source, records, left_out):
        matrix.add(truth, prediction.labels)
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
    records, left_out = _with_truth(dataset)
    items = [Item(record.name, record.image, record.tags, record.context) for record in records.values()]
    for prediction, truth in _compared(method, items, config, "cam", records, left_out):
        matrix.add(truth, prediction.labels)
        present = torch.zeros(len(dataset.classes))
        present[list(records[prediction.item.name].tags)] = 1
        cams = prediction.scores.cpu() * present[:, None, None]
        sweep.add(torch.nn.functional.interpolate(cams[None], size=truth.shape, mode="bilinear")[0], truth)
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
        truth = records[prediction.item.name].mask
        assert truth is not None
        try:
            labels = truth.load(*prediction.labels.shape)
        except TagmaskError as error:
            left_out.append(str(error))
            continue
        yield prediction, labels


def _with_truth(dataset: Dataset) -> tuple[dict[str, Record], list[str]]:
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
        threshold=config.background if source == "cam" and dataset.background else None,
        tag_source=dataset.tag_source,
    )
