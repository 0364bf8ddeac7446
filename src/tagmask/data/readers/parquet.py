"""Parquet files of Hugging Face data sets: images named by path, or to be unpacked first."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from tagmask.data.dataset import check_class_list
from tagmask.data.files import replacing, write_classes, write_text
from tagmask.data.images import readable_formats
from tagmask.data.lock import locked
from tagmask.data.names import case_key, image_name_fault
from tagmask.data.readers.cells import read_tags, tag_column
from tagmask.data.readers.folders import split_of_name
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import FileIndex, Options, Row, Source, class_list_beside, find_image
from tagmask.errors import TagmaskError, first_line, no_such

IMAGE_COLUMNS = ("image", "img", "file_name", "path")
BATCH = 64


@dataclass(frozen=True)
class Layout:
    """The meaning of the columns of a file.

    Attributes:
        image: column of images, or of their paths.
        tags: column of tags; empty where they are not needed.
        names: class names by number; None where the file says none.
        split: column of split names; None where the file name says it.
    """

    image: str
    tags: str
    names: tuple[str, ...] | None
    split: str | None


def find_parquet(folder: Path) -> list[Path]:
    """Return the parquet files of a folder or of its `data` folder, sorted."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def read_parquet(path: Path, options: Options, problems: Problems) -> Source:
    """Read a parquet file, or all of a folder, whose images are named by path.

    Paths are relative to `image_folder`, or to the file. Class names of numbers stand in the file (`ClassLabel`) or in
    `classes.txt`; null tags mean that nobody knows. The split is a column `split`, or the beginning of the file's
    name, as in `train-00000-of-00001.parquet`.

    Raises:
        TagmaskError: pyarrow is missing, the file is damaged, or it holds the images themselves, which have to be
            unpacked first.
    """
    files = _files(path)
    root = path if path.is_dir() else path.parent
    base = os.path.normpath(options.image_folder or root)
    index = FileIndex()
    rows: list[Row] = []
    names: tuple[str, ...] | None = None
    for file in files:
        names = _layout(file, root).names or names
        for where, picture, tags, unknown, split in _rows(file, root, problems):
            if isinstance(picture, dict) and not picture.get("bytes"):
                picture = picture.get("path")
            if not isinstance(picture, str):
                raise TagmaskError(
                    f"{where}: holds the image itself, not its path; unpack it once with"
                    f" `tagmask data unpack {path} -o FOLDER`, then read FOLDER"
                )
            place = os.path.normpath(os.path.join(base, picture))
            rows.append(Row(where, *find_image(where, [place], [base], index, problems), tags, unknown, split))
    source = f"tags given in {', '.join(file.name for file in files)}"
    return Source(path, rows, names, f"the features of {files[0]}, or {root / 'classes.txt'}", source)


def unpack_parquet(path: Path, output: Path) -> int:
    """Write the images that lie inside parquet files as a folder with `images/`, `tags.jsonl` and `classes.txt`.

    Args:
        path: a parquet file, or the folder of several.
        output: a folder that is not there yet, or is empty.

    Returns:
        the number of images.

    Raises:
        TagmaskError: the output holds something or cannot be written; a row has no image, wrong tags or an unfit name;
            nothing is left behind then.
    """
    if os.path.exists(output) and (not output.is_dir() or any(output.iterdir())):
        raise TagmaskError(f"{output}: is not an empty folder; choose another output")
    files = _files(path)
    root = path if path.is_dir() else path.parent
    names = next((layout.names for file in files if (layout := _layout(file, root)).names), None)
    problems = Problems()
    lines: list[str] = []
    taken: set[str] = set()
    with locked(output, replaced=True), replacing(output) as folder:
        folder.mkdir()
        for file in files:
            for where, picture, tags, unknown, split in _rows(file, root, problems):
                data = picture.get("bytes") if isinstance(picture, dict) else picture
                if not isinstance(data, bytes):
                    raise TagmaskError(f"{where}: holds no image; read the file as it is, with its image_folder")
                own = _free_name(picture, data, len(lines), where, taken)
                target = folder / "images" / own
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                    raise TagmaskError(
                        f"{where}: {own!r} cannot be written ({error.strerror}): another row's image is a folder of it,"
                        " or lies in it; rename one of the two"
                    ) from error
                entry = {"image": own, "tags": list(tags), "unknown": list(names or () if unknown is None else unknown)}
                lines.append(json.dumps(entry | ({"split": split} if split else {}), ensure_ascii=False))
        problems.raise_if_any(path)
        write_text(folder / "tags.jsonl", "".join(f"{line}\n" for line in lines))
        if names:
            write_classes(folder, names)
    return len(lines)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise no_such(path)
    files = find_parquet(path) if path.is_dir() else [path]
    if not files:
        raise TagmaskError(f"{path}: no .parquet file in it or in its folder `data`; name the file itself")
    return files


