"""The verbs that write masks: `label` where tags are known, `predict` where they are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.api.mask_folder import MaskFolder, check_classes
from tagmask.data.cam_files import CLASSES, SUFFIX, write_cams
from tagmask.data.dataset import PathLike
from tagmask.data.files import make_folder, write_classes
from tagmask.data.images import is_image_name, limit_pixels
from tagmask.data.label_maps import write_label_map
from tagmask.data.splits import open_data
from tagmask.engine.inference import Item, Source, check_source, stream
from tagmask.engine.model import Model, load, overridden
from tagmask.engine.progress import track
from tagmask.errors import TagmaskError
from tagmask.recipes.load import InferenceConfig


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
    check_source(source)
    model = load(run)
    recipe = overridden(model.run.recipe, overrides, only=("inference", "data"), but=("data.classes",))
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
        overrides: of the recipe's `inference` and `data.max_pixels`.

    Raises:
        TagmaskError: whatever is wrong with run, images or output.
    """
    model = load(run)
    model.check_decoder()
    recipe = overridden(model.run.recipe, overrides, only=("inference", "data.max_pixels"))
    limit_pixels(recipe.data.max_pixels)
    items = _find_images(Path(images), Path(output))
    return _write(model, items, Path(output), recipe.inference, "decoder")


def _find_images(path: Path, output: Path) -> list[Item]:
    """The images in a folder: not those in the output, masks of an earlier start, nor true masks beside `images/`."""
    if path.is_file():
        if not is_image_name(path.name):
            raise TagmaskError(f"{path}: no image by its name; expected .jpg, .png, .webp, …, or a folder of them")
        return [Item(path.stem, path)]
    if not path.is_dir():
        raise TagmaskError(f"{path}: no such image or folder")
    files = (Path(place) / name for place, _, names in os.walk(path, followlinks=True) for name in names)
    found = sorted(file for file in files if is_image_name(file.name) and file.is_file())
    aside = {output.resolve()} - {path.resolve()}
    if (path / "images").is_dir():
        aside.add((path / "masks").resolve())
    found = [file for file in found if aside.isdisjoint(file.resolve().parents)]
    if not found:
        raise TagmaskError(f"{path}: no images in it; expected .jpg, .png, .webp, … files")
    whole = [file.relative_to(path).as_posix() for file in found]
    names = [Path(name).with_suffix("").as_posix() for name in whole]
    # Two images that differ in their suffix alone keep it; and so does one that bears the name which that makes.
    while len(set(names)) < len(names):
        count = Counter(names)
        names = [full if count[name] > 1 else name for name, full in zip(names, whole, strict=True)]
    return [Item(name, file) for name, file in zip(names, found, strict=True)]


def _write(
    model: Model,
    items: Sequence[Item],
    output: Path,
    config: InferenceConfig,
    source: Source,
    cams: Path | None = None,
) -> Written:
    if cams is not None:
        _take_cams(cams, model.classes, items)
    folder = MaskFolder(output, model.classes, [item.name for item in items])
    skipped: list[str] = []
    rows: list[tuple[str, float, str]] = []
    names = ("background", *model.classes)

    def note(item: Item, error: TagmaskError) -> None:
        skipped.append(str(error))

    predictions = stream(model.method, items, config, source=source, on_error=note)
    for prediction in track(predictions, "masks", len(items)):
        path = folder.mask(prediction.item.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, prediction.labels)
        if cams is not None:
            tags = list(prediction.item.tags or ())
            write_cams(cams / f"{prediction.item.name}{SUFFIX}", prediction.scores[tags], tags)
        present = [names[index] for index in sorted(set(prediction.labels.flat)) if 0 < index < len(names)]
        rows.append((prediction.item.name, prediction.confidence, ";".join(present)))
    folder.finish(rows)
    return Written(output, len(rows), tuple(skipped))


def _take_cams(folder: Path, classes: Sequence[str], items: Sequence[Item]) -> None:
    """Make the folder of CAMs; its class list says that what is in it was written by these verbs."""
    make_folder(folder)
    check_classes(folder, classes)
    if not (folder / CLASSES).is_file():
        strange = next((path for item in items if (path := folder / f"{item.name}{SUFFIX}").exists()), None)
        if strange is not None:
            raise TagmaskError(f"{strange}: is there already, and no {CLASSES} beside it; choose another folder")
    write_classes(folder, classes)
