"""The verb `suggest`: the images whose masks, drawn by hand, would help a run most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagmask.api.mask_folder import check_classes
from tagmask.api.write_masks import write_masks
from tagmask.data.confidence import CONFIDENCE
from tagmask.data.dataset import Dataset, PathLike
from tagmask.data.ledger import LEDGER
from tagmask.data.mended import with_mended
from tagmask.data.splits import masked_by_hand, open_data, training_split
from tagmask.data.untaught import inseparable
from tagmask.engine.inference import Item, stream
from tagmask.engine.model import load, overridden
from tagmask.engine.progress import report_skipped, track
from tagmask.errors import TagmaskError


@dataclass(frozen=True)
class Suggestion:
    """An image to draw a mask of.

    Attributes:
        name: of the image in the data set; its mask is to be called `NAME.png`.
        image: the file.
        reason: why it is this one, in words.
    """

    name: str
    image: Path
    reason: str


def suggest(
    run: PathLike,
    data: PathLike | None = None,
    *,
    count: int = 16,
    masks: PathLike | None = None,
    overrides: Iterable[str] = (),
) -> list[Suggestion]:
    """Name the tagged images whose masks would help most, the most useful first.

    An image counts the more, the less sure the run is of it, the fewer masks there are yet of its classes, and where it
    shows two classes that always come together, which tags cannot tell apart. Images that have a mask are left out.

    Args:
        run: a run folder.
        data: tagged images, in any format that `train` reads; by default the run's own. Of its splits those count that
            are learnt from.
        count: how many images.
        masks: a folder for the run's own masks of these images, to be mended on the page. What was mended there before
            counts as drawn.
        overrides: of the recipe's `inference` and `data`, as `inference.long_side=512`.

    Raises:
        TagmaskError: whatever is wrong with run, data or masks; or every image has a mask.
    """
    model = load(run)
    recipe = overridden(model.run.recipe, overrides, only=("inference", "data"), but=("data.classes",))
    config, inference = recipe.data, recipe.inference
    dataset = masked_by_hand(training_split(open_data(data, config, model.classes), config), config)
    if masks is not None:
        dataset = _with_mended(dataset, Path(masks))
        # Told before the long look at all images.
        _check_own(Path(masks), dataset)
        check_classes(Path(masks), model.classes)
    without = [record for record in dataset.records if record.mask is None]
    if not without:
        raise TagmaskError(f"{data or config.path}: every training image has a mask; there is nothing to suggest")
    source = "decoder" if model.has_decoder else "cam"
    items = [Item(record.name, record.image, record.tags, record.context) for record in without]
    skipped: list[str] = []
    found = stream(
        model.method,
        items,
        inference.model_copy(update={"refine": "none"}),
        source=source,
        on_error=lambda _, error: skipped.append(str(error)),
    )
    doubt = {each.item.name: 1 - each.confidence for each in track(found, "images", len(items))}
    report_skipped(skipped)
    if not doubt:
        raise TagmaskError(f"{data or config.path}: none of the {len(items)} images without a mask opens; mend them")
    chosen = choose(dataset, doubt, count)
    if masks is not None:
        by_name = {item.name: item for item in items}
        write_masks(model, [by_name[each.name] for each in chosen], Path(masks), inference, source)
    return chosen


def _check_own(masks: Path, dataset: Dataset) -> None:
    """Raise a TagmaskError where a folder for masks holds files of these names that no verb of tagmask wrote."""
    if (masks / CONFIDENCE).exists():
        return
    for record in dataset.records:
        if (path := masks / f"{record.name}.png").exists():
            raise TagmaskError(f"--masks {masks}: holds {path.name}, which tagmask did not write; name a new folder")


def _with_mended(dataset: Dataset, masks: Path) -> Dataset:
    """Give the records those masks of a folder that a person mended; the others keep what they have."""
    if not (masks / LEDGER).exists():
        return dataset
    mended = {record.name: record for record in with_mended(dataset, masks).records if record.mask is not None}
    return dataset.keep([mended.get(record.name, record) for record in dataset.records])


def choose(dataset: Dataset, doubt: dict[str, float], count: int) -> list[Suggestion]:
    """Choose images one by one, each time the one that adds most to those chosen and those that have a mask.

    Args:
        dataset: tagged images, with and without masks.
        doubt: of images without a mask, by name: how unsure the run is, 0 to 1.
        count: how many at the most.
    """
    pairs = [pair for pair in inseparable(dataset) if max(pair) < len(dataset.classes)]
    masks = np.zeros(len(dataset.classes), np.int64)  # of each class, how many there are
    settled = dict.fromkeys(pairs, 0)
    for record in dataset.records:
        if record.mask is not None:
            _count(record.tags, masks, settled)
    open_records = {record.name: record for record in dataset.records if record.name in doubt and record.tags}
    chosen: list[Suggestion] = []

    def value(name: str) -> float:
        tags = open_records[name].tags
        new = sum(1 / (1 + masks[tag]) for tag in tags) + sum(1 / (1 + settled[pair]) for pair in _within(tags, pairs))
        return doubt[name] * new

    while open_records and len(chosen) < count:
        name = max(sorted(open_records), key=value)
        record = open_records.pop(name)
        reason = _reason(dataset, record.tags, doubt[name], masks, _within(record.tags, pairs))
        chosen.append(Suggestion(name, record.image, reason))
        _count(record.tags, masks, settled)
    return chosen


def _within(tags: Sequence[int], pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [pair for pair in pairs if set(pair) <= set(tags)]


def _count(tags: Sequence[int], masks: np.ndarray, settled: dict[tuple[int, int], int]) -> None:
    """Count a mask of an image with these tags."""
    masks[list(tags)] += 1
    for pair in _within(tags, list(settled)):
        settled[pair] += 1


def _reason(
    dataset: Dataset, tags: Sequence[int], doubt: float, masks: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> str:
    names = dataset.classes
    parts = [f"sure of {1 - doubt:.0%}"]
    if first := [names[tag] for tag in tags if not masks[tag]]:
        parts.append(f"first mask with {', '.join(first)}")
    parts += [f"{names[a]} and {names[b]} always come together" for a, b in pairs]
    return "; ".join(parts)
