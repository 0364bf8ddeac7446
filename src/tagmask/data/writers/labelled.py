"""Find the photographs that a folder of masks belongs to, which every format's writer takes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagmask.data.confidence import CONFIDENCE, read_confidence
from tagmask.data.dataset import Dataset, Record, listed_classes
from tagmask.data.images import image_size, is_image_name
from tagmask.data.masks import PngMask
from tagmask.data.members import is_member
from tagmask.data.names import split_name_fault
from tagmask.data.readers import read_dataset
from tagmask.errors import TagmaskError, no_such
from tagmask.ops.label_ids import IGNORE

NAMED = 5  # folders named in a message


@dataclass(frozen=True)
class LabelledImage:
    """One photograph with its label map.

    Attributes:
        name: of the mask, relative, with `/` between folders and without suffix.
        image: the photograph.
        file_name: of the photograph, relative to the folder of photographs, with `/` between folders.
        labels: (h, w) at the size of the upright photograph: 0 background, 1..K, 255 ignored.
        split: of the data set; empty where there is none.
        confidence: in 0..1, from the table beside the masks; None where it says nothing.
    """

    name: str
    image: Path
    file_name: str
    labels: np.ndarray = field(repr=False)
    split: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class _Photograph:
    """A photograph that a mask may belong to; the attributes are those of `LabelledImage`."""

    image: Path
    file_name: str
    split: str = ""


@dataclass
class Labelled:
    """A folder of masks `NAME.png`, with the photographs that they belong to.

    Attributes:
        masks: the folder.
        classes: K names in id order.
        photographs: by the name of their masks; several where nobody can tell which is meant.
        root: the folder that their file names are relative to.
        found: how many images there were. This and the next two are filled while one iterates.
        ignored: how many of them hold ignored pixels.
        skipped: what is wrong with those that were left out.
    """

    masks: Path
    classes: tuple[str, ...]
    photographs: dict[str, list[_Photograph]]
    root: Path
    found: int = 0
    ignored: int = 0
    skipped: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[LabelledImage]:
        """Yield the images one at a time, sorted by name; those that are wrong are noted and left out."""
        table = self.masks / CONFIDENCE
        confidence = {row.name: row.confidence for row in read_confidence(table)} if table.is_file() else {}
        ids = {label: label for label in range(len(self.classes) + 1)}
        for path in sorted(self.masks.rglob("*.png")):
            name = path.relative_to(self.masks).with_suffix("").as_posix()
            try:
                photograph = self._photograph(name, path)
                width, height = image_size(photograph.image)
                labels = PngMask(path, ids).load(height, width)
            except TagmaskError as error:
                self.skipped.append(str(error))
                continue
            self.found += 1
            self.ignored += bool((labels == IGNORE).any())
            yield LabelledImage(
                name, photograph.image, photograph.file_name, labels, photograph.split, confidence.get(name)
            )

    def _photograph(self, name: str, mask: Path) -> _Photograph:
        found = self.photographs.get(name, [])
        if len(found) == 1:
            return found[0]
        if not found:
            raise TagmaskError(f"{mask}: no photograph called {name!r}; name the folder that masks are called after")
        files = " and ".join(photograph.file_name for photograph in found)
        raise TagmaskError(f"{mask}: stands for {files}; rename one of them and label again")


def open_labelled(masks: Path, images: Path | Dataset) -> Labelled:
    """Find the photographs of a folder of masks.

    Args:
        masks: `NAME.png`, with `classes.txt`, and `confidence.csv` where there is one.
        images: the folder of photographs that was labelled, or the data set, or where it lies.

    Raises:
        TagmaskError: there are no masks, nobody names their classes, no mask fits any photograph, or a split has a name
            that cannot be part of a file's name.
    """
    if not masks.is_dir():
        raise no_such(masks, "folder", "expected the output of `tagmask label` or `tagmask predict`")
    names = [file.relative_to(masks).with_suffix("").as_posix() for file in sorted(masks.rglob("*.png"))]
    if not names:
        raise TagmaskError(f"{masks}: holds no mask; expected NAME.png for each image")
    classes = _classes(masks, images)
    root, photographs = _of_dataset(images) if isinstance(images, Dataset) else _of_path(images, masks, names)
    if photographs.keys().isdisjoint(names):
        raise TagmaskError(
            f"{masks}: no mask is called after a photograph of {_described(images)}; for the mask {names[0]}.png"
            f" expected {names[0]}.jpg or the like in it; {_mend(images, names)}"
        )
    for photograph in (one for name in names for one in photographs.get(name, ())):
        if fault := split_name_fault(photograph.split):
            raise TagmaskError(f"split {photograph.split!r} {fault}")
    return Labelled(masks, classes, photographs, root)


def _mend(images: Path | Dataset, names: Sequence[str]) -> str:
    """Name the folder above the given one where the masks are called after its photographs from there."""
    if not isinstance(images, Dataset) and all(name.startswith(f"{images.name}/") for name in names):
        return f"did you mean {images.parent}?"
    return "name the folder that was labelled"


def _described(images: Path | Dataset) -> str:
    return "the data set" if isinstance(images, Dataset) else str(images)


def _classes(masks: Path, images: Path | Dataset) -> tuple[str, ...]:
    listed = masks / "classes.txt"
    if listed.is_file():
        return listed_classes(listed)
    if isinstance(images, Dataset):
        return images.classes
    raise TagmaskError(
        f"{listed}: is missing; write the class names, one a line in the order of the mask ids 1, 2, ..."
    )


def _of_dataset(dataset: Dataset) -> tuple[Path, dict[str, list[_Photograph]]]:
    """The folder that a data set's photographs share, and the photographs by the name of their mask."""
    root = os.path.commonpath([os.path.abspath(record.image.parent) for record in dataset.records])

    def file_name(record: Record) -> str:
        if is_member(record.image):  # of an archive; the path holds its place there
            return record.name + record.image.suffix
        return Path(os.path.relpath(record.image, root)).as_posix()

    return Path(root), {
        record.name: [_Photograph(record.image, file_name(record), record.split)] for record in dataset.records
    }


