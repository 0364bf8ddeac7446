"""Readers of tagged images: one format a file, and `read_dataset` for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Unpack, get_args

from tagmask.data.dataset import Dataset
from tagmask.data.readers.assemble import Collected, assemble
from tagmask.data.readers.class_vectors import read_class_vectors
from tagmask.data.readers.coco import read_coco
from tagmask.data.readers.coloured import read_voc_tree
from tagmask.data.readers.cvat import read_cvat
from tagmask.data.readers.detect import detect, find_table, given
from tagmask.data.readers.folders import read_folders
from tagmask.data.readers.image_folder import read_image_folder
from tagmask.data.readers.label_studio import read_label_studio
from tagmask.data.readers.labelme import read_labelme
from tagmask.data.readers.parquet import read_parquet
from tagmask.data.readers.problems import Problems, nearest
from tagmask.data.readers.shards import read_shards
from tagmask.data.readers.source import Format, Options, OtherTags, ReadOptions, Source, TagSource, Untagged
from tagmask.data.readers.table import read_table
from tagmask.data.readers.yolo import read_yolo
from tagmask.errors import TagmaskError, no_such
from tagmask.recipes.data_section import Found

__all__ = ["ReadOptions", "detect", "find_table", "read_dataset"]

READERS: dict[Found, Callable[[Path, Options, Problems], Source]] = {
    "table": read_table,
    "folders": read_folders,
    "coco": read_coco,
    "voc": read_voc_tree,
    "yolo": read_yolo,
    "label_studio": read_label_studio,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "imagefolder": read_image_folder,
    "parquet": read_parquet,
    "tar": read_shards,
    "cls_labels": read_class_vectors,
}

MARKS = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}
"""Names for separators that are hard to write in a shell."""


def read_dataset(path: str | Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read tagged images of any of the known formats.

    Args:
        path: a table (CSV, JSON lines) or the folder it lies in, a folder of class folders, a COCO instances file or
            the folder of several, a VOC tree, a YOLO description or folder, a JSON export of Label Studio, a CVAT
            annotations.xml, JSON files of LabelMe, a Hugging Face imagefolder or parquet file, WebDataset shards
            (.tar) or the folder of several, or a cls_labels.npy.
        **options: all optional.
            `format`: one of these as "table", "folders", "coco", "voc", "yolo", "label_studio", "cvat", "labelme",
            "imagefolder", "parquet", "tar", "cls_labels"; "auto" looks.
            `classes`: the chosen names in id order; the other tags are dropped. None takes
            the own list (`classes.txt` beside a table or in a folder, categories, the 20 of VOC), else the tags seen.
            `context`: names of context classes, such as water or road, that are tagged too; they are background in
            the masks.
            `background`: False where every pixel has one of the classes.
            `masks`: folder of masks `NAME.png`; None takes `masks/` beside a table, SegmentationClassAug or
            SegmentationClass of a VOC tree, the outlines of a COCO file.
            `mask_classes`: names in the order of the mask ids 1, 2, ...; None takes the data's own list. Ids of
            classes that are not chosen become 0 with background and 255 (ignored) without.
            `untagged`: what becomes of an image that bears none of the classes: "skip" leaves it out and says so in
            `Dataset.skipped`, "negative" keeps it as known to bear none, "error" refuses it.
            `image_folder`: where the images are, of every format but folders and YOLO.
            `tag_source`: "masks" reads the tags of a VOC tree off its masks, in place of its XML files.
            `tag_list`: a list of VOC images with the numbers of their classes from 0, which stands over both.
            `separator`: what stands between the columns of a CSV: one character, or "tab", "semicolon", "bar".
            `tag_separator`: what stands between the tags of a table's cell; also "space", "comma".
            `encoding`: of a table, as "latin-1".
            `other_tags`: what becomes of tags that are not in `classes`, where the data have no list of their own:
            "drop" leaves them out (`Dataset.dropped` counts them), "doubt" too, but refuses a class that no image bears
            where such a tag is spelt nearly like it, "refuse" takes each for a mistake.

    Returns:
        The data set, in the order of the source.

    Raises:
        TagmaskError: the source is none of these, or any of its rows is wrong; the first ten are named.
    """
    problems = Problems()
    try:
        collected = collect(Path(path), problems, **options)
    except TagmaskError as error:
        if problems.found:
            problems.add("file", str(path), str(error).removeprefix(f"{path}: "))
            problems.raise_if_any(Path(path), options)
        raise
    problems.raise_if_any(Path(path), options)
    if not collected.dataset.records:
        left_out = f"; all {len(collected.untagged)} were left out as untagged" if collected.untagged else ""
        raise TagmaskError(f"{path}: no image to learn from{left_out}")
    return collected.dataset


