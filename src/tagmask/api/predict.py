"""The verb `predict`: masks of images without tags."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask.api.write_masks import Written, write_masks
from tagmask.data.dataset import PathLike
from tagmask.data.images import is_image_name, is_slide_name, limit_pixels
from tagmask.data.ledger import LEDGER
from tagmask.data.names import image_name_fault
from tagmask.data.readers.source import FileIndex
from tagmask.data.readers.voc import list_ids
from tagmask.data.walk import image_files
from tagmask.engine.inference import Item
from tagmask.engine.model import load, overridden
from tagmask.errors import TagmaskError, no_such

logger = logging.getLogger(__name__)


def predict(
    run: PathLike,
    images: PathLike,
    *,
    output: PathLike,
    names: PathLike | None = None,
    overrides: Iterable[str] = (),
    overwrite: bool = False,
) -> Written:
    """Write masks of images without tags.

    Args:
        run: a run folder.
        images: an image, a whole slide, or a folder of them (searched through).
        output: folder for `NAME.png` and `confidence.csv`, and `NAME.png.aux.xml` where an image says where on the map
            it lies; not that of the images, where the next start would take
            masks for photographs.
        names: a list of the images to take from that folder, a name a line, as VOC's `test.txt`; by default all.
        overrides: of the recipe's `inference` and `data.max_pixels`.
        overwrite: replace masks of these images, though tagmask did not write them or they were changed.

    Raises:
        TagmaskError: whatever is wrong with run, images or output.
    """
    model = load(run)
    model.check_decoder()
    recipe = overridden(model.run.recipe, overrides, only=("inference", "data.max_pixels"))
    limit_pixels(recipe.data.max_pixels)
    items = find_images(Path(images), Path(output)) if names is None else listed_images(Path(images), Path(names))
    return write_masks(model, items, Path(output), recipe.inference, "decoder", overwrite=overwrite)


def listed_images(folder: Path, names: Path) -> list[Item]:
    """Return the images of a folder that a list names, a name a line with or without suffix, in the list's order.

    Raises:
        TagmaskError: the list is empty or cannot be read, or an image is missing.
    """
    there = FileIndex().images(str(folder))
    ids = list_ids(names)
    missing = [name for name in ids if name not in there]
    if missing:
        raise TagmaskError(
            f"{names} row {ids[missing[0]]}: no image {missing[0]!r} in {folder}; {len(missing)} of {len(ids)} are "
            "missing there"
        )
    return [Item(name, folder / there[name]) for name in ids]


def find_images(path: Path, output: Path) -> list[Item]:
    """Return the image, or those in a folder and below it.

    Left out are masks: what lies in the output, from an earlier start, ground truth in `masks/` beside `images/`, and
    every folder of masks that tagmask wrote.
    """
    if path.is_file():
        if not (is_image_name(path.name) or is_slide_name(path.name)):
            raise TagmaskError(f"{path}: no image by its name; expected .jpg, .png, .webp, …, or a folder of them")
        _check_apart(path.parent, output)
        return [Item(path.stem, path)]
    if not path.is_dir():
        raise no_such(path, "image or folder")
    _check_apart(path, output)
    found = sorted(map(Path, image_files(path, links=True, hidden=True, slides=True)))
    aside = {output.resolve()}
    if (path / "images").is_dir():
        aside.add((path / "masks").resolve())
    found = [file for file in found if aside.isdisjoint(file.resolve().parents)]
    written = _written_folders(path, found)
    masks = [file for file in found if not written.isdisjoint(file.parents)]
    if masks and len(masks) == len(found):
        raise TagmaskError(
            f"{path}: holds masks that tagmask wrote ({LEDGER} lies there); name a folder of photographs"
        )
    if masks:
        logger.warning("%s: masks that tagmask wrote, left out: %d images", min(map(str, written)), len(masks))
        found = [file for file in found if written.isdisjoint(file.parents)]
    if not found:
        raise TagmaskError(f"{path}: no images in it; expected .jpg, .png, .webp, … files")
    whole = [file.relative_to(path).as_posix() for file in found]
    names = distinct_names(whole, str(path))
    return [Item(name, file) for name, file in zip(names, found, strict=True)]


def _written_folders(path: Path, files: Iterable[Path]) -> set[Path]:
    """Find the folders of masks that tagmask wrote, `path` and below, among those that the files lie in."""
    folders = {parent for file in files for parent in file.parents if parent == path or path in parent.parents}
    return {folder for folder in folders if (folder / LEDGER).exists()}


def distinct_names(files: Sequence[str], where: str) -> list[str]:
    """Name the masks of files after their paths relative to `where`, without suffix unless two would then be the same.

    Raises:
        TagmaskError: a name is unfit.
    """
    names = [Path(name).with_suffix("").as_posix() for name in files]
    for name in names:
        if fault := image_name_fault(name):
            raise TagmaskError(f"{where}: image name {name!r} {fault}")
    # Two images that differ in their suffix alone keep it; and so does one that bears the name which that makes.
    while len(set(names)) < len(names):
        count = Counter(names)
        names = [full if count[name] > 1 else name for name, full in zip(names, files, strict=True)]
    return names


def _check_apart(photographs: Path, output: Path) -> None:
    """Refuse masks among the photographs, which the next start could not tell from them."""
    if output.resolve() == photographs.resolve():
        raise TagmaskError(
            f"{output}: holds the photographs, which masks would lie among; choose another output, such as "
            f"{output / 'masks'}"
        )
