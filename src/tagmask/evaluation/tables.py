"""Results for people (tables) and for programs (JSON). No number goes without the conditions it holds under."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tagmask.engine.progress import report_skipped
from tagmask.evaluation.result import Conditions, Result
from tagmask.ops.label_ids import IGNORED_CLASS

_KEYS = {
    "protocol",
    "conditions",
    "images",
    "left_out",
    "miou",
    "pixel_accuracy",
    "mean_class_accuracy",
    "mean_confusion_ratio",
    "unbounded",
    "coverage",
    "classes",
}
"""The keys of `to_json`."""


def describe(conditions: Conditions) -> str:
    """Say the conditions in one line; what nobody said is called not stated."""
    tags = {True: "tags given", False: "no tags given", None: "tags given or not: not stated"}
    flips = {True: "with flip", False: "no flip", None: "flip not stated"}
    scales = ", ".join(map(str, conditions.scales)) if conditions.scales is not None else "not stated"
    parts = [
        f"split {conditions.split or 'not stated'}",
        f"labels from {conditions.source or 'a source not stated'}",
        tags[conditions.tags_given],
        f"scales {scales}",
        flips[conditions.flips],
        f"refinement {conditions.refinement or 'not stated'}",
    ]
    if conditions.tag_weight:
        parts.append(f"guessed tags weighed by {conditions.tag_weight:g}")
    if conditions.background_score is not None:
        parts.append(f"background score {conditions.background_score:g}")
    if conditions.averaged is not None:
        parts.append(f"means over {', '.join(conditions.averaged)} and the background")
    if conditions.tag_source is not None:
        parts.append(conditions.tag_source)
    return "; ".join(parts)


def render(result: Result, console: Console) -> None:
    """Print the scores of every class and of the whole, in percent, with protocol and conditions.

    The console must be a plain one (`plain_console`), or names of classes and files would be read as markup.
    """
    scores = result.scores
    table = Table(title=f"{result.images} images, protocol {scores.protocol}", caption=describe(result.conditions))
    table.add_column("class")
    for heading in ("IoU %", "precision %", "recall %", "FP/TP"):
        table.add_column(heading, justify="right")
    for row, name in enumerate(result.classes):
        if name == IGNORED_CLASS:
            continue
        percentages = (_percent(values[row]) for values in (scores.iou, scores.precision, scores.recall))
        table.add_row(name, *percentages, _ratio(scores.confusion_ratio[row]))
    table.add_section()
    table.add_row("mean", _percent(scores.miou), "", _percent(scores.mean_class_accuracy), _mean_ratio(result))
    console.print(table)
    report_skipped(result.left_out)
    console.print(
        f"mIoU {_percent(scores.miou)}%  pixel accuracy {_percent(scores.pixel_accuracy)}%"
        f"  coverage {_percent(scores.coverage)}%"
    )


def render_stages(rows: Sequence[tuple[str, Result]], console: Console) -> None:
    """Print a row for each stage: what it left, on which images, its mIoU, what fraction of the pixels it decides."""
    protocols = ", ".join(dict.fromkeys(result.scores.protocol for _, result in rows))
    table = Table(title=f"what each stage left (protocol {protocols})")
    for heading in ("stage", "split", "tags given"):
        table.add_column(heading)
    for heading in ("images", "mIoU %", "FP/TP", "decided %"):
        table.add_column(heading, justify="right")
    for what, result in rows:
        given = "yes" if result.conditions.tags_given else "no"
        figures = _percent(result.scores.miou), _mean_ratio(result), _percent(result.scores.coverage)
        table.add_row(what, result.conditions.split, given, str(result.images), *figures)
    console.print(table)


def to_json(result: Result) -> dict[str, Any]:
    """Return the result as plain values for `json.dump`: fractions in [0, 1], undefined and infinite ones null.

    The classes whose confusion ratio is infinite are named under `unbounded`.
    """
    scores = result.scores
    ratios = zip(result.classes, scores.confusion_ratio, strict=True)
    return {
        "protocol": scores.protocol,
        "conditions": asdict(result.conditions),
        "images": result.images,
        "left_out": list(result.left_out),
        "miou": _plain(scores.miou),
        "pixel_accuracy": _plain(scores.pixel_accuracy),
        "mean_class_accuracy": _plain(scores.mean_class_accuracy),
        "mean_confusion_ratio": _plain(scores.mean_confusion_ratio),
        "unbounded": [name for name, ratio in ratios if math.isinf(ratio)],
        "coverage": _plain(scores.coverage),
        "classes": {
            name: {
                "iou": _plain(scores.iou[row]),
                "precision": _plain(scores.precision[row]),
                "recall": _plain(scores.recall[row]),
                "confusion_ratio": _plain(scores.confusion_ratio[row]),
            }
            for row, name in enumerate(result.classes)
            if name != IGNORED_CLASS
        },
    }


def is_scores(values: Any) -> bool:
    """Return whether plain values are a result of `to_json`, or several by name, and hold nothing else."""
    if not isinstance(values, dict) or not values:
        return False
    return _is_result(values) or all(_is_result(value) for value in values.values())


def _is_result(values: Any) -> bool:
    return isinstance(values, dict) and _KEYS <= values.keys() <= _KEYS | {"sweep", "what"}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else "never right" if math.isinf(value) else f"{value:.3f}"


def _mean_ratio(result: Result) -> str:
    scores = result.scores
    missing = f" ({scores.unbounded} never right)" if scores.unbounded else ""
    return _ratio(scores.mean_confusion_ratio) + missing