def _opened(file: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise TagmaskError(f"{file}: parquet files need pyarrow; pip install 'tagmask[hf]'") from error
    try:
        return pq.ParquetFile(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> TagmaskError:
    return TagmaskError(f"{file}: is no whole parquet file ({first_line(error)}); download it again")


def _layout(file: Path, root: Path) -> Layout:
    return schema_layout(_opened(file).schema_arrow, str(file), class_list_beside(root))


def schema_layout(schema: Any, where: str, beside: tuple[str, ...] | None = None, *, tagged: bool = True) -> Layout:
    """Tell the meaning of a file's columns from its schema.

    Args:
        schema: of pyarrow.
        where: the file, for messages.
        beside: the class names that lie beside the file.
        tagged: whether it has to have tags.

    Raises:
        TagmaskError: it has no column of images, or of tags, or its class names are unfit.
    """
    features = _features(schema.metadata)
    image = next((name for name, kind in features.items() if _kind(kind) == "Image"), None)
    image = image or next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None:
        columns = ", ".join(schema.names)
        raise TagmaskError(f"{where}: has no column of images; expected one called image, found {columns}")
    try:
        tags = tag_column(schema.names) if tagged else ""
    except TagmaskError as error:
        raise TagmaskError(f"{where}: {error}") from None
    if names := _names(features.get(tags)):
        check_class_list(names, f"{where}, class names of {tags}", most=None)
    return Layout(image, tags, names or beside, "split" if "split" in schema.names else None)


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Return the features that Hugging Face Datasets writes beside the columns; none where missing or damaged."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _names(feature: Any, depth: int = 5) -> tuple[str, ...] | None:
    """Return the class names of a feature, of a list of it, or of the categories of objects, so many levels down."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict) or not depth:
        return None
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return tuple(map(str, feature["names"]))
    inner = [feature.get("feature"), *(feature.get(key) for key in ("categories", "category", "labels", "label"))]
    return next((names for part in inner if (names := _names(part, depth - 1))), None)


def _rows(
    file: Path, root: Path, problems: Problems
) -> Iterator[tuple[str, Any, tuple[str, ...], tuple[str, ...] | None, str]]:
    """Yield place, image cell, tags, unknown tags and split of each row."""
    layout = _layout(file, root)
    columns = [layout.image, layout.tags, *([layout.split] if layout.split else [])]
    for number, entry in enumerate(_entries(file, columns), start=1):
        where = f"{file} row {number}"
        try:
            tags, unknown = read_tags(entry[layout.tags], layout.names)
        except TagmaskError as error:
            problems.add("row", where, str(error))
            continue
        if entry[layout.image] is None:
            problems.add("row", where, "has no image; remove the row")
            continue
        split = str(entry[layout.split] or "") if layout.split else split_of_name(file)
        yield where, entry[layout.image], tags, unknown, split


def _entries(file: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        for batch in _opened(file).iter_batches(batch_size=BATCH, columns=columns):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


def _free_name(picture: Any, data: bytes, number: int, where: str, taken: set[str]) -> str:
    """Return a file name inside `images`: the one the row gives, or its number; with the suffix of the image's format.

    Args:
        picture: the cell of the image.
        data: its bytes.
        number: how many images came before.
        where: file and row, for messages.
        taken: the names that are taken, as a file system that ignores case has them.
    """
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            suffix = ".jpg" if image.format in ("JPEG", "MPO") else f".{str(image.format).lower()}"
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise TagmaskError(f"{where}: the image does not open ({error}); remove the row") from error
    own = picture.get("path") if isinstance(picture, dict) else None
    parts = PurePosixPath(str(own or "").replace("\\", "/")).parts
    # Roots, drives and `..` would lead out of the folder.
    parts = [part for part in parts if part.strip("./") and ":" not in part]
    name = os.path.splitext("/".join(parts))[0] or f"{number:06d}"
    if fault := image_name_fault(name):
        raise TagmaskError(f"{where}: image name {name!r} {fault}")
    while case_key(name) in taken:
        name += f"-{number:06d}"
    taken.add(case_key(name))
    return name + suffix
