"""The verb `reproduce`, which prints its plan, runs it and prints what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from tagmask.cli.apps import Set, app

if TYPE_CHECKING:
    from tagmask.api.reproduce import Outcome, Plan


@app.command()
def reproduce(
    name: Annotated[
        Literal["seco/voc", "seco/coco", "sccam/voc", "rca/voc", "sccam/glas"], typer.Argument(help="The experiment.")
    ],
    data: Annotated[Path, typer.Option("--data", help="The data set in its official layout.")],
    weights: Annotated[Optional[Path], typer.Option(help="Folder of the pretrained weights.")] = None,  # noqa: UP045
    only: Annotated[Optional[list[str]], typer.Option(help="Only this row; repeatable.")] = None,  # noqa: UP045
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check, print every row and command, run nothing; also before the data is there."
        ),
    ] = False,
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The authors' trained network, in place of training."),
    ] = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="Folder; else reproduce/NAME.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Run a paper's experiment as a whole and print published beside ours. Called again, it resumes.

    Example: `tagmask reproduce seco/voc --data VOCdevkit/VOC2012 --dry-run`
    """
    from tagmask.api.reproduce import make_plan, run_plan
    from tagmask.data.files import write_text
    from tagmask.errors import TagmaskError

    plan = make_plan(
        name,
        data,
        weights=weights,
        output=output,
        only=only or (),
        checkpoint=checkpoint,
        overrides=set_ or (),
        dry_run=dry_run,
    )
    _tell_plan(plan)
    if set_:
        typer.echo(f"changed by --set, so not the paper's run: {', '.join(set_)}")
    if plan.lacking:  # only a dry run comes here without the data
        raise TagmaskError(plan.lacking)
    if dry_run:
        return
    table = _table(plan, list(run_plan(plan)), set_ or [])
    write_text(plan.output / "table.md", table)
    typer.echo(f"\n{table}\ntable: {plan.output / 'table.md'}")


def _tell_plan(plan: Plan) -> None:
    experiment = plan.experiment
    typer.echo(f"{experiment.name}, recipe {experiment.recipe}: {plan.tree.root}")
    for count in plan.tree.counts:
        mark = "" if count.found == count.expected else f", the paper had {count.expected:,}"
        typer.echo(f"  {count.what}: {count.found:,} images{mark}")
    for note in (*plan.tree.notes, experiment.conditions):
        if note:
            typer.echo(f"  {note}")
    typer.echo(f"time and disk: {experiment.cost}")
    for advice in dict.fromkeys(each.advice for each in plan.missing):
        typer.echo(f"missing: {advice}")
    typer.echo("\nsteps:")
    for step in plan.steps():
        typer.echo(f"  {step}")
    typer.echo("\nrows:")
    for row in experiment.rows:
        published = "-" if row.published is None else f"{row.published:g}"
        typer.echo(f"  {row.key}: {published} ({row.source}); {row.what}")
        left_out = plan.left_out(row)
        if row.note and row.note != left_out:
            typer.echo(f"    {row.note}")
        if left_out:
            typer.echo(f"    left out: {left_out}")
        else:
            assert row.measure is not None
            typer.echo(f"    split {plan.split(row)}, protocol {row.measure.protocol}: {plan.command(row)}")


def _table(plan: Plan, outcomes: list[Outcome], changed: list[str]) -> str:
    """The rows as Markdown, published beside ours, with whatever keeps them from being the paper's."""
    lines = [f"# {plan.experiment.name}", ""]
    if not plan.tree.complete:
        counts = ", ".join(f"{count.what} {count.found:,} of {count.expected:,}" for count in plan.tree.counts)
        lines += [f"Part of the data set ({counts}): not comparable with what was published.", ""]
    if changed:
        lines += [f"Not the paper's settings: {', '.join(changed)}.", ""]
    lines += ["| row | what | published | ours | conditions |", "| --- | --- | ---: | ---: | --- |"]
    for each in outcomes:
        published = "" if each.row.published is None else f"{each.row.published:g}"
        ours = "" if each.ours is None else f"{each.ours:.2f}"
        lines.append(f"| {each.row.key} | {each.row.what} | {published} | {ours} | {each.note} |")
    return "\n".join(lines) + "\n"
