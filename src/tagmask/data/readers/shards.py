"""WebDataset shards: tar files of `KEY.jpg` beside `KEY.json` or `KEY.cls`, whose images are read in place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.data.images import is_image_name
from tagmask.data.limits import parse_json
from tagmask.data.members import member_path, samples
from tagmask.data.readers.cells import TAG_COLUMNS, read_tags
from tagmask.data.readers.folders import split_of_name
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import Options, Row, Source, class_list_beside, record_name
from tagmask.errors import TagmaskError, first_line


def find_shards(folder: Path) -> list[Path]:
    """Return the tar files of a folder, sorted."""
    return sorted(file for file in folder.glob("*.tar") if file.is_file())


def read_shards(path: Path, options: Options, problems: Problems) -> Source:
    """Read the images and tags of a tar file, or of all in a folder.

    Only the headers and the tags are read now; images stay where they are. A sample's tags stand in its `.json`, in a
    key as columns are called, or in `.cls`, where numbers are looked up in `classes.txt`. The split is the key `split`,
    or the beginning of the shard's name, as in `train-0000.tar`. A record is called `SHARD/KEY` after shard and sample,
    for names are unique within a shard alone.
    """
    if options.image_folder is not None:
        raise TagmaskError(f"image_folder: the images lie inside {path}; remove the key")
    files = find_shards(path) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    classes = class_list_beside(root)
    rows: list[Row] = []
    shared: dict[str, str] = {}  # a tag that returns is one string in memory
    for file in files:
        shard, archive, split = record_name(str(file), [str(root)]), os.path.normpath(file), split_of_name(file)
        try:
            for key, parts, texts in samples(file, ("json", "cls")):
                where = f"{file} sample {key}"
                try:
                    ending = image_ending(parts)
                    cell, own = tags_of_sample(texts)
                    tags, unknown = read_tags(cell, classes)
                except TagmaskError as error:
                    problems.add("row", where, str(error))
                    continue
                image = member_path(archive, *parts[ending], f"{key.rpartition('/')[2]}.{ending}")
                tags = tuple(shared.setdefault(tag, tag) for tag in tags)
                rows.append(Row(where, f"{shard}/{key}", image, tags, unknown, own or split))
        except TagmaskError as error:
            problems.add("file", str(file), str(error).removeprefix(f"{file}: "))
    return Source(path, rows, classes, str(root / "classes.txt"), f"tags given in {path.name}")


def image_ending(files: Mapping[str, object]) -> str:
    """Return the ending of the image among the files of a sample.

    Raises:
        TagmaskError: there is none.
    """
    ending = next((ending for ending in files if "." not in ending and is_image_name(f"x.{ending}")), None)
    if ending is None:
        raise TagmaskError(f"no image among its files ({', '.join(files)})")
    return ending


def tags_of_sample(files: Mapping[str, bytes]) -> tuple[Any, str]:
    """Return what the `.json` or `.cls` of a sample gives as tags, None where nobody says; and its split, or nothing.

    Raises:
        TagmaskError: the file is damaged.
    """
    try:
        if "json" in files:
            entry = parse_json(files["json"])
            tags = next((entry[column] for column in TAG_COLUMNS if column in entry), None)
            return tags, str(entry.get("split") or "")
        return (files["cls"].decode().strip(), "") if "cls" in files else (None, "")
    except (TagmaskError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise TagmaskError(f"its tags cannot be read ({first_line(error)})") from None
