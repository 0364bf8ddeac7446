"""The field's `cls_labels.npy` and `cls_labels_onehot.npy`: a vector of 0 and 1 for each image name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tagmask.data.dataset import check_class_list
from tagmask.data.images import is_image_name
from tagmask.data.npy_dict import read_npy_dict
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, class_list_beside, missing_image
from tagmask.data.readers.voc import ANNOTATIONS, CLASSES, IMAGES, list_ids, own_split
from tagmask.errors import TagmaskError

FOLDERS = (IMAGES, "images", ".")


def find_class_vectors(folder: Path) -> Path | None:
    """Return the `cls_labels*.npy` of a folder; None where it has none, or is a VOC tree with annotations of its own.

    Raises:
        TagmaskError: there are several.
    """
    if (folder / ANNOTATIONS).is_dir():
        return None
    files = sorted(folder.glob("cls_labels*.npy"))
    if len(files) > 1:
        raise TagmaskError(f"{folder}: holds several ({', '.join(file.name for file in files)}); name one of them")
    return files[0] if files else None


def read_class_vectors(path: Path, options: Options, problems: Problems) -> Source:
    """Read a dictionary of image names and class vectors, without running the pickle it is stored as.

    Class names are those of `classes.txt` beside the file, else the chosen `classes` where there is one for each
    position, else the 20 of VOC where vectors have 20. Images are in `image_folder`, or in `JPEGImages` or `images`
    beside the file, or beside it. Lists of names beside the file (`train.txt`, `val.txt`, ...) are splits, which may
    overlap; without them every name is read.

    Names may be numbers, as IRNet stores them: 2007000032 is 2007_000032, and 9 is the image whose name ends in
    000000000009.
    """
    file = find_class_vectors(path) if path.is_dir() else path
    if file is None:
        raise TagmaskError(f"{path}: no cls_labels*.npy in it, or a VOC tree; name the file itself")
    vectors = read_npy_dict(file)
    names, place = _class_names(file, vectors, options)
    index = FileIndex()
    folder, images = _images(file.parent, options.image_folder, index)
    groups = _groups(file.parent)
    wanted = frozenset[str]().union(*groups.values()) if groups else None
    rows: list[Row] = []
    for key, vector in vectors.items():
        name = _name(key, images)
        if wanted is not None and name not in wanted:
            continue
        where = f"{file}, {key}"
        if name not in images:
            problems.add("missing image", where, missing_image(str(folder / f"{name}.jpg"), index))
        if vector.shape != (len(names),) or not np.isin(vector, (0, 1)).all():
            wrong = f"is {_shown(vector)}; expected {len(names)} values of 0 or 1, one for each class of {place}"
            problems.add("row", where, wrong)
            continue
        tags = tuple(names[position] for position in np.flatnonzero(vector))
        image = folder / images[name] if name in images else None
        rows.append(Row(where, name, image, tags, split=own_split(name, groups)))
    _note_unlabelled(file, groups, rows, problems)
    skipped = () if wanted is None else _outside(file, len(vectors) - len(rows))
    source = f"class vectors of {file.name}"
    return Source(path, rows, names, place, source, groups=groups, skipped=skipped)


def _class_names(file: Path, vectors: dict[str | int, np.ndarray], options: Options) -> tuple[tuple[str, ...], str]:
    if not vectors:
        raise TagmaskError(f"{file}: names no image")
    length = next(iter(vectors.values())).size
    listed = class_list_beside(file.parent)
    if listed is not None:
        names, place = listed, str(file.parent / "classes.txt")
    elif options.classes is not None and len(options.classes) == length:
        names, place = check_class_list(options.classes, "classes"), "the chosen classes"
    elif length == len(CLASSES):
        names, place = CLASSES, "the 20 classes of PASCAL VOC"
    else:
        raise TagmaskError(
            f"{file}: has vectors of {length} values and no class names; write {file.parent / 'classes.txt'}, one name"
            " a line in the order of the values"
        )
    if len(names) != length:
        raise TagmaskError(f"{file}: has vectors of {length} values, and {place} has {len(names)} names; correct it")
    return names, place


def _images(beside: Path, given: Path | None, index: FileIndex) -> tuple[Path, dict[str, str]]:
    """Return the folder of images, and its files by name without suffix."""
    for folder in [given] if given else [beside / name for name in FOLDERS]:
        if found := index.images(str(folder)):
            return folder, found
    looked = str(given) if given else f"{beside}, nor in its {FOLDERS[0]} or {FOLDERS[1]}"
    raise TagmaskError(f"no image in {looked}; name the folder of images (image_folder)")


def _name(key: str | int, images: dict[str, str]) -> str:
    if isinstance(key, str):
        return os.path.splitext(key)[0] if is_image_name(key) else key
    digits = str(key)
    forms = [f"{digits[:4]}_{digits[4:]}", f"{key:012d}", f"COCO_train2014_{key:012d}", f"COCO_val2014_{key:012d}"]
    return next((form for form in forms if form in images), forms[0] if len(digits) == 10 else forms[1])


def _groups(folder: Path) -> dict[str, frozenset[str]]:
    lists = [file for file in sorted(folder.glob("*.txt")) if file.stem.lower() != "classes"]
    lists = [file for file in lists if file.stem.split("_")[0].lower() in ("train", "val", "test", "trainaug")]
    return {file.stem: frozenset(list_ids(file)) for file in lists}


def _note_unlabelled(file: Path, groups: dict[str, frozenset[str]], rows: list[Row], problems: Problems) -> None:
    labelled = {row.name for row in rows}
    for split, members in groups.items():
        if missing := sorted(members - labelled):
            message = f"names {missing[0]!r} ({len(missing)} such), which has no vector in {file.name}; remove it"
            problems.add("row", str(file.parent / f"{split}.txt"), message)


def _outside(file: Path, count: int) -> tuple[str, ...]:
    return (f"{file}: {count} names are in no list beside it",) if count else ()


def _shown(vector: np.ndarray) -> str:
    return f"of shape {vector.shape}" if vector.ndim != 1 or vector.size > 30 else str(vector.tolist())
