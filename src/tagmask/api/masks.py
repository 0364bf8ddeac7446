"""The verbs that write masks: `label` where tags are known, `predict` where they are not."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.api.datasets import open_data
from tagmask.api.model import Model, PathLike, load, overridden
from tagmask.cam.files import SUFFIX, write_cams
from tagmask.data.images import is_image_name
from tagmask.errors import TagmaskError
from tagmask.export.png import write_label_map
from tagmask.inference import Item, Source, stream
from tagmask.progress import track
from tagmask.recipe import InferenceConfig
from tagmask.run import make_folder, write_classes, write_text

CONFIDENCE = "confidence.csv"


@dataclass(frozen=True)
class Written:
    """What `label` and `predict` wrote.

    Attributes:
        folder: of the masks.
        images: how many masks it now holds from this call.
        skipped: what is wrong with the images that were left out.
        kept: how many of the masks `refine` found there already and left as they were.
    """

    folder: Path
    images: int
    skipped: tuple[str, ...]
    kept: int = 0


def label(
    run: PathLike,
    data: PathLike | None = None,
    *,
    output: PathLike,
    split: Sequence[str] | None = None,
    source: Source = "decoder",
    save_cams: PathLike | None = None,
    overrides: Iterable[str] = (),
) -> Written:
    """Write masks of tagged images: only an image's own tags and background can win.

    Args:
        run: a run folder.
        data: tagged images, in any format that `train` reads; by default the run's own.
        output: folder for `NAME.png` and `confidence.csv`.
        split: only these splits.
        source: `decoder`, or `cam` for the class activation maps themselves.
        save_cams: folder for the CAMs of each image's tags, `NAME.npz` with `cams` (n, h, w) float16 and label `ids`,
            and `classes.txt`.
        overrides: of the recipe's `inference` and `data`, as `inference.refine=crf`.

    Raises:
        TagmaskError: whatever is wrong with run, data or output.
    """
    model = load(run)
    recipe = overridden(model.run.recipe, overrides)
    dataset = open_data(data, recipe.data, model.classes).split(split)
    items = [Item(record.name, record.image, record.tags, record.context) for record in dataset.records]
    if source == "decoder":
        model.check_decoder()
    if save_cams is not None and source != "cam":
        raise TagmaskError("save_cams: only CAMs can be saved; add --source cam")
    return _write(model, items, Path(output), recipe.inference, source, None if save_cams is None else Path(save_cams))


def predict(
    run: PathLike,
    images: PathLike,
    *,
    output: PathLike,
    overrides: Iterable[str] = (),
) -> Written:
    """Write masks of images without tags.

    Args:
        run: a run folder.
        images: an image, or a folder of images (searched through).
        output: folder for `NAME.png` and `confidence.csv`.
        overrides: of the recipe's `inference`.

    Raises:
        TagmaskError: whatever is wrong with run, images or output.
    """
    model = load(run)
    model.check_decoder()
    recipe = overridden(model.run.recipe, overrides)
    items = _find_images(Path(images), Path(output))
    return _write(model, items, Path(output), recipe.inference, "decoder")


def _find_images(path: Path, output: Path) -> list[Item]:
    """The images in a folder, but for those in the output, which are masks of an earlier start."""
    if path.is_file():
        return [Item(path.stem, path)]
    if not path.is_dir():
        raise TagmaskError(f"{path}: no such image or folder")
    found = sorted(file for file in path.rglob("*") if file.is_file() and is_image_name(file.name))
    if output.resolve() != path.resolve():
        found = [file for file in found if output.resolve() not in file.resolve().parents]
    if not found:
        raise TagmaskError(f"{path}: no images in it; expected .jpg, .png, .webp, … files")
    names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [
        Item(file.relative_to(path).as_posix() if name in twice else name, file)
        for name, file in zip(names, found, strict=True)
    ]


def _table(rows: Iterable[tuple[str, float, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "confidence", "classes"])
    writer.writerows(
        (name, f"{value:.4f}" if math.isfinite(value) else "", found) for name, value, found in sorted(rows)
    )
    return text.getvalue()


def _take(output: Path, items: Sequence[Item]) -> None:
    """Make the output folder; masks are written over only where these verbs wrote before.

    Raises:
        TagmaskError: it holds files of others' that would be lost.
    """
    make_folder(output)
    if (output / CONFIDENCE).exists():
        return
    wanted = ("classes.txt", *(f"{item.name}.png" for item in items))
    if strange := next((name for name in wanted if (output / name).exists()), None):
        raise TagmaskError(
            f"{output / strange}: is there already, not written by `label` or `predict`, which would replace it; "
            "choose another output"
        )
    write_text(output / CONFIDENCE, _table(()))  # so that a second start after a killed one knows its own masks


def _write(
    model: Model,
    items: Sequence[Item],
    output: Path,
    config: InferenceConfig,
    source: Source,
    cams: Path | None = None,
) -> Written:
    _take(output, items)
    if cams is not None:
        make_folder(cams)
    skipped: list[str] = []
    rows: list[tuple[str, float, str]] = []
    names = ("background", *model.classes)

    def note(item: Item, error: TagmaskError) -> None:
        skipped.append(str(error))

    predictions = stream(model.method, items, config, source=source, on_error=note)
    for prediction in track(predictions, "masks", len(items)):
        path = output / f"{prediction.item.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, prediction.labels)
        if cams is not None:
            tags = list(prediction.item.tags or ())
            write_cams(cams / f"{prediction.item.name}{SUFFIX}", prediction.scores[tags], tags)
        present = [names[index] for index in sorted(set(prediction.labels.flat)) if 0 < index < len(names)]
        rows.append((prediction.item.name, prediction.confidence, ";".join(present)))
    write_text(output / CONFIDENCE, _table(rows))
    for folder in (output, *(() if cams is None else (cams,))):
        write_classes(folder, model.classes)
    return Written(output, len(rows), tuple(skipped))
