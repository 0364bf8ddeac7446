"""The verb `export masks`: a folder of masks in the formats of label tools and trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from tagmask.data.dataset import Dataset
from tagmask.data.readers.problems import nearest
from tagmask.data.writers.coco import write_coco
from tagmask.data.writers.cvat import write_cvat
from tagmask.data.writers.label_studio import local_files, write_label_studio
from tagmask.data.writers.labelled import Labelled, open_labelled
from tagmask.data.writers.output import check_free, fresh_folder
from tagmask.data.writers.voc import write_voc
from tagmask.data.writers.yolo import write_yolo
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

MaskFormat = Literal["coco", "coco-polygons", "yolo", "voc", "label-studio", "cvat"]
KEEPS_IGNORED = ("voc",)
COLOURED = ("voc", "cvat")  # masks are pictures of 256 colours


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: the output.
        images: how many images are in it.
        skipped: what is wrong with the masks that were left out.
        notes: what the format could not say.
    """

    folder: Path
    images: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def export_masks(
    masks: str | Path,
    images: str | Path | Dataset,
    output: str | Path,
    *,
    format: MaskFormat,
    image_url: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a folder of masks, with the photographs they belong to, in another format.

    Args:
        masks: the output of `label` or `predict`: `NAME.png`, `classes.txt`, `confidence.csv`.
        images: the folder of photographs that was labelled, or the data set, or where it lies.
        output: a folder; an earlier export in it that nobody has touched is replaced.
        format: `coco` (run-length codes), `coco-polygons`, `yolo`, `voc`, `label-studio` or `cvat`.
        image_url: for `label-studio`, what stands before the file names in the addresses of the photographs; by default
            that of local files whose document root is the folder above the photographs', as `notes` then says.
        overwrite: replace an earlier export though files in it were changed or added; they are lost then.

    Raises:
        TagmaskError: the output holds something else, there are no masks, none fits a photograph, or all are damaged.
            Nothing has been written then.
    """
    if format not in get_args(MaskFormat):
        raise TagmaskError(f"format: {format!r} is not known; {nearest(format, get_args(MaskFormat))}")
    if image_url is not None and format != "label-studio":
        raise TagmaskError(f"image_url: is for label-studio, and the format is {format}; leave it out")
    target = Path(output)
    check_free(target, overwrite=overwrite)
    labelled = open_labelled(Path(masks), images if isinstance(images, Dataset) else Path(images))
    _check_apart(target, labelled.masks, images)
    if format in COLOURED and len(labelled.classes) >= IGNORE:
        raise TagmaskError(
            f"format: {format} has colours for {IGNORE - 1} classes, and {labelled.masks / 'classes.txt'} lists more; "
            "export coco, coco-polygons, yolo or label-studio"
        )
    hints = list[str]()
    if format == "label-studio" and image_url is None:
        image_url, hint = local_files(labelled.root)
        hints = [hint]
    with fresh_folder(target, format, overwrite=overwrite) as folder:
        notes = _writer(format, labelled, image_url or "")(folder, labelled, labelled.classes) or []
        if not labelled.found:
            raise TagmaskError(f"{labelled.masks}: no mask could be exported; {labelled.skipped[0]}")
    if labelled.ignored and format not in KEEPS_IGNORED:
        notes.append(
            f"{labelled.ignored} of {labelled.found} masks hold ignored pixels (255), which {format} lacks: they are"
            " background now"
        )
    return Exported(target, labelled.found, tuple(labelled.skipped), (*notes, *hints))


def _writer(format: MaskFormat, labelled: Labelled, image_url: str) -> Callable[..., list[str] | None]:
    """Choose the function that writes a format; it returns what its format could not say, or None."""
    version = f"tagmask {labelled.masks.resolve().name}"
    writers: dict[MaskFormat, Callable[..., list[str] | None]] = {
        "coco": write_coco,
        "coco-polygons": partial(write_coco, polygons=True),
        "yolo": write_yolo,
        "voc": write_voc,
        "label-studio": partial(write_label_studio, image_url=image_url, model_version=version),
        "cvat": write_cvat,
    }
    return writers[format]


def _check_apart(output: Path, masks: Path, images: str | Path | Dataset) -> None:
    """Refuse an output that holds the masks or the photographs, or lies among the masks.

    Replacing it would delete them; and the next export would take the masks in it for more masks to export.
    """
    own = output.resolve()
    for source in (masks, *(() if isinstance(images, Dataset) else (Path(images),))):
        if own in (source.resolve(), *source.resolve().parents):
            raise TagmaskError(f"{output}: holds {source}, which is exported; choose another output")
    if masks.resolve() in own.parents:
        raise TagmaskError(f"{output}: lies among the masks; choose another output")
