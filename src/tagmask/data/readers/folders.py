"""A folder a class, with or without folders for the splits above."""

from __future__ import annotations

import os
from pathlib import Path

from tagmask.data.images import is_image_name
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import Options, Row, Source, class_list_beside, record_name
from tagmask.errors import TagmaskError

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def read_folders(path: Path, options: Options, problems: Problems) -> Source:
    """Read `CLASS/**/IMAGE` or `SPLIT/CLASS/**/IMAGE`.

    The folders are split folders where one of them has a split's name (train, val, test, ...) and no image of its own.
    Images outside of any class folder bear no tag. Links to folders are followed for splits and classes, not below.
    """
    if options.image_folder is not None:
        raise TagmaskError(f"image_folder: {path} holds a folder a class, where the images are; remove the key")
    skipped: list[str] = []
    rows: list[Row] = []
    classes: dict[str, None] = {}
    for split, folder in _split_folders(path, skipped, rows):
        for name in _subfolders(folder):
            images = _images(folder / name, skipped)
            if not images:
                skipped.append(f"{folder / name}: no image in it, so it is no class")
                continue
            classes[name] = None
            rows += [_row(image, path, (name,), split) for image in images]
        rows += [_row(image, path, (), split) for image in _loose_images(folder)]
    if len(classes) == 1 and "images" in classes:
        raise TagmaskError(
            f"{path}: the folder 'images' would be the only class; name {path / 'images'} if the folders in it are the "
            "classes, or write tags.csv"
        )
    if classes and all(name.lower() in SPLIT_NAMES for name in classes):
        raise TagmaskError(
            f"{path}: the folders {', '.join(classes)} are named after splits, not after classes; expected "
            "train/CLASS/IMAGE, or name the file that holds the tags"
        )
    if not classes:
        raise TagmaskError(f"{path}: no folder in it holds images; expected CLASS/IMAGE or train/CLASS/IMAGE")
    listed = class_list_beside(path)
    return Source(
        path=path,
        rows=rows,
        classes=listed or tuple(sorted(classes)),
        classes_from=str(path / "classes.txt") if listed else f"the folders of {path}",
        tag_source="names of the folders the images lie in",
        skipped=tuple(skipped),
    )


def _split_folders(path: Path, skipped: list[str], rows: list[Row]) -> list[tuple[str, Path]]:
    """(split, folder of class folders); the split is empty where the class folders lie in `path` itself."""
    names = _subfolders(path)
    splits = [name for name in names if name.lower() in SPLIT_NAMES and _subfolders(path / name)]
    if not splits:
        return [("", path)]
    others = [name for name in names if name not in splits and _images(path / name, [])]
    if others:
        raise TagmaskError(
            f"{path}: holds split folders ({', '.join(splits)}) and the folder {others[0]!r} beside them; move it into"
            " the split it belongs to"
        )
    skipped += [f"{path / name}: lies beside the split folders" for name in names if name not in splits]
    rows += [_row(image, path, (), "") for image in _loose_images(path)]
    return [(name, path / name) for name in splits]


def _row(image: str, root: Path, tags: tuple[str, ...], split: str) -> Row:
    return Row(where=image, name=record_name(image, [str(root)]), image=Path(image), tags=tags, split=split)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _loose_images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if is_image_name(entry.name) and entry.is_file())


def _images(folder: Path, skipped: list[str]) -> list[str]:
    """Every image under a folder, sorted; other files are noted."""
    images: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if is_image_name(name):
                images.append(os.path.join(place, name))
            elif not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini"):
                skipped.append(f"{os.path.join(place, name)}: no image")
    return sorted(images)
