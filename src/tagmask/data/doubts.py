"""What deserves a look in a data set though it can be learnt from: class names, rare classes, images left out."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tagmask.data.dataset import Dataset
from tagmask.data.images import is_image_name
from tagmask.data.masks import PngMask
from tagmask.data.names import SPLITS
from tagmask.data.readers.assemble import NONE_CHOSEN, Collected
from tagmask.data.readers.problems import Problem, Problems
from tagmask.data.readers.source import Source
from tagmask.data.readers.table import TABLE_SUFFIXES
from tagmask.data.untaught import FEW, untaught_classes
from tagmask.ops.label_ids import IGNORED_CLASS

SMALL_SIDE = 32
ALIKE = 0.85  # of two names, as difflib has it: "sheeep" and "sheep" have 0.91, "horse" and "house" 0.8
SPLIT_ALIKE = 0.8  # of two splits: "vall" and "val" have 0.86, "trian" and "train" 0.8
OFTENER = 10  # times as many images, from which the other of two like names is taken to be the one that was meant
MOST_NAMES = 2000  # classes whose names are compared, for it takes the square of their number
NAMED = 5  # tags that are named among those left out


def doubts(
    collected: Collected,
    problems: Problems,
    classes: Sequence[str],
    totals: Sequence[int],
    by_area: list[tuple[int, int]],
) -> list[Problem]:
    """Return what deserves a look in a data set that was read and whose images were opened.

    Args:
        collected: what was read.
        problems: what has to be mended.
        classes: context classes behind the others.
        totals: how many images bear each class.
        by_area: (width, height) of the images, the smallest first.
    """
    dataset = collected.dataset
    found = [Problem("no tags", where, reason) for where, reason in collected.untagged]
    if dataset.dropped:
        found.append(Problem("class", "data.classes", left_out_tags(dataset).removeprefix("data.classes ")))
    found += [Problem("row", "left out", line) for line in dataset.skipped]
    if not any(problem.kind == "row" for problem in problems.found):  # images of rows that are wrong are in no other
        found += _unlisted(collected.source, dataset)
    found += doubtful_classes(dataset)
    found += doubtful_splits(dataset)
    found += untaught_classes(dataset)
    for position, (name, count) in enumerate(zip(classes, totals, strict=True)):
        what = f"{'class' if position < len(dataset.classes) else 'data.context'} {name!r}"
        if count == 0 and name != IGNORED_CLASS:
            found.append(Problem("class", what, "no image bears it; nothing can be learned of it"))
        elif 0 < count < FEW:
            found.append(
                Problem(
                    "class",
                    what,
                    f"only {count} image{'' if count == 1 else 's'} bear{'s' if count == 1 else ''} it",
                )
            )
    small = sum(min(size) < SMALL_SIDE for size in by_area)
    if small:
        found.append(Problem("size", "sizes", f"{small} images have a side under {SMALL_SIDE} pixels"))
    if "" in dataset.splits and len(dataset.splits) > 1:
        rows = sum(not record.split for record in dataset.records)
        found.append(Problem("split", "splits", f"{rows} images have no split, and others have one"))
    masks = sum(record.mask is not None for record in dataset.records)
    if 0 < masks < len(dataset):
        found.append(Problem("mask", "masks", f"{len(dataset) - masks} of {len(dataset)} images have none"))
    return found


def doubtful_classes(dataset: Dataset) -> list[Problem]:
    """Return warnings about class names that look like several tags in one, or like one another.

    A training of them would run to its end and learn classes that nobody meant, so `train` may say this, too.
    """
    classes = (*dataset.classes, *dataset.context)
    found: list[Problem] = []
    if joint := _joined_by_spaces(dataset, classes):
        found.append(
            Problem(
                "class",
                f"class {joint!r}",
                "looks like several tags, for no image has more than one and their words return in others; join tags"
                " by ';', not by spaces",
            )
        )
    spellings: dict[str, str] = {}
    for mark, names in _by_joining_mark(classes).items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        word = {",": "comma", "|": "bar"}.get(mark)
        mend = f" (in a table by {mark!r}, too: --set data.tag_separator={word})" if word else ""
        said = f"{'hold' if more else 'holds'} {mark!r}; several tags are joined by ';'{mend}"
        found.append(Problem("class", f"class {names[0]!r}{more}", said))
    for name in classes:
        # One letter with a mark may be written as one sign or as two that look the same (NFC and NFD).
        other = spellings.setdefault(unicodedata.normalize("NFC", name).casefold().strip(), name)
        if other == name:
            continue
        same = unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)
        how = "how its letters are encoded (Unicode NFC and NFD); write both alike" if same else "capitals alone"
        found.append(Problem("class", f"class {name!r}", f"differs from {other!r} in {how}"))
    return found + _misspelt(dataset)


def doubtful_splits(dataset: Dataset) -> list[Problem]:
    """Return a warning for each split that is spelt nearly as a usual one is: `vall` would be learnt from."""
    found: list[Problem] = []
    for name in dataset.splits:
        plain = re.sub(r"[\W\d_]+$", "", name).lower()
        near = [] if plain in SPLITS else difflib.get_close_matches(plain, SPLITS, 1, SPLIT_ALIKE)
        if near:
            said = f"spelt nearly as {near[0]!r}, and learnt from unless data.train says otherwise; did you mean that?"
            found.append(Problem("split", f"split {name!r}", said))
    return found


def _misspelt(dataset: Dataset) -> list[Problem]:
    """Return a warning for each class of a few images that is spelt nearly as one of many images is."""
    whole = dataset.with_context()
    if len(whole.classes) > MOST_NAMES:
        return []
    images = np.bincount(whole.tag_pairs()[1], minlength=len(whole.classes)).tolist()
    counts = dict(zip(whole.classes, images, strict=True))
    found: list[Problem] = []
    for name, count in counts.items():
        often = [other for other, images in counts.items() if images >= OFTENER * count]
        near = difflib.get_close_matches(name, often, 1, ALIKE) if 0 < count < FEW else []
        if near:
            many = f"{count} image{'' if count == 1 else 's'}"
            said = f"in {many} only, and spelt nearly as {near[0]!r}, which is in {counts[near[0]]}; did you mean that?"
            found.append(Problem("class", f"class {name!r}", said))
    return found


def left_out_tags(dataset: Dataset) -> str:
    """Say which tags the chosen classes leave out, and how many images bear nothing else, in a line."""
    counts = [f"{name!r} ({count} image{'' if count == 1 else 's'})" for name, count in dataset.dropped.items()]
    more = f" and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    images = sum(NONE_CHOSEN in line for line in dataset.skipped)
    bare = (
        f"; {images} image{' bears' if images == 1 else 's bear'} no other tag and {'is' if images == 1 else 'are'} "
        "left out, too (--set data.untagged=negative keeps images as known to bear none of the classes)"
    )
    return f"data.classes leaves out the tags {', '.join(counts[:NAMED])}{more}{bare if images else ''}"


def _by_joining_mark(classes: Sequence[str]) -> dict[str, list[str]]:
    """Return the names that look like several tags in one, by the mark that says so."""
    found: dict[str, list[str]] = {}
    for name in classes:
        if mark := re.search(r"^[\[{('\"]|[,|]", name):
            found.setdefault(mark[0], []).append(name)
    return found


def _joined_by_spaces(dataset: Dataset, classes: Sequence[str]) -> str | None:
    """Return a class like "clear primary", in a table that joins tags by spaces; None where there is none.

    In such a table no image has more than one tag, and either every tag has a space and some word occurs in two, or
    all words of one occur in others as well.
    """
    if any(len(record.tags) + len(record.context) > 1 for record in dataset.records):
        return None
    if _by_joining_mark(classes):  # which is told by itself
        return None
    spaced = [name for name in classes if " " in name.strip()]
    counts = Counter(word for name in classes for word in set(name.split()))
    if len(spaced) == len(classes) and max(counts.values()) > 1:
        return spaced[0]
    return next((name for name in spaced if all(counts[word] > 1 for word in name.split())), None)


def _unlisted(source: Source, dataset: Dataset) -> list[Problem]:
    """Warn of images that lie beside those of a table and are in none of its rows."""
    if source.path.suffix.lower() not in TABLE_SUFFIXES:
        return []
    listed = {os.path.abspath(row.image) for row in source.rows if row.image is not None}
    masks = {os.path.abspath(record.mask.path) for record in dataset.records if isinstance(record.mask, PngMask)}
    known = listed | masks
    found: list[Problem] = []
    for folder in sorted({os.path.dirname(path) for path in listed}):
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # it may be entered, and not listed
            continue
        files = (os.path.join(folder, name) for name in names if is_image_name(name))
        others = [path for path in files if path not in known]
        if others:
            many = f"{len(others)} images are" if len(others) > 1 else "an image is"
            found.append(
                Problem("row", folder, f"{many} in no row and left out, such as {os.path.basename(others[0])}")
            )
    return found
