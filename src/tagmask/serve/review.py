"""Go through a folder of masks, the least confident first, and write down what a person says of each."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tagmask.data.confidence import CONFIDENCE, read_confidence
from tagmask.data.csv_cells import csv_text
from tagmask.data.dataset import listed_classes
from tagmask.data.files import write_text
from tagmask.data.mended import REVIEW_COLUMNS, VERDICTS, Verdict, read_review, read_verdict
from tagmask.errors import TagmaskError, no_such
from tagmask.serve.photos import Photos


@dataclass(frozen=True)
class Candidate:
    """One mask to look at.

    Attributes:
        name: its name in `confidence.csv`.
        image, mask: the files.
        confidence: in 0..1; None where the labelling gave none.
        tags: names of the classes in the image; where nobody gave any, of the classes in the mask.
        unknown: names of the classes of which nobody knows whether the image shows them.
        split: the name of its split of the data set, or nothing.
        tagged: whether somebody gave the tags.
        context: names of context classes, with `~` before those of which nobody knows; written back as they are.
    """

    name: str
    image: Path
    mask: Path
    confidence: float | None
    tags: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    split: str = ""
    tagged: bool = False
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a person said of a mask (keep it, redo it, its tags were wrong, or mended by hand), and its tags now."""

    verdict: Verdict
    tags: tuple[str, ...]


def find_candidates(masks: Path, photos: Photos, classes: Sequence[str]) -> tuple[list[Candidate], list[str]]:
    """List the masks that `tagmask label` or `tagmask predict` wrote, the least confident first.

    Returns:
        what can be reviewed, and a line for each mask that cannot be shown.

    Raises:
        TagmaskError: no such folder, not written by them, of other classes, or nothing to show.
    """
    table = masks / CONFIDENCE
    if not table.is_file():
        mend = "give --masks the output of `tagmask label` or `tagmask predict`"
        if masks.is_dir():
            raise TagmaskError(f"{masks}: has no confidence.csv; {mend}")
        raise no_such(masks, "folder", mend)
    _check_classes(masks / "classes.txt", classes)
    found: list[Candidate] = []
    left_out: list[str] = []
    for row in read_confidence(table):
        name, where = row.name, f"{table} row {row.number}"
        mask = Path(os.path.normpath(masks / f"{name}.png"))
        if not mask.is_relative_to(os.path.normpath(masks)):
            raise TagmaskError(f"{where}: {name!r} leads out of the folder; write the masks anew")
        photo = photos.by_name.get(name)
        if photo is None:
            left_out.append(f"{where}: {photos.root} has no image {name!r}")
        elif not mask.is_file():
            left_out.append(f"{where}: no file {mask}")
        else:
            in_mask = tuple(name for name in row.classes if name in classes)
            found.append(
                Candidate(
                    name=name,
                    image=photo.path,
                    mask=mask,
                    confidence=row.confidence,
                    tags=in_mask if photo.tags is None else photo.tags,
                    unknown=photo.unknown,
                    split=photo.split,
                    tagged=photo.tags is not None,
                    context=photo.context,
                )
            )
    if not found:
        reason = f"; {left_out[0]}" if left_out else ""
        raise TagmaskError(f"{masks}: no mask to review{reason}; give --images the folder or data set of its images")
    return sorted(found, key=lambda own: (own.confidence is not None, own.confidence or 0.0, own.name)), left_out


