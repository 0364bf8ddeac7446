"""The verb `tags`: propose the tags of photographs from the names of classes alone, for a person to confirm."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tagmask.data.dataset import PathLike, check_class_list
from tagmask.data.images import open_image
from tagmask.data.names import image_name_fault
from tagmask.data.readers.source import read_class_list
from tagmask.data.tag_table import JOINED, ProposedTags, photo_folder, write_proposed
from tagmask.data.walk import image_files
from tagmask.engine.device import default_device
from tagmask.engine.progress import report_skipped, track
from tagmask.errors import TagmaskError, no_such
from tagmask.models.zero_shot import CLIP, ZeroShot

logger = logging.getLogger(__name__)


def propose_tags(
    photos: PathLike,
    classes: PathLike | Sequence[str],
    *,
    output: PathLike | None = None,
    model: str = CLIP,
    least: float = 0.5,
    overwrite: bool = False,
) -> Path:
    """Write a table of the tags that a network of images and captions proposes for photographs.

    The scores are guesses: nobody has measured them on photographs like yours. Look through the table, best on the
    page (`tagmask serve --tags TABLE`), before you train on it.

    Args:
        photos: a folder; what is searched through is its `images/`, where there is one.
        classes: names, or a file with one a line.
        output: the table to write, `tags.csv` in the folder of photographs where nobody says otherwise. It has to lie
            in that folder, since it names images from there.
        model: see `ZeroShot`.
        least: the score in 0..1 from which a class becomes a tag.
        overwrite: whether a table that is there is replaced.

    Returns:
        the table.

    Raises:
        TagmaskError: an argument is wrong, no photograph opens, the network cannot be had, or the table is there.
    """
    folder = Path(photos)
    if not folder.is_dir():
        raise no_such(folder, "folder", "give the folder of the photographs")
    table = folder / "tags.csv" if output is None else Path(output)
    if table.resolve().parent != folder.resolve():
        raise TagmaskError(f"{table}: the table names images from {folder}; write it there, as {folder / 'tags.csv'}")
    if table.exists() and not overwrite:
        raise TagmaskError(f"{table}: is there already; give another output, or add --overwrite")
    if not 0 <= least <= 1:
        raise TagmaskError(f"least {least}: must be from 0 to 1")
    names = _class_names(classes)
    base = photo_folder(table)
    paths = [Path(path) for path in image_files(base)]
    if not paths:
        raise TagmaskError(f"{base}: no images in it; expected .jpg, .png, .webp, … files")
    network = ZeroShot(model, names, default_device())
    rows: list[ProposedTags] = []
    skipped: list[str] = []
    for path in track(paths, "tags", len(paths)):
        image = path.relative_to(base).as_posix()
        fault = image_name_fault(image)
        if fault:
            skipped.append(f"{path}: its name {fault}; rename it")
            continue
        try:
            found = network.scores(open_image(path))
        except TagmaskError as error:
            skipped.append(str(error))
            continue
        scores = dict(sorted(zip(names, map(float, found), strict=True), key=lambda pair: -pair[1]))
        rows.append(ProposedTags(image, tuple(name for name in names if scores[name] >= least), scores))
    report_skipped(skipped)
    if not rows:
        raise TagmaskError(f"{folder}: none of its {len(paths)} images opens")
    write_proposed(table, rows)
    return table


def _class_names(classes: PathLike | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str | Path) and Path(classes).is_file():
        names = read_class_list(Path(classes))
    elif str(classes).endswith(".txt"):
        raise no_such(str(classes), "file", "give --classes names parted by commas, or a file with one a line")
    else:
        listed = str(classes).split(",") if isinstance(classes, str | Path) else classes
        names = check_class_list([name.strip() for name in listed], "--classes", most=None)
    for name in names:
        if JOINED in name:
            raise TagmaskError(f"--classes: {name!r} holds {JOINED!r}, which parts tags in the table; rename it")
    return names
