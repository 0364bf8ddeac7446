"""The report of `tagmask data check` as text and tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tagmask.ops.label_ids import IGNORED_CLASS, count_classes

if TYPE_CHECKING:
    from tagmask.data.check import CheckReport
    from tagmask.data.readers.problems import Problem

NAMES = 20  # columns of a terminal kept for class names in the co-occurrence table
FREQUENT = 0.9


def render(report: CheckReport, *, warnings_shown: int = 20) -> Group:
    """Return the report for `Console.print`: counts, sizes, co-occurrence, every error, the first warnings.

    The co-occurrence table shows as many classes as the console is wide enough for, those of the most images.
    """
    parts: list[RenderableType] = []
    if report.classes:
        parts += [_summary(report), _counts(report)]
        if sum(total > 0 for total in report.class_totals) > 1:
            parts.append(_Companions(report))
    parts.append(_problems("warning", "yellow", report.warnings, warnings_shown))
    parts.append(_problems("error", "red", report.errors, len(report.errors)))
    return Group(*parts)


def _summary(report: CheckReport) -> Text:
    num_context = report.num_context
    context = f" and context classes (s1 to s{num_context}; no mask holds them)" if num_context else ""
    classes = f"{count_classes(report.classes) - num_context} classes{context}"
    lines = [
        f"{report.path}: {report.images} images, {classes}; {report.tag_source}",
        f"{report.untagged} images bear none of the classes; {report.with_mask} have a mask",
    ]
    if report.smallest and report.largest:
        smallest, largest = ("{} x {}".format(*size) for size in (report.smallest, report.largest))
        lines.append(f"sizes from {smallest} to {largest} (width x height)")
    return Text("\n".join(lines))


def _counts(report: CheckReport) -> Table:
    table = Table("id", "class", title="images that bear each class", title_justify="left")
    for split, images in report.splits.items():
        table.add_column(f"{split or 'no split'} ({images})", justify="right")
    doubted = any(report.unknown_totals)
    if doubted:
        table.add_column("not known", justify="right")
    for position, name in enumerate(report.classes):
        if name == IGNORED_CLASS:
            continue
        cells = [str(counts[position]) for counts in report.class_counts.values()]
        if doubted:
            cells.append(str(report.unknown_totals[position]))
        table.add_row(report.marks[position], Text(name), *cells)
    return table


class _Companions:
    """The co-occurrence table, made when the console's width is known."""

    def __init__(self, report: CheckReport) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield _companions(self.report, options.max_width)


def _companions(report: CheckReport, width: int) -> Table:
    totals = report.class_totals
    frequent = sorted(range(len(totals)), key=lambda position: -totals[position])[: max(2, (width - NAMES) // 4)]
    shown = sorted(position for position in frequent if totals[position])
    title = f"P(column | row), in percent; bold from {FREQUENT:.0%}"
    table = Table("", title=title, title_justify="left", padding=(0, 0, 0, 1), box=None)
    for position in shown:
        table.add_column(report.marks[position], justify="right")
    for row in shown:
        cells = [_percent(report.cooccurrence[row, column], row == column) for column in shown]
        table.add_row(Text(f"{report.marks[row]} {report.classes[row]}"), *cells)
    return table


def _percent(fraction: float, own: bool) -> Text:
    if own or math.isnan(fraction) or fraction == 0:
        return Text("·", style="dim")
    return Text(f"{100 * fraction:.0f}", style="bold" if fraction >= FREQUENT else "")


def _problems(noun: str, style: str, found: Sequence[Problem], shown: int) -> Text:
    text = Text(f"{len(found)} {noun}{'' if len(found) == 1 else 's'}", style=f"bold {style}" if found else "")
    for problem in found[:shown]:
        text.append(f"\n  {problem.kind}: {problem}", style="not bold")
    if len(found) > shown:
        text.append(f"\n  and {len(found) - shown} more", style="not bold")
    return text