def _of_path(path: Path, masks: Path, names: Sequence[str]) -> tuple[Path, dict[str, list[_Photograph]]]:
    """The folder and photographs by the name of their mask.

    They are those in the folder, else those of the data set it is, else those in the one folder of it where some fit.
    """
    if path.is_dir():
        found = _of_folder(path, masks)
        if not found.keys().isdisjoint(names):
            return path, found
    try:
        root, found = _of_dataset(read_dataset(path, untagged="negative"))
        return (root, found) if path.is_file() or not found.keys().isdisjoint(names) else _inside(path, masks, names)
    except TagmaskError as error:
        if path.is_dir():
            return _inside(path, masks, names)
        raise TagmaskError(f"photographs: {error}") from error


def _inside(path: Path, masks: Path, names: Sequence[str]) -> tuple[Path, dict[str, list[_Photograph]]]:
    """Look into `images/` of a data set, then into its other folders, for the photographs that masks are called after.

    Raises:
        TagmaskError: they may be those of several folders.
    """
    folders = [each for each in sorted(path.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    found = {folder: _of_folder(folder, masks) for folder in folders if folder.resolve() != masks.resolve()}
    fitting = [folder for folder, photographs in found.items() if not photographs.keys().isdisjoint(names)]
    fitting = [path / "images"] if path / "images" in fitting else fitting
    if len(fitting) > 1:
        raise TagmaskError(
            f"{path}: masks in {masks} are called after photographs of {', '.join(map(str, fitting[:NAMED]))}; give "
            "the one that was labelled"
        )
    return (fitting[0], found[fitting[0]]) if fitting else (path, {})


def _of_folder(folder: Path, masks: Path) -> dict[str, list[_Photograph]]:
    """Photographs in a folder by the name of their mask; the masks themselves are none."""
    found: dict[str, list[_Photograph]] = defaultdict(list)
    own = masks.resolve()
    for file in sorted(folder.rglob("*")):
        if is_image_name(file.name) and own not in file.resolve().parents and file.is_file():
            photograph = _Photograph(file, file.relative_to(folder).as_posix())
            found[os.path.splitext(photograph.file_name)[0]].append(photograph)
    # Of two photographs that differ in their suffix only, masks bear the whole name.
    return found | {photograph.file_name: [photograph] for same in found.values() for photograph in same}
