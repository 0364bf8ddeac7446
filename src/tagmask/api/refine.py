"""The verb `refine`: a folder of CAMs becomes a folder of masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask.api.mask_folder import check_classes
from tagmask.api.write_masks import Written
from tagmask.data.cam_files import CLASSES, SUFFIX, read_cams
from tagmask.data.dataset import Dataset, Record, listed_classes, numbered
from tagmask.data.files import write_classes
from tagmask.data.lock import locked
from tagmask.data.splits import NO_CLASSES, last_ids, open_data
from tagmask.engine.band import with_band
from tagmask.engine.device import default_device
from tagmask.engine.model import load_affinity, load_classifier
from tagmask.engine.refine_folder import refine_folder
from tagmask.engine.run import open_run
from tagmask.errors import TagmaskError, no_such
from tagmask.methods.affinitynet import Affinity
from tagmask.recipes.load import Recipe, load_recipe


def refine_cams(
    cams: Path,
    data: Path,
    output: Path,
    *,
    how: str = "crf",
    split: Sequence[str] | None = None,
    run: Path | None = None,
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    overwrite: bool = False,
) -> Written:
    """Write a mask of every image that has CAMs. Masks that are in `output` already stay as they are.

    Args:
        cams: folder of `NAME.npz`, and of `classes.txt`, which the ids are of where no run is named.
        data: tagged images, in any format that `train` reads.
        output: folder for `NAME.png`.
        how: `refine.name` of a recipe.
        split: only these splits.
        run: for `affinity`, a run whose recipe trained an AffinityNet; for `refine.band: auto`, the CAMs' own.
        recipe: whose `data` and `refine` sections count; by default the run's, else the defaults.
        overrides: of the recipe, as `refine.alpha=8`.
        overwrite: make the masks that are there anew, too, whoever wrote them.

    Raises:
        TagmaskError: no CAMs, or whatever is wrong with data, run or recipe.
    """
    if not cams.exists():
        raise no_such(cams, "folder of CAMs", f"write them with `tagmask label RUN --source cam --save-cams {cams}`")
    if next(cams.rglob(f"*{SUFFIX}"), None) is None:
        raise TagmaskError(
            f"{cams}: no CAMs in it; write them with `tagmask label RUN --source cam --save-cams {cams}`"
        )
    opened = open_run(run) if run is not None else None
    start = opened.recipe.model_dump(mode="json") if opened is not None else {"method": "cam"}
    if opened is not None and (opened.recipe.refine is None or opened.recipe.refine.name != how):
        # Powers and bands are those of one refinement and mean nothing to another.
        start.pop("refine")
    chosen = load_recipe(recipe or start, [f"refine.name={how}", *overrides])
    assert chosen.refine is not None
    classes = opened.classes if opened is not None else _classes_beside(cams, chosen.data.classes)
    try:
        dataset = open_data(data, chosen.data, classes).split(split)
    except TagmaskError as error:
        if opened is not None or NO_CLASSES not in str(error):
            raise
        raise TagmaskError(
            f"{error} (the classes are those of {cams / CLASSES}; if a run wrote these CAMs, name it by --run, which "
            "knows its context classes)"
        ) from None
    affinity = None
    if how == "affinity" and opened is not None:
        affinity = load_affinity(opened.recipe, len(opened.classes), opened.folder)
        affinity = affinity.to(default_device())
    found = [record for record in dataset.records if (cams / f"{record.name}{SUFFIX}").exists()]
    if not found:
        raise TagmaskError(f"{cams}: no CAMs of the images of {data}; are names and split the same?")
    _check_ids(cams, found, len(dataset.classes))
    refine = chosen.refine
    if refine.band == "auto" and opened is not None:
        classifier = load_classifier(opened.recipe, len(opened.classes), opened.folder).to(default_device())
        known, last = len(dataset.classes), last_ids(dataset, chosen.data)
        refine = with_band(refine, cams, found, classifier, opened.recipe.inference, num_classes=known, last=last)
        chosen = chosen.model_copy(update={"refine": refine})
    with locked(output):
        return _write(cams, found, output, dataset, chosen, affinity, overwrite)


def _write(
    cams: Path,
    found: Sequence[Record],
    output: Path,
    dataset: Dataset,
    chosen: Recipe,
    affinity: Affinity | None,
    overwrite: bool,
) -> Written:
    assert chosen.refine is not None
    check_classes(output, dataset.classes)
    present = [path for record in found if (path := output / f"{record.name}.png").exists()]
    if overwrite:
        for path in present:
            path.unlink()
        present = []
    # The class list is written first, so that a second start after a killed one knows its own masks.
    if present and not (output / CLASSES).is_file():
        raise TagmaskError(
            f"{present[0]}: is there already, not written by `refine`; choose another output, or add --overwrite"
        )
    write_classes(output, dataset.classes)
    skipped = refine_folder(
        cams,
        found,
        output,
        chosen.refine,
        background=chosen.data.background,
        affinity=affinity,
        num_classes=len(dataset.classes) if chosen.data.context else None,
        last=last_ids(dataset, chosen.data),
    )
    return Written(output, len(found) - len(skipped), tuple(skipped), len(present))


def _classes_beside(cams: Path, wanted: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class list that the CAMs' ids are of, where the folder says it."""
    listed = cams / CLASSES
    if not listed.is_file():
        return None
    classes = listed_classes(listed)
    if wanted and numbered(wanted) != classes:
        raise TagmaskError(
            f"data.classes: the CAMs' ids are those of {listed} ({', '.join(classes)}); leave data.classes out"
        )
    return classes


def _check_ids(cams: Path, records: Sequence[Record], num_classes: int) -> None:
    """Refuse CAMs of labels that their image does not bear: then the ids are those of another class list."""
    for record in records:
        path = cams / f"{record.name}{SUFFIX}"
        try:
            ids = read_cams(path)[1]
        except TagmaskError:
            continue  # is left out, and named, when its turn comes
        borne = {*(tag + 1 for tag in record.tags), *(num_classes + 1 + index for index in record.context)}
        strange = sorted({int(label) for label in ids} - borne)
        if strange:
            raise TagmaskError(
                f"{path}: a CAM of label {strange[0]}, which image {record.name!r} does not bear by {len(borne)} tags; "
                "were classes, their order or tags others? Where a run wrote the CAMs, name it with --run"
            )
