"""Put everything known of a run into words, tables and pictures on one page that needs no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tagmask.engine.run import Run, read_notes
from tagmask.evaluation.report.charts import curve, histogram
from tagmask.evaluation.report.citations import citations
from tagmask.evaluation.report.confusions import excerpt, largest_confusions
from tagmask.evaluation.report.costs import disk_use, read_logs, recorded_scores, series, stage_costs
from tagmask.evaluation.report.panels import Panel, colour
from tagmask.evaluation.report.words import Step, headline, headline_of_tags, next_steps
from tagmask.evaluation.result import Result
from tagmask.evaluation.study import SPECK, Study, TagAgreement, tag_agreement
from tagmask.evaluation.tables import describe
from tagmask.ops.label_ids import IGNORE, IGNORED_CLASS

TEMPLATE = Path(__file__).with_name("page.html.j2")
MATRIX_SIDE = 24  # ids of the confusion matrix shown
CONFUSIONS = 12  # pairs listed


@dataclass(frozen=True)
class Group:
    """Panels under one heading; `folded` where they are to be opened by a click."""

    title: str
    panels: tuple[Panel, ...]
    folded: bool = False


def render_page(run: Run, found: Study, groups: Sequence[Group], *, name: str, further: Sequence[Step] = ()) -> str:
    """Return the page as HTML.

    Args:
        run: what was looked at.
        found: over the images.
        groups: single images.
        name: the run as commands name it.
        further: what to do next whatever the masks are like.

    Raises:
        TagmaskError: `metrics.jsonl` or `scores.json` of the run folder is damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "ratio": ratio,
        "duration": duration,
        "disk_size": disk_size,
        "thousands": thousands,
    }
    logs = read_logs(run.folder)
    agreement = tag_agreement(found.images, len(run.classes))
    result = found.result
    confusions = largest_confusions(result.matrix, found.dataset.records, CONFUSIONS) if result else []
    told = found.conditions.tags_given is True
    costs, disk = stage_costs(run.folder, logs, run.recipe.training.batch), disk_use(run.folder)
    return environment.get_template(TEMPLATE.name).render(
        run=run,
        version=version("tagmask"),
        found=found,
        conditions=describe(found.conditions),
        describe=describe,
        result=result,
        notes=read_notes(run.folder),
        headline=headline(result) if result else headline_of_tags(agreement, run.classes, tags_given=told),
        steps=next_steps(found, agreement, confusions, name, further=further),
        speck=SPECK,
        agreement=agreement,
        class_rows=_class_rows(result, found, agreement) if result else [],
        tag_rows=_tag_rows(run.classes, agreement),
        matrix=_matrix(result) if result else None,
        confusions=confusions,
        groups=groups,
        confidences=histogram([facts.confidence for facts in found.images], "confidence of an image"),
        mean_confidence=float(np.mean([facts.confidence for facts in found.images])),
        curves={stage: _curves(lines) for stage, lines in logs.items()},
        evaluated=any(name.startswith("eval/") for lines in logs.values() for line in lines for name in line),
        costs=costs,
        total=sum(stage.seconds for stage in costs),
        disk=disk,
        size=sum(own for *_, own in disk),
        recorded=recorded_scores(run.folder),
        citations=citations(run.recipe.method.name),
        recipe=run.recipe.dump(),
    )


def _curves(lines: Sequence[Mapping[str, float]]) -> list[tuple[str, Markup]]:
    """Return title and drawing of each logged quantity."""
    titled = [(_title(each.name), each) for each in series(lines)]
    return [(title, curve(each.steps, each.values, title)) for title, each in titled]


def _title(name: str) -> str:
    if name.startswith("eval/"):
        return name.removeprefix("eval/").replace("decoder_miou", "decoder mIoU %").replace("_", " ")
    return {"lr": "learning rate", "images_per_second": "images a second", "loss": "loss"}.get(name, f"loss: {name}")


def _class_rows(result: Result, found: Study, agreement: TagAgreement) -> list[dict[str, Any]]:
    """Return one row for each class, in id order."""
    scores, ids = result.scores, result.matrix.ids
    wrong = result.matrix.counts.sum(axis=0) - np.diagonal(result.matrix.counts)
    rows = []
    for row, name in enumerate(result.classes):
        label = int(ids[row])
        if label == IGNORE:
            continue
        stray = found.stray[label - 1] / wrong[row] if label and wrong[row] else math.nan
        rows.append(
            {
                "name": name,
                "colour": colour(label) if label else None,
                "iou": scores.iou[row],
                "precision": scores.precision[row],
                "recall": scores.recall[row],
                "ratio": scores.confusion_ratio[row],
                "stray": stray,
                "images": int(agreement.tagged[label - 1]) if label else None,
            }
        )
    return rows


def _tag_rows(classes: Sequence[str], agreement: TagAgreement) -> list[dict[str, Any]]:
    columns = zip(classes, agreement.tagged, agreement.hits, agreement.extra, strict=True)
    return [
        {"name": name, "colour": colour(index + 1), "tagged": int(tagged), "hits": int(hits), "extra": int(extra)}
        for index, (name, tagged, hits, extra) in enumerate(columns)
        if name != IGNORED_CLASS
    ]


def _matrix(result: Result) -> dict[str, Any]:
    part = excerpt(result.matrix, MATRIX_SIDE)
    first = int(result.matrix.ids[0])
    names = [result.classes[label - first] for label in part.rows]
    return {"names": names, "fractions": part.fractions.tolist(), "hidden": part.hidden}


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction in percent; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def ratio(value: float | None) -> str:
    """Write a confusion ratio as `tagmask evaluate` prints it."""
    if value is None or math.isnan(value):
        return "–"
    return "never right" if math.isinf(value) else f"{value:.2f}"


def duration(value: float) -> str:
    """Write seconds in words."""
    hours, rest = divmod(round(value), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"


def disk_size(value: float) -> str:
    """Write bytes in words, in powers of 1000."""
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def thousands(value: int) -> str:
    """Write a whole number with separated thousands."""
    return f"{value:,}".replace(",", "\u202f")
