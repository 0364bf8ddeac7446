"""The way from what a reader found to a data set: classes chosen, tags made indices, masks found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagmask.data.dataset import Dataset, MaskSource, Record, check_class_list
from tagmask.data.masks import PngMask, id_map
from tagmask.data.names import case_key, printable
from tagmask.data.readers.class_choice import choose_classes
from tagmask.data.readers.problems import Problems, nearest
from tagmask.data.readers.source import FileIndex, Options, Row, Source, class_list_beside
from tagmask.errors import TagmaskError, no_such
from tagmask.ops.label_ids import IGNORED_CLASS

KEPT_SECRET = ("test", "testing")
"""Splits whose tags may be known to nobody but the makers of a benchmark: their images are for prediction."""

NONE_CHOSEN = "bears none of the chosen classes"
NO_MASK_FITS = "no mask fits any image"


@dataclass(frozen=True)
class Collected:
    """A data set, and where all of it stands in the source, for `check_dataset`.

    Attributes:
        dataset: the records that could be made.
        untagged: the images without a tag: where each stands, and why.
        source: what the reader found.
    """

    dataset: Dataset
    untagged: tuple[tuple[str, str], ...]
    source: Source

    def places(self) -> dict[str, str]:
        """Return the file and row of each record, by name."""
        return {row.name: row.where for row in reversed(self.source.rows)}  # of several rows of a name, the first


def assemble(source: Source, options: Options, problems: Problems) -> Collected:
    """Turn the rows of a source into records, and note every row that is wrong in `problems`.

    Raises:
        TagmaskError: the class list or the mask folder is wrong as a whole.
    """
    full, classes = choose_classes(source, options)
    lists = "neither in the class list nor in data.context" if options.context else "not in the class list"
    tags_of = _TagReader(full, (*classes, *options.context), problems, lists)
    find_mask = _mask_finder(source, options, classes, full)
    records: list[Record] = []
    untagged: list[tuple[str, str]] = []
    skipped = list(source.skipped)
    first_rows: dict[str, Row] = {}
    first_splits: dict[str, Row] = {}
    for row in source.rows:
        tags, unknown = tags_of(row)
        if _repeats(row, first_rows, problems) or _respells_split(row, first_splits, problems) or row.image is None:
            continue
        if not tags and not (row.unknown is None and row.split in KEPT_SECRET):
            reason = _why_untagged(row)
            untagged.append((row.where, reason))
            if options.untagged == "skip":
                skipped.append(f"{row.where}: {reason}")
                continue
            if options.untagged == "error":
                problems.add("no tags", row.where, f"{reason}; tag it, or read with untagged: skip or negative")
        try:
            records.append(_record(row, tags, unknown, len(classes), find_mask(row)))
        except TagmaskError as error:
            problems.add("name", row.where, str(error))
    if unfit := _no_mask_fits(records, source, options):
        skipped.append(unfit)
    del first_rows
    lines = tuple(map(printable, skipped))
    dataset = Dataset(
        tuple(records),
        classes,
        options.background,
        source.tag_source,
        lines,
        options.context,
        source.groups,
        dropped=dict(tags_of.dropped.most_common()),
    )
    return Collected(dataset, tuple(untagged), source)


def _record(row: Row, tags: tuple[int, ...], unknown: tuple[int, ...], first: int, mask: MaskSource | None) -> Record:
    """Make a record; indices from `first` on are those of context classes."""
    assert row.image is not None
    if not unknown and (not tags or tags[-1] < first):  # most records of most sets
        return Record(row.name, row.image, tags, (), row.split, mask)
    things, context = ([tag for tag in tags if (tag >= first) is later] for later in (False, True))
    doubted, doubted_context = ([tag for tag in unknown if (tag >= first) is later] for later in (False, True))
    return Record(
        row.name,
        row.image,
        tuple(things),
        tuple(doubted),
        row.split,
        mask,
        tuple(tag - first for tag in context),
        tuple(tag - first for tag in doubted_context),
    )


class _TagReader:
    """Turns a row's tags into indices of the chosen classes, and counts the tags that are none of them."""

    def __init__(self, full: tuple[str, ...], classes: tuple[str, ...], problems: Problems, wrong: str) -> None:
        self.index = {name: position for position, name in enumerate(classes) if name != IGNORED_CLASS}
        self.full = frozenset(full) - {IGNORED_CLASS}
        self.order = full
        self.problems = problems
        self.wrong = wrong
        self.hints: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()

    def __call__(self, row: Row) -> tuple[tuple[int, ...], tuple[int, ...]]:
        tags = self._indices(row, row.tags)
        if row.unknown is None:
            return tags, tuple(position for position in self.index.values() if position not in tags)
        return tags, self._indices(row, row.unknown)

    def _indices(self, row: Row, names: tuple[str, ...]) -> tuple[int, ...]:
        if not names:
            return ()
        if not self.full.issuperset(names):
            self._note_wrong(row, names)
        found = {self.index[name] for name in names if name in self.index}
        if len(found) < len(names):
            self.dropped.update(self.full.intersection(names).difference(self.index))
        return tuple(sorted(found))

    def _note_wrong(self, row: Row, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.full:
                # The search for the nearest name is slow, and a wrong tag tends to come in thousands.
                if name not in self.hints:
                    self.hints[name] = nearest(name, self.order)
                message = f"tag {name!r} is {self.wrong}; {self.hints[name]}"
                self.problems.add("unknown tag", row.where, message)


def _why_untagged(row: Row) -> str:
    if row.unknown is None:
        return f"nobody knows the tags of image {row.name!r}"
    if row.tags:
        return f"image {row.name!r} {NONE_CHOSEN} (its tags: {'; '.join(row.tags)})"
    return f"image {row.name!r} has no tags"


def _repeats(row: Row, first_rows: dict[str, Row], problems: Problems) -> bool:
    """Note an earlier row of the same name: two rows of one file, or a.jpg and A.png, whose masks would collide."""
    first = first_rows.setdefault(case_key(row.name), row)
    if first is row:
        return False
    if row.name != first.name:
        message = (
            f"images {row.name!r} and {first.name!r} ({first.where}) differ in capitals alone, and masks are written"
            " under these names; rename one"
        )
    elif row.image is not None and first.image is not None and row.image != first.image:
        message = (
            f"{row.image} and {first.image} ({first.where}) both have the name {row.name!r}, which masks are"
            " written under; rename one"
        )
    elif row.split != first.split:
        message = (
            f"image {row.name!r} stands twice, in split {first.split!r} ({first.where}) and in {row.split!r}; keep one"
            " of the two rows"
        )
    else:
        message = f"image {row.name!r} stands twice (first: {first.where}); join the two, their tags by `;`"
    problems.add("duplicate name", row.where, message)
    return True


def _respells_split(row: Row, first_splits: dict[str, Row], problems: Problems) -> bool:
    """Note a split that an earlier row spells with other capitals: files are called after splits."""
    if not row.split:
        return False
    first = first_splits.setdefault(case_key(row.split), row)
    if first.split == row.split:
        return False
    message = f"split {row.split!r} is {first.split!r} in other capitals (first: {first.where}); write one of the two"
    problems.add("split", row.where, message)
    return True


def _mask_folder(source: Source, options: Options) -> Path | None:
    if options.masks is not None and not options.masks.is_dir():
        raise no_such(options.masks, "folder", "`masks` names a folder of PNG files called after images")
    return options.masks or source.mask_folder


def mask_order(folder: Path, source_classes: Sequence[str] | None, options: Options) -> tuple[str, ...] | None:
    """Return the class names in the order of the ids of PNG masks; None where nobody says.

    Args:
        folder: of the masks. A class list in it says more of its ids than one beside the images does.
        source_classes: the class list of the data, where there is one.
        options: may say it.
    """
    order = options.mask_classes or class_list_beside(folder) or source_classes
    return tuple(order) if order else None


def _mask_finder(
    source: Source, options: Options, classes: tuple[str, ...], full: tuple[str, ...]
) -> Callable[[Row], MaskSource | None]:
    """Return a function from a row to its mask or None; all masks have one id map in common."""
    folder = _mask_folder(source, options)
    if folder is None:
        outlines = id_map(source.mask_names or source.classes or full, classes, options.background)
        return lambda row: replace(row.mask, id_map=outlines) if row.mask else None
    order = mask_order(folder, source.classes, options)
    if order is None and options.classes and len(full) == len(classes):  # those of a run, which are all there are
        order = tuple(options.classes)
    if order is None:
        raise TagmaskError(
            f"{folder}: nobody says which id of the masks is which class; write classes.txt there, one name a line"
            " in the order of the ids 1, 2, ..., or give data.mask_classes"
        )
    check_class_list(order, f"{folder}, list of the masks' classes (data.mask_classes, classes.txt)")
    without = [name for name in classes if name not in order]
    if without:
        listed = folder / "classes.txt"
        where = f"{listed}" if not options.mask_classes and listed.exists() else "mask_classes"
        raise TagmaskError(f"{where}: {without[0]!r} is missing, so the masks in {folder} have no id for it; add it")
    ids = id_map(order, classes, options.background)
    index = FileIndex()

    def find(row: Row) -> MaskSource | None:
        paths = [f"{folder}{os.sep}{name}.png" for name in (row.name, row.mask_name) if name]
        path = next((path for path in paths if index.has(path)), None)
        return None if path is None else PngMask(Path(path), ids)

    return find


def _no_mask_fits(records: Sequence[Record], source: Source, options: Options) -> str | None:
    """Say that there is a mask folder and nothing in it belongs to an image; None where that is not so.

    Raises:
        TagmaskError: the folder was named by the user, so masks are wanted.
    """
    folder = _mask_folder(source, options)
    if folder is None or not records or any(record.mask for record in records):
        return None
    message = f"{folder}: {NO_MASK_FITS}; for image {records[0].name!r} expected {records[0].name}.png in it"
    if options.masks is not None:
        raise TagmaskError(f"{message}; rename the masks, or name another folder (masks)")
    return message
