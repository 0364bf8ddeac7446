"""The verb `label`: masks of images whose tags are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask.api.write_masks import Written, write_masks
from tagmask.data.dataset import PathLike
from tagmask.data.splits import open_data
from tagmask.engine.inference import Item, Source, check_source
from tagmask.engine.model import load, overridden
from tagmask.errors import TagmaskError


def label(
    run: PathLike,
    data: PathLike | None = None,
    *,
    output: PathLike,
    split: Sequence[str] | None = None,
    source: Source = "decoder",
    save_cams: PathLike | None = None,
    overrides: Iterable[str] = (),
    overwrite: bool = False,
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
        overwrite: replace masks of these images, though tagmask did not write them or they were changed.

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
    cams = None if save_cams is None else Path(save_cams)
    return write_masks(model, items, Path(output), recipe.inference, source, cams, overwrite=overwrite)