class Review:
    """The decisions on candidates; after each the whole table is written to disk.

    The table lists the images whose tags a person vouches for: all that came with tags, and all that were decided.
    `train` reads it as it is; the verdict stands in a column of its own, which readers leave alone. A table that is
    already there is continued, and its rows of other images are kept. Methods may be called from several threads.

    Attributes:
        chosen: names of the candidates to go through, the least confident first; see `choose`.

    Raises:
        TagmaskError: the file is something else, lies where it would be misread, or cannot hold the class names.
    """

    def __init__(self, candidates: Sequence[Candidate], file: Path, classes: Sequence[str]) -> None:
        self.file = file
        self.candidates = {candidate.name: candidate for candidate in candidates}
        self.decisions: dict[str, Decision] = {}
        self._order = list(self.candidates)
        self._place = {name: position for position, name in enumerate(self._order)}
        self._classes = tuple(classes)
        self._lock = threading.Lock()
        self._foreign: list[list[str]] = []
        unwritable = [name for name in classes if ";" in name or name.startswith("~") or name != name.strip()]
        if unwritable:
            raise TagmaskError(
                f"class {unwritable[0]!r} cannot stand in a table of tags (no ';', '~' or spaces around)"
            )
        if file.suffix.lower() != ".csv" or not file.parent.parent.is_dir():
            raise TagmaskError(f"{file}: expected a .csv file in a folder that is there; correct --review")
        if (file.parent / "masks" / CONFIDENCE).exists():
            raise TagmaskError(
                f"{file}: `train` would take the masks beside it ({file.parent / 'masks'}) for the ground truth; give "
                "--review a file in another folder, as reviews/first.csv"
            )
        self._written = file.read_bytes() if file.exists() else None
        if self._written is not None:
            self._resume()
        self.choose()

    def choose(self, tag: str = "", verdict: Verdict | Literal["", "none"] = "", most: float = 1.0) -> int:
        """Choose the candidates to go through, as they stand now; the others stay as they are.

        Args:
            tag: only those of this tag; nothing: of any.
            verdict: only those with this verdict, or `none` for those without; nothing: of any.
            most: only those of at most this confidence; those of which nothing is known count as 0.

        Returns:
            How many there are; where there are none, all stay chosen.
        """
        turn = [
            name
            for name, candidate in self.candidates.items()
            if tag in ("", *self.tags(name))
            and verdict in ("", self.verdict(name))
            and (candidate.confidence or 0.0) <= most
        ]
        self.chosen = turn or self._order
        undecided = {name for name in self.chosen if name not in self.decisions}
        # Whoever chooses what was decided wants to look at it again.
        self._left = undecided if verdict in ("", "none") else set(self.chosen)
        return len(turn)

    def verdict(self, name: str) -> Verdict | Literal["none"]:
        """Return the verdict on a candidate; `none` where there is none."""
        return self.decisions[name].verdict if name in self.decisions else "none"

    def __len__(self) -> int:
        return len(self.candidates)

    def position(self, name: str) -> int:
        """Return the candidate's place among the chosen ones, from 0."""
        return bisect_left(self.chosen, self._place[self.candidate(name).name], key=self._place.__getitem__)

    def tags(self, name: str) -> tuple[str, ...]:
        """Return the tags as they stand: as decided, else as given."""
        decision = self.decisions.get(name)
        return self.candidate(name).tags if decision is None else decision.tags

    def beside(self, name: str, step: int) -> str:
        """Return the chosen candidate `step` places further; after the last comes the first."""
        place = self.position(name)
        if step > 0 and (place == len(self.chosen) or self.chosen[place] != name):
            step -= 1  # it is not among them: what stands at its place is the next
        return self.chosen[(place + step) % len(self.chosen)]

    def undecided(self, after: str | None = None) -> str | None:
        """Return the next chosen candidate to decide on; after the last comes the first. None: all are decided."""
        start = 0 if after is None else bisect_right(self.chosen, self._place[after], key=self._place.__getitem__)
        turn = self.chosen[start:] + self.chosen[:start]
        return next((name for name in turn if name in self._left), None)

    def decide(self, name: str, verdict: Verdict, tags: Sequence[str]) -> None:
        """Store a decision and write the table.

        Args:
            name: the candidate's name.
            verdict: `keep`, `redo`, `tags` for tags that were wrong, or `edited` for a mask mended by hand.
            tags: names of the classes in the image, as the person left them.

        Raises:
            TagmaskError: verdict and tags do not fit each other, or the file cannot be written or is no longer as it
                was left; nothing is stored then.
        """
        chosen = tuple(tag for tag in self._classes if tag in tags)
        changed = set(chosen) != set(self.tags(name))
        if changed and verdict not in ("tags", "edited"):
            raise TagmaskError("the tags were changed: save them with “Fix the tags”, or put them back first")
        if not changed and verdict == "tags":
            raise TagmaskError("the tags are as they were: change them first, or choose “Redo”")
        with self._lock:
            before = dict(self.decisions)
            self.decisions[name] = Decision(verdict, chosen if changed else self.tags(name))
            try:
                self._write()
            except TagmaskError:
                self.decisions = before
                raise
            self._left.discard(name)

    def counts(self) -> dict[str, int]:
        """Count the candidates that have each verdict."""
        verdicts = [decision.verdict for decision in self.decisions.values()]
        return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

    def candidate(self, name: str) -> Candidate:
        """Return the candidate of a name.

        Raises:
            TagmaskError: there is none.
        """
        if name not in self.candidates:
            raise TagmaskError(f"{name!r} is not among the masks under review")
        return self.candidates[name]

    def _resume(self) -> None:
        own = {os.path.abspath(candidate.image): name for name, candidate in self.candidates.items()}
        rows = read_review(self.file)
        for number, row in enumerate(rows, start=2):
            image, tags, _, verdict = row
            name = own.get(os.path.abspath(self.file.parent / image))
            if name is None:
                self._foreign.append(row)
            elif verdict:
                said = read_verdict(verdict, self.file, number)
                self.decisions[name] = Decision(said, self._read_tags(tags, number, self.candidates[name].context))
        if rows and len(self._foreign) == len(rows):
            raise TagmaskError(
                f"{self.file}: a review of other images ({self._foreign[0][0]}, …); choose another --review"
            )

    def _read_tags(self, cell: str, number: int, context: Sequence[str]) -> tuple[str, ...]:
        said = (part.strip() for part in cell.split(";"))
        tags = tuple(tag for tag in said if tag and not tag.startswith("~") and tag not in context)
        strange = [tag for tag in tags if tag not in self._classes]
        if strange:
            raise TagmaskError(f"{self.file} row {number}: tag {strange[0]!r} is no class of the run; correct the row")
        return tags

    def _write(self) -> None:
        on_disk = self.file.read_bytes() if self.file.exists() else None
        if on_disk != self._written:
            raise TagmaskError(
                f"{self.file}: changed by something else since the page read it, so it was not written; start the page "
                "again to take up the file as it is"
            )
        own = [self._row(name) for name in sorted(self._order) if self._is_vouched(name)]
        write_text(self.file, csv_text([REVIEW_COLUMNS, *own, *self._foreign]))
        self._written = self.file.read_bytes()

    def _is_vouched(self, name: str) -> bool:
        return name in self.decisions or self.candidates[name].tagged

    def _row(self, name: str) -> list[str]:
        candidate, decision = self.candidates[name], self.decisions.get(name)
        tags = self.tags(name)
        doubted = [f"~{tag}" for tag in candidate.unknown if tag not in tags]
        image = Path(os.path.relpath(candidate.image, self.file.parent)).as_posix()
        return [
            image,
            ";".join([*tags, *doubted, *candidate.context]),
            candidate.split,
            decision.verdict if decision else "",
        ]


def _check_classes(path: Path, classes: Sequence[str]) -> None:
    if path.is_file() and listed_classes(path) != tuple(classes):
        raise TagmaskError(f"{path}: other classes than the run's; give the run that wrote the masks")
