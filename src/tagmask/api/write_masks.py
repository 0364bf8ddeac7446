"""Write the masks of many images to a folder: what the verbs `label` and `predict` share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tagmask.api.mask_folder import CamFolder, MaskFolder
from tagmask.data.confidence import MaskRow
from tagmask.data.images import is_image_name
from tagmask.data.label_maps import classes_in
from tagmask.data.lock import locked
from tagmask.engine.inference import Item, Source, stream
from tagmask.engine.model import Model
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError
from tagmask.recipes.load import InferenceConfig


@dataclass(frozen=True)
class Written:
    """What `label`, `predict` or `refine` wrote.

    Attributes:
        folder: of the masks.
        images: how many masks it now holds from this call.
        skipped: for each image that was left out, what is wrong with it.
        kept: how many of the masks `refine` found there already and left as they were.
        lacking: names of the masks without a single pixel of one of their image's tags.
        plain: whether `label` or `predict` found not a pixel of any class in any image.
    """

    folder: Path
    images: int
    skipped: tuple[str, ...]
    kept: int = 0
    lacking: tuple[str, ...] = ()
    plain: bool = False


def write_masks(
    model: Model,
    items: Sequence[Item],
    output: Path,
    config: InferenceConfig,
    source: Source,
    cams: Path | None = None,
    *,
    overwrite: bool = False,
) -> Written:
    """Write a mask of every image, and the CAMs of its tags where a folder for them is named.

    Raises:
        TagmaskError: one of the folders holds what would be lost, or is called as an image is.
    """
    for folder in (output, cams):
        if folder is not None and is_image_name(folder.name) and not folder.exists():
            name = f"{items[0].name}.png" if items else "NAME.png"
            raise TagmaskError(
                f"{folder}: is called as an image, and the output is a folder; -o {folder.with_suffix('')} writes "
                f"{folder.with_suffix('') / name}"
            )
    with locked(output), nullcontext() if cams is None else locked(cams):
        return _write(model, items, output, config, source, cams, overwrite)


def _write(
    model: Model,
    items: Sequence[Item],
    output: Path,
    config: InferenceConfig,
    source: Source,
    cams: Path | None,
    overwrite: bool,
) -> Written:
    names = [item.name for item in items]
    cam_folder = None if cams is None else CamFolder(cams, model.classes, names, overwrite=overwrite)
    folder = MaskFolder(output, model.classes, names, overwrite=overwrite)
    skipped: list[str] = []
    lacking: list[str] = []
    rows: list[MaskRow] = []
    predictions = stream(
        model.method, items, config, source=source, on_error=lambda _, error: skipped.append(str(error))
    )
    for prediction in track(predictions, "masks", len(items)):
        name, tags = prediction.item.name, prediction.item.tags or ()
        folder.write(name, prediction.labels, prediction.item.path)
        if cam_folder is not None:
            cam_folder.write(name, prediction.scores[list(tags)], tags)
        found = [label - 1 for label in classes_in(prediction.labels, len(model.classes))]
        if not set(tags) <= set(found):
            lacking.append(name)
        rows.append(MaskRow(name, prediction.confidence, tuple(model.classes[index] for index in found)))
    if cam_folder is not None:
        cam_folder.finish()
    folder.finish(rows)
    plain = bool(rows) and not any(row.classes for row in rows)
    return Written(output, len(rows), tuple(skipped), lacking=tuple(lacking), plain=plain)
