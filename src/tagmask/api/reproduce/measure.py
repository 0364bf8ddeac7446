"""The steps of a plan, run one after the other, and its rows, measured and kept."""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.api.checkpoints import import_checkpoint
from tagmask.api.evaluate import evaluate
from tagmask.api.predict import listed_images
from tagmask.api.reproduce.glas import join_patches, write_patches
from tagmask.api.reproduce.plan import MASK_STAGE, PATCH_RUN, PATCHES, SERVER_FOLDER, WHOLE, Plan
from tagmask.api.reproduce.rows import TEST, Row
from tagmask.api.train import train
from tagmask.data.files import replacing, write_text
from tagmask.data.label_maps import write_label_map
from tagmask.data.readers.voc import CLASSES, LISTS
from tagmask.engine.inference import stream
from tagmask.engine.model import load
from tagmask.engine.progress import track
from tagmask.engine.run import open_run
from tagmask.engine.stage import DONE
from tagmask.errors import TagmaskError
from tagmask.evaluation.tables import describe, to_json

logger = logging.getLogger(__name__)
ROWS = "rows"


@dataclass(frozen=True)
class Outcome:
    """A row beside what was measured.

    Attributes:
        row: with what was published.
        ours: mIoU in percent; None where it was not, or cannot be, measured.
        note: conditions, or why there is no number, or what to do with the archive.
    """

    row: Row
    ours: float | None
    note: str


def run_plan(plan: Plan) -> Iterator[Outcome]:
    """Train, and measure every row; what a former start finished is kept, a row by its file in `rows/`.

    Raises:
        TagmaskError: a weight file is missing; or whatever a step raises.
    """
    measurable = [row for row in plan.experiment.rows if not plan.left_out(row)]
    if any(not _file(plan, row).exists() for row in measurable):
        if plan.missing:
            raise TagmaskError("; ".join(each.advice for each in plan.missing))
        _train(plan)
    for row in plan.experiment.rows:
        if reason := plan.left_out(row):
            yield Outcome(row, None, reason)
            continue
        file = _file(plan, row)
        if not file.exists():
            logger.info("row %s: %s", row.key, plan.command(row))
            write_text(file, json.dumps(_measured(plan, row), indent=1) + "\n")
        kept = json.loads(file.read_text(encoding="utf-8"))
        ours = kept.get("miou")
        yield Outcome(row, None if ours is None else 100 * ours, kept["note"])


def _file(plan: Plan, row: Row) -> Path:
    return plan.output / ROWS / f"{row.key}.json"


def _train(plan: Plan) -> None:
    """Bring the run folder to its end, from wherever it is."""
    if plan.segmenter is not None:
        write_patches(plan.tree.root, plan.output / PATCHES)
        patch_run = train(plan.output / PATCHES, recipe=plan.recipe, output=plan.output / PATCH_RUN)
        join_patches(plan.tree.root, patch_run / MASK_STAGE, plan.output / WHOLE)
        train(plan.output / WHOLE, recipe=plan.segmenter[0], output=plan.run)
        return
    begun = (plan.run / "run.json").exists()
    if plan.checkpoint is not None:
        assert plan.experiment.importer is not None
        if not begun:
            own = [text for text in plan.overrides if not text.startswith(("refine", "segmenter"))]
            import_checkpoint(plan.experiment.importer, plan.checkpoint, plan.run, overrides=own)
        if not plan.recipe.staged:
            return
        imported = open_run(plan.run).recipe
        wanted = imported.model_copy(update={"refine": plan.recipe.refine, "segmenter": plan.recipe.segmenter})
        train(plan.tree.root, recipe=wanted, output=plan.run, from_stage=None if imported.refine else "cams")
        return
    for file, kind in plan.stage_files:
        if not any(_imported(done, file) for done in plan.run.glob(f"*/{DONE}")):
            import_checkpoint(kind, file, plan.run, overrides=plan.overrides)
    train(plan.tree.root, recipe=plan.recipe, output=plan.run)


def _imported(done: Path, file: Path) -> bool:
    """Whether a stage's mark says that it was taken from this file."""
    return json.loads(done.read_text(encoding="utf-8")).get("imported") == file.name


def _measured(plan: Plan, row: Row) -> dict[str, Any]:
    """Measure a row: its scores as of `tagmask evaluate -o`, the command and the conditions."""
    measure = row.measure
    assert measure is not None
    command = {"command": plan.command(row)}
    if measure.kind == "archive":
        archive, images = _write_archive(plan)
        return command | {"note": f"{images} label maps: {archive}; upload it to VOC's server"}
    if measure.kind == "masks":
        result, _ = evaluate(
            plan.run / MASK_STAGE,
            plan.data,
            split=[plan.split(row)],
            protocol=measure.protocol,
            recipe=plan.run / "recipe.yaml",
        )
    else:
        result, _ = evaluate(
            plan.run,
            plan.data,
            split=[plan.split(row)],
            protocol=measure.protocol,
            source=measure.source,
            overrides=measure.settings,
        )
    coverage = f"; {100 * result.scores.coverage:.1f} % of the pixels decided" if result.scores.coverage < 1 else ""
    note = f"{result.images} images, protocol {measure.protocol}{coverage}; {describe(result.conditions)}"
    return to_json(result) | command | {"note": note}


def _write_archive(plan: Plan) -> tuple[Path, int]:
    """Write the test images' label maps under VOC's own ids, and pack them as its server takes them."""
    model = load(plan.run)
    model.check_decoder()
    strange = [name for name in model.classes if name not in CLASSES]
    if strange:
        raise TagmaskError(f"{plan.run}: {strange[0]!r} is no class of PASCAL VOC, so its server has no id for it")
    ids = np.array([0, *(CLASSES.index(name) + 1 for name in model.classes)], dtype=np.uint8)
    items = listed_images(plan.tree.root / "JPEGImages", plan.tree.root / LISTS / f"{TEST}.txt")
    folder = plan.output / SERVER_FOLDER
    left = [item for item in items if not (folder / f"{item.name}.png").exists()]
    for prediction in track(stream(model.method, left, plan.recipe.inference), "test", len(left)):
        write_label_map(folder / f"{prediction.item.name}.png", ids[prediction.labels])
    archive = plan.output / "results.tgz"
    with replacing(archive) as temporary, tarfile.open(temporary, "w:gz") as packed:
        for item in items:
            packed.add(folder / f"{item.name}.png", SERVER_FOLDER / f"{item.name}.png")
    return archive, len(items)
