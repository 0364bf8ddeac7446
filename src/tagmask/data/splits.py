"""The data set a recipe names, and its parts for learning and for evaluating."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from tagmask.data.dataset import Dataset, PathLike
from tagmask.data.doubts import left_out_tags
from tagmask.data.images import limit_pixels
from tagmask.data.ledger import LEDGER
from tagmask.data.masks import PngMask
from tagmask.data.mended import with_mended
from tagmask.data.names import HELD_OUT
from tagmask.data.readers import detect, read_dataset
from tagmask.data.readers.problems import nearest
from tagmask.data.readers.source import ReadOptions
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig

logger = logging.getLogger(__name__)
OF_TABLES = ("separator", "tag_separator", "encoding")
NO_CLASSES = "are no classes of this run"
OF_VOC = ("tag_source", "tag_list")


def open_data(
    path: PathLike | None, config: DataConfig, classes: Sequence[str] | None = None, *, quiet: bool = False
) -> Dataset:
    """Read the data set a recipe names, and say which tags `data.classes` leaves out.

    Args:
        path: stands over the recipe's, where given.
        config: the recipe's section.
        classes: those of a run, where the data are read for one.
        quiet: whether nothing is said.

    Raises:
        TagmaskError: there is no such data set, or something is wrong with it.
    """
    where = path or config.path
    if where is None:
        raise TagmaskError("no data: give a folder, a table or an annotation file, or set data.path in the recipe")
    limit_pixels(config.max_pixels)
    others = bool(classes and path is not None and config.path is not None and not _is_same(path, config.path))
    if others:
        config = _without_strange(Path(where), config)
    try:
        dataset = read_dataset(Path(where), **reader_options(config, classes))
    except TagmaskError as error:
        if classes:
            _check_classes_of_run(Path(where), config, classes)
        if others and (keys := _changed(config, OF_TABLES)):
            defaults = (f"data.{key}={DataConfig.model_fields[key].default}" for key in keys)
            unset = shlex.join(part for text in defaults for part in ("--set", text))
            raise TagmaskError(
                f"{error} ({_named(config, keys)} of the run's own recipe was taken; for data written otherwise give "
                f"{unset}, or what is right)"
            ) from None
        raise
    if config.classes and dataset.dropped and not quiet:
        logger.warning("%s", left_out_tags(dataset))
    return replace(dataset, averaged=config.averaged or ())


def _is_same(path: PathLike, own: Path) -> bool:
    """Tell whether data are those that a run was trained on, named as their folder or as the table in it."""
    given, own = Path(path).resolve(), own.resolve()
    return given == own or given.parent == own or given == own.parent


def _without_strange(path: Path, config: DataConfig) -> DataConfig:
    """Return a run's section without the options of a format that other data are not written in, and say which."""
    keys = {"table": _changed(config, OF_TABLES), "voc": _changed(config, OF_VOC)}
    if config.format != "auto" or not any(keys.values()):
        return config
    try:
        found, _ = detect(path)
    except TagmaskError:
        return config  # which is told when they are read
    strange = [key for form, own in keys.items() for key in own if form != found]
    if strange:
        logger.info("%s: is read as %s, without %s of the run's recipe", path, found, _named(config, strange))
    return config.model_copy(update={key: DataConfig.model_fields[key].default for key in strange})


def _changed(config: DataConfig, keys: Sequence[str]) -> list[str]:
    """Name the keys that do not have their default."""
    return [key for key in keys if getattr(config, key) != DataConfig.model_fields[key].default]


def _named(config: DataConfig, keys: Sequence[str]) -> str:
    return ", ".join(f"data.{key}={getattr(config, key)}" for key in keys)


def _check_classes_of_run(path: Path, config: DataConfig, classes: Sequence[str]) -> None:
    """Say in a sentence that data which are right in themselves have tags that a run does not know."""
    try:
        own = read_dataset(path, **reader_options(config.model_copy(update={"classes": None})))
    except TagmaskError:
        return  # something else is wrong, or something more
    if strange := [name for name in own.classes if name not in classes]:
        raise TagmaskError(
            f"{path}: {len(strange)} of its {len(own.classes)} tags {NO_CLASSES}; correct them, or take "
            f"a run that was trained on them. The first is {strange[0]!r}: {nearest(strange[0], classes)}"
        ) from None


