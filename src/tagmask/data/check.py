"""The check of a data set: everything that is wrong with it, found in one pass."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Unpack

import numpy as np
from scipy import sparse

from tagmask.data.dataset import Dataset, Record
from tagmask.data.doubts import doubts
from tagmask.data.drawn import SHOWS_NOTHING, SHOWS_UNTAGGED, TWO_VALUES, Looked, dataset_masks, look
from tagmask.data.images import open_image
from tagmask.data.readers import collect
from tagmask.data.readers.assemble import Collected
from tagmask.data.readers.problems import Problem, Problems
from tagmask.data.readers.source import ReadOptions
from tagmask.errors import TagmaskError


@dataclass(frozen=True)
class CheckReport:
    """Everything that `check_dataset` found.

    Attributes:
        path: what was checked.
        errors: what has to be mended, each with file and row; a read of the data would fail or lose images.
        warnings: what deserves a look.
        images: number of images listed whose files exist.
        classes: the class list, context classes behind it; empty where the source could not be read at all.
        num_context: how many of `classes` are context classes, which no mask holds.
        tag_source: where the tags come from.
        splits: number of images of each split.
        class_counts: for each split the number of images that bear each class, in class order.
        class_totals: the same over all images; splits may overlap.
        unknown_totals: number of images of which nobody knows whether they bear each class.
        untagged: number of images that bear none of the classes.
        with_mask: number of images that have a mask.
        smallest, largest: (width, height) of the images of fewest and most pixels; None where none opened.
        cooccurrence: (K, K) P(column | row): the fraction of images with the row's class that also bear the column's;
            NaN in rows of classes that no image bears.
    """

    path: Path
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    images: int = 0
    classes: tuple[str, ...] = ()
    num_context: int = 0
    tag_source: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    class_counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_totals: tuple[int, ...] = ()
    unknown_totals: tuple[int, ...] = ()
    untagged: int = 0
    with_mask: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    cooccurrence: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def marks(self) -> tuple[str, ...]:
        """The signs of the classes in tables: their ids in masks, and s1, s2, … of context classes, which have none."""
        ids = (str(position + 1) for position in range(len(self.classes) - self.num_context))
        return (*ids, *(f"s{position + 1}" for position in range(self.num_context)))

    @property
    def surroundings(self) -> int:
        """The former name of `num_context`."""
        warnings.warn("CheckReport.surroundings is now num_context", DeprecationWarning, stacklevel=2)
        return self.num_context

    @property
    def ok(self) -> bool:
        """Whether nothing has to be mended."""
        return not self.errors


def check_dataset(
    path: str | Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[ReadOptions],
) -> CheckReport:
    """Check tagged images: every row, every image decoded whole, every mask against its image.

    Nothing that is wrong with the data raises; all of it is in the report.

    Args:
        path: as for `read_dataset`.
        workers: threads that decode; None takes one a processor.
        progress: called with the number of images done and their total.
        **options: as for `read_dataset`. Untagged images are checked even where they would be left out.
    """
    path = Path(path)
    problems = Problems()
    if options.get("untagged", "skip") == "skip":
        options = {**options, "untagged": "negative"}
    try:
        collected = collect(path, problems, **options)
    except TagmaskError as error:
        problems.add("file", str(path), _without_place(str(error), str(path)))
        return CheckReport(path, tuple(problems.found), ())
    dataset = collected.dataset
    sizes, doubtful = _open_all(collected, problems, workers or os.cpu_count() or 1, progress)
    if not dataset.records and not problems.found:
        problems.add("file", str(path), "holds no image")
    tagged = dataset.with_context()  # context classes are counted like the others
    table = _tag_table(tagged)
    indices = {split: _positions(dataset, split) for split in dataset.splits}
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return CheckReport(
        path=path,
        errors=tuple(problems.found),
        warnings=(*doubts(collected, problems, tagged.classes, _column_sums(table), by_area), *doubtful),
        images=len(dataset),
        classes=tagged.classes,
        num_context=len(dataset.context),
        tag_source=dataset.tag_source,
        splits={split: len(positions) for split, positions in indices.items()},
        class_counts={split: _column_sums(table[positions]) for split, positions in indices.items()},
        class_totals=_column_sums(table),
        unknown_totals=_unknown_totals(tagged),
        untagged=len(collected.untagged),
        with_mask=sum(record.mask is not None for record in dataset.records),
        smallest=by_area[0] if by_area else None,
        largest=by_area[-1] if by_area else None,
        cooccurrence=cooccurrence(table),
    )


def cooccurrence(tags: np.ndarray | sparse.csr_array) -> np.ndarray:
    """Return P(column | row) of classes.

    Args:
        tags: (N, K) 0/1; a sparse one where there are many classes.

    Returns:
        (K, K) fraction of the images with the row's class that also bear the column's; NaN where no image has it.
    """
    borne = sparse.csr_array(tags, dtype=np.int64)
    together = (borne.T @ borne).toarray()
    alone = np.diag(together).astype(np.float64)[:, None]
    return np.divide(together, alone, out=np.full(together.shape, np.nan), where=alone > 0)


def _open_all(
    collected: Collected, problems: Problems, workers: int, progress: Callable[[int, int], None] | None
) -> tuple[list[tuple[int, int]], list[Problem]]:
    """Decode every image and mask; return the (width, height) of those that opened, and what to doubt of the masks."""
    sizes: list[tuple[int, int]] = []
    shown: list[Looked] = []
    records, places = collected.dataset.records, collected.places()
    not_installed: set[str] = set()
    with ThreadPoolExecutor(workers) as pool:
        opened = zip(records, pool.map(_open, records), strict=True)
        for done, (record, (size, mask, found)) in enumerate(opened, start=1):
            where = places[record.name]
            shown += [] if mask is None else [mask]
            for problem in found:
                message = _without_place(problem.message, where)
                if "pip install" in message:  # a package is missing for one image as for the next
                    if message in not_installed:
                        continue
                    not_installed.add(message)
                    message += " (said once for all such images)"
                problems.add(problem.kind, where, message)
            if size is not None:
                sizes.append(size)
            if progress is not None:
                progress(done, len(records))
    if shown and all(each.two_valued for each in shown):
        drawn = [record for record in records if record.mask is not None]
        problems.add("mask", dataset_masks(drawn), TWO_VALUES.format(count=len(shown)))
        return sizes, []
    return sizes, _doubtful_masks(shown)


def _doubtful_masks(shown: list[Looked]) -> list[Problem]:
    """Say how many masks show nothing of a tagged image, or a class that their image is not tagged with."""
    found: list[Problem] = []
    blank, untagged = sum(each.blank for each in shown), sum(each.untagged for each in shown)
    if blank:
        found.append(Problem("mask", "masks", f"{blank} of {len(shown)} {SHOWS_NOTHING}"))
    if untagged:
        more = "; are the ids in the class list's order?" if 2 * untagged >= len(shown) else ""
        found.append(Problem("mask", "masks", f"{untagged} of {len(shown)} {SHOWS_UNTAGGED}{more}"))
    return found


def _open(record: Record) -> tuple[tuple[int, int] | None, Looked | None, list[Problem]]:
    """Give an image's size, what its mask shows, and what is wrong."""
    try:
        width, height = open_image(record.image).size
    except TagmaskError as error:
        return None, None, [Problem("unreadable image", "", str(error))]
    if record.mask is None:
        return (width, height), None, []
    try:
        labels = record.mask.load(height, width)
        return (width, height), look(labels, record), []
    except TagmaskError as error:
        return (width, height), None, [Problem("mask", "", str(error))]


def _without_place(message: str, place: str) -> str:
    """Take off the beginning of a message that names the place, as the problem does, too."""
    return message.removeprefix(f"{place}: ")


def _positions(dataset: Dataset, split: str) -> list[int]:
    members = {record.name for record in dataset.split(split).records}
    return [position for position, record in enumerate(dataset.records) if record.name in members]


def _tag_table(dataset: Dataset) -> sparse.csr_array:
    """Return what `tag_matrix` holds, as a sparse (N, K) table: dense, a million images of 1,000 classes take 1 GB."""
    rows, tags = dataset.tag_pairs()
    ones = np.ones(len(rows), dtype=np.int64)
    return sparse.csr_array((ones, (rows, tags)), shape=(len(dataset), len(dataset.classes)))


def _unknown_totals(dataset: Dataset) -> tuple[int, ...]:
    counts = Counter(chain.from_iterable(record.unknown for record in dataset.records))
    return tuple(counts[index] for index in range(len(dataset.classes)))


def _column_sums(table: sparse.csr_array) -> tuple[int, ...]:
    return tuple(int(total) for total in table.sum(axis=0))
