"""The data a recipe names, and which of it is for learning and which for evaluating."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from tagmask.api.model import PathLike
from tagmask.data.dataset import Dataset, check_class_list
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError
from tagmask.recipe import DataConfig

Untagged = Literal["skip", "negative", "error"]
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Names of splits that nobody expects to be learnt from, those to evaluate on first; a year may follow, any case."""


def open_data(
    path: PathLike | None, config: DataConfig, classes: Sequence[str] | None = None, *, context: bool = False
) -> Dataset:
    """Read the data set a recipe names; `path` and `classes`, where given, stand over the recipe's.

    Args:
        path: of the data.
        config: the recipe's section.
        classes: names in id order.
        context: whether the surroundings of `data.context` are wanted; else they are dropped.

    Raises:
        TagmaskError: whatever is wrong with the data; a name in `data.context` that no image bears.
    """
    where = path or config.path
    if where is None:
        raise TagmaskError("no data: give a folder, a table or an annotation file, or set data.path in the recipe")
    names = tuple(classes or config.classes or ()) or None
    if not config.context:
        return _read(Path(where), config, names)
    if names is None:
        names = _apart(_read(Path(where), config, None, "negative").classes, config.context)
    return _with_context(Path(where), config, names) if context else _read(Path(where), config, names)


def _read(where: Path, config: DataConfig, classes: Sequence[str] | None, untagged: Untagged | None = None) -> Dataset:
    return read_dataset(
        where,
        format=config.format,
        classes=list(classes) if classes else None,
        background=config.background,
        image_folder=config.image_folder,
        masks=config.masks,
        mask_classes=list(config.mask_classes) if config.mask_classes else None,
        untagged=untagged or config.untagged,
        tag_source=config.tag_source,
    )


def _apart(names: Sequence[str], context: Sequence[str]) -> tuple[str, ...]:
    """The names that are no surroundings, which must be among them."""
    unknown = [name for name in context if name not in names]
    if unknown:
        near = get_close_matches(unknown[0], names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise TagmaskError(f"data.context: no image bears the tag {unknown[0]!r}; {hint}")
    classes = tuple(name for name in names if name not in context)
    if not classes:
        raise TagmaskError("data.context names every tag there is; leave out those that masks are wanted of")
    return classes


def _with_context(where: Path, config: DataConfig, classes: Sequence[str]) -> Dataset:
    """Read twice: masks without the surroundings, in which they are background; tags with them."""
    if not config.background:
        raise TagmaskError("data.context: surroundings become background, and data.background is false; set it to true")
    context = check_class_list(config.context, "data.context")
    twice = [name for name in context if name in classes]
    if twice:
        raise TagmaskError(f"data.context: {twice[0]!r} is in data.classes too; remove it from one of them")
    masks = {record.name: record.mask for record in _read(where, config, classes, "negative").records}
    tagged = _read(where, config, (*classes, *context))
    first = len(classes)
    records = tuple(
        replace(
            record,
            tags=tuple(tag for tag in record.tags if tag < first),
            unknown=tuple(tag for tag in record.unknown if tag < first),
            context=tuple(tag - first for tag in record.tags if tag >= first),
            mask=masks.get(record.name),
        )
        for record in tagged.records
    )
    return replace(tagged, records=records, classes=tuple(classes), context=context)


def training_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """The records to learn from: the named splits, else all outside the splits that are held out or evaluated on.

    Splits may overlap: what lies in a held-out one is not learnt from, whatever else it lies in.
    """
    if config.train is not None:
        return dataset.split(config.train)
    kept_out = {*held_out_splits(dataset), *(config.evaluate or ())}.intersection(dataset.splits)
    if not kept_out:
        return dataset
    names = {record.name for record in dataset.split(sorted(kept_out)).records}
    learnt = tuple(record for record in dataset.records if record.name not in names)
    return replace(dataset, records=learnt) if learnt else dataset


def evaluation_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """The records to evaluate on: the named splits, else the first held-out one, so `val` before `test`, else none."""
    chosen = held_out_splits(dataset)[:1] if config.evaluate is None else config.evaluate
    return dataset.split(chosen) if chosen else replace(dataset, records=())


def to_evaluate(dataset: Dataset, config: DataConfig, split: Sequence[str] | None) -> Dataset:
    """What a verb that scores looks at: the splits it was given, else the recipe's, else all."""
    if split is not None:
        return dataset.split(split)
    held_out = evaluation_split(dataset, config)
    return held_out if len(held_out) else dataset


def held_out_splits(dataset: Dataset) -> tuple[str, ...]:
    """The splits named as in HELD_OUT, in its order; none where nothing would be left to learn from."""
    plain = {name: re.sub(r"\d{4}$", "", name).lower() for name in dataset.splits}
    found = [name for usual in HELD_OUT for name in dataset.splits if plain[name] == usual]
    return tuple(found) if len(found) < len(plain) else ()