def reader_options(config: DataConfig, classes: Sequence[str] | None = None) -> ReadOptions:
    """Give what a recipe's data section says to the readers; `classes`, those of a run, stand over the recipe's.

    Tags that a run does not know are left out where its own training left some out, and are mistakes elsewhere.
    """
    keys = [name for name in ReadOptions.__annotations__ if name != "other_tags"]
    said = {name: getattr(config, name) for name in keys}  # the section names them alike
    others = "doubt" if not classes else "drop" if config.classes else "refuse"
    return cast(ReadOptions, said | {"classes": classes or config.classes or None, "other_tags": others})


def check_context(dataset: Dataset) -> None:
    """Refuse to learn context classes that no image bears.

    Raises:
        TagmaskError: names such a class, and the nearest tag there is.
    """
    borne = {index for record in dataset.records for index in record.context}
    for index, name in enumerate(dataset.context):
        if index not in borne:
            near = get_close_matches(name, dataset.classes, 1)
            hint = f"did you mean {near[0]!r}?" if near else "tag some, or remove it"
            raise TagmaskError(f"data.context: no training image bears the tag {name!r}; {hint}")


def last_ids(dataset: Dataset, config: DataConfig) -> tuple[int, ...]:
    """Return the label ids of `data.last`; context classes follow the others.

    Raises:
        TagmaskError: the data have no such class; names the nearest there is.
    """
    names = (*dataset.classes, *dataset.context)
    for name in config.last:
        if name not in names:
            near = get_close_matches(name, names, 1)
            raise TagmaskError(f"data.last: no class {name!r}; {f'did you mean {near[0]!r}?' if near else 'remove it'}")
    return tuple(names.index(name) + 1 for name in config.last)


def training_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """Keep the records to learn from: the named splits, else all that lie in no held-out or evaluated split.

    Splits may overlap: what lies in a held-out one is not learnt from, whatever else it lies in.
    """
    if config.train is not None:
        return dataset.split(config.train)
    kept_out = {*held_out_splits(dataset), *(config.evaluate or ())}.intersection(dataset.splits)
    if not kept_out:
        return dataset
    names = {record.name for record in dataset.split(sorted(kept_out)).records}
    learnt = dataset.keep(record for record in dataset.records if record.name not in names)
    return learnt if len(learnt) else dataset


def masked_by_hand(dataset: Dataset, config: DataConfig) -> Dataset:
    """Leave the records to learn from the masks that `data.use_masks` means: all, or those that a person mended.

    Raises:
        TagmaskError: the folder or the table of the review is missing or damaged, or the masks are of other classes.
    """
    if not config.use_masks:
        return dataset
    if isinstance(config.use_masks, Path):
        return with_mended(dataset, config.use_masks, config.review, config.mask_classes)
    folder = config.masks or _mask_folder(dataset)
    if folder is None or not (folder / LEDGER).exists():
        if config.review is not None:
            raise TagmaskError(
                f"data.review {config.review}: is of masks that tagmask wrote, and data.use_masks=true takes all drawn "
                "ones; name the folder of the reviewed masks in data.use_masks, or leave data.review out"
            )
        return dataset  # somebody's own masks, read with the data
    return with_mended(dataset, folder, config.review, config.mask_classes)


def _mask_folder(dataset: Dataset) -> Path | None:
    """Return the folder that holds the masks as `NAME.png`; None where there are none or they are called otherwise."""
    for record in dataset.records:
        if isinstance(record.mask, PngMask):
            folder = Path(record.mask.path.as_posix().removesuffix(f"/{record.name}.png"))
            return folder if folder.is_dir() else None
    return None


def evaluation_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """Keep the records to evaluate on: the named splits, else the first held-out (`val` before `test`), else none."""
    chosen = held_out_splits(dataset)[:1] if config.evaluate is None else config.evaluate
    return dataset.split(chosen) if chosen else dataset.keep(())


def to_evaluate(dataset: Dataset, config: DataConfig, split: Sequence[str] | None) -> Dataset:
    """Keep the records that a verb scores: of the splits it was given, else of the recipe's, else all."""
    if split is not None:
        return dataset.split(split)
    held_out = evaluation_split(dataset, config)
    return held_out if len(held_out) else dataset


def held_out_splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the splits named as in HELD_OUT, in its order; none where nothing would be left to learn from."""
    plain = {name: re.sub(r"\d{4}$", "", name).lower() for name in dataset.splits}
    found = [name for usual in HELD_OUT for name in dataset.splits if plain[name] == usual]
    return tuple(found) if len(found) < len(plain) else ()