def collect(
    path: Path,
    problems: Problems,
    *,
    format: Format = "auto",
    classes: Iterable[str] | None = None,
    context: Iterable[str] = (),
    background: bool = True,
    masks: str | Path | None = None,
    mask_classes: Iterable[str] | None = None,
    untagged: Untagged = "skip",
    image_folder: str | Path | None = None,
    tag_source: TagSource = "annotations",
    tag_list: str | Path | None = None,
    separator: str = ",",
    tag_separator: str = ";",
    encoding: str = "utf-8",
    other_tags: OtherTags = "doubt",
) -> Collected:
    """Read as `read_dataset` does, but note wrong rows in `problems` and go on.

    Raises:
        TagmaskError: the source as a whole cannot be read.
    """
    for key, value, valid in (
        ("format", format, get_args(Format)),
        ("untagged", untagged, get_args(Untagged)),
        ("tag_source", tag_source, get_args(TagSource)),
        ("other_tags", other_tags, get_args(OtherTags)),
    ):
        if value not in valid:
            raise TagmaskError(f"{key}: {value!r} is not known; {nearest(str(value), valid)}")
    options = Options(
        classes=None if classes is None else tuple(classes),
        context=tuple(context),
        background=background,
        masks=None if masks is None else Path(masks),
        mask_classes=None if mask_classes is None else tuple(mask_classes),
        untagged=untagged,
        image_folder=None if image_folder is None else Path(image_folder),
        tag_source=tag_source,
        tag_list=None if tag_list is None else Path(tag_list),
        separator=MARKS.get(separator, separator),
        tag_separator=MARKS.get(tag_separator, tag_separator),
        encoding=encoding,
        other_tags=other_tags,
    )
    _check_table_options(options)
    if options.image_folder is not None and not options.image_folder.is_dir():
        raise no_such(options.image_folder, "folder of images", "correct data.image_folder")
    found, place = detect(path) if format == "auto" else (format, given(path, format))
    if tag_source == "masks" and found != "voc":
        raise TagmaskError(f"tag_source: masks is for VOC trees, and {path} is read as {found}; remove the key")
    if tag_list is not None and found != "voc":
        raise TagmaskError(f"tag_list: is for VOC trees, and {path} is read as {found}; remove the key")
    for key, value, default in (
        ("separator", separator, ","),
        ("tag_separator", tag_separator, ";"),
        ("encoding", encoding, "utf-8"),
    ):
        if value != default and found != "table":
            raise TagmaskError(f"{key}: is for tables, and {path} is read as {found}; remove the key")
    return assemble(READERS[found](place, options, problems), options, problems)


def _check_table_options(options: Options) -> None:
    """Refuse what separates nothing, a misspelt name of a mark, and encodings that nobody knows."""
    words = ", ".join(MARKS)
    if len(options.separator) != 1 or options.separator in '"\r\n':
        raise TagmaskError(
            f"separator: {options.separator!r} is no single character; write one, such as ';', or a word: {words}"
        )
    if not options.tag_separator:
        raise TagmaskError(f"tag_separator: is empty; write what stands between tags, also as a word: {words}")
    if near := get_close_matches(options.tag_separator.lower(), MARKS, 1, cutoff=0.8):
        raise TagmaskError(f"tag_separator: {options.tag_separator!r} is none of {words}; did you mean {near[0]!r}?")
    try:
        "".encode(options.encoding)
    except (LookupError, ValueError):
        raise TagmaskError(
            f"encoding: {options.encoding!r} is not known; write utf-8, latin-1, cp1252 or another that Python knows"
        ) from None
