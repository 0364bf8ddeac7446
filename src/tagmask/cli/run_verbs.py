"""The verbs to judge a run by, to try it, and to hand it on: evaluate, report, serve, push."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from tagmask.cli.apps import DataPath, Overwrite, Set, Split, app, check_order
from tagmask.errors import TagmaskError
from tagmask.recipes import recipe_names


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Run folder, or a folder of masks NAME.png.")],
    data: DataPath = None,
    split: Split = None,
    protocol: Annotated[
        Literal["seco", "sccam", "seam", "eps", "irn"], typer.Option(help="How mIoU is counted.")
    ] = "seco",
    source: Annotated[Literal["decoder", "cam"], typer.Option(help="Of a run: its decoder or its CAMs.")] = "decoder",
    tags: Annotated[bool, typer.Option("--tags", help="Tell a run's decoder the images' tags.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Of a run of several stages: one row for what each left behind.")
    ] = False,
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--recipe", "-r", autocompletion=recipe_names, help="For masks: its data section."),
    ] = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="JSON file for the scores.")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
    set_: Set = None,
) -> None:
    """Compare a run or a folder of masks with the ground truth.

    Example: `tagmask evaluate runs/mine --split test --source cam -o scores.json`
    """
    from tagmask import api
    from tagmask.data.files import write_text
    from tagmask.engine.progress import plain_console
    from tagmask.evaluation.tables import render, render_stages, to_json

    check_order("evaluate", predictions, data)

    def write(values: dict[str, Any]) -> None:
        if output is not None:
            write_text(output, json.dumps(values, indent=1) + "\n")

    if output is not None and output.is_dir():
        raise TagmaskError(f"{output}: a folder; name a JSON file for the scores")
    if output is not None and not overwrite and not _is_free(output):
        raise TagmaskError(
            f"{output}: is there already and holds no scores; name another JSON file for them, or add --overwrite"
        )
    if stages:
        if split or tags or recipe or set_ or source != "decoder":
            raise TagmaskError(
                "--stages scores what each stage left; leave --split, --source, --tags, --recipe and --set out"
            )
        rows = api.evaluate_stages(predictions, data, protocol=protocol)
        render_stages([(row.what, row.result) for row in rows], plain_console(stderr=False))
        write({row.stage: {"what": row.what, **to_json(row.result)} for row in rows})
        return
    result, sweep = api.evaluate(
        predictions,
        data,
        split=split,
        protocol=protocol,
        source=source,
        tags=tags,
        recipe=recipe,
        overrides=set_ or (),
    )
    render(result, plain_console(stderr=False))
    values: dict[str, Any] = to_json(result)
    if sweep is not None:
        typer.echo(
            f"best of the sweep: mIoU {100 * sweep.best.miou:.2f} at background score {sweep.best_threshold:.2f}"
        )
        values["sweep"] = {
            "thresholds": [round(float(value), 4) for value in sweep.thresholds],
            "miou": [round(float(value), 6) for value in sweep.miou],
        }
    write(values)


def _is_free(output: Path) -> bool:
    """Return whether scores may be written there: nothing is there, or earlier scores of a run, a folder or stages."""
    from tagmask.evaluation.tables import is_scores

    if not output.exists():
        return True
    try:
        return is_scores(json.loads(output.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):
        return False


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: DataPath = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="HTML file; else in the run.")] = None,  # noqa: UP045
    split: Split = None,
    protocol: Annotated[
        Literal["seco", "sccam", "seam", "eps", "irn"], typer.Option(help="How mIoU is counted.")
    ] = "seco",
    shown: Annotated[int, typer.Option(min=1, max=50, help="Images in each group of pictures.")] = 3,
    overwrite: Overwrite = False,
    set_: Set = None,
) -> None:
    """Write one HTML page on a run: scores or, without ground truth, tags and certainty; pictures, curves, costs.

    Example: `tagmask report runs/mine -o report.html`
    """
    from tagmask.api.report import report as write_report

    check_order("report", run, data)
    told = {"split": split, "protocol": protocol, "shown": shown, "overwrite": overwrite}
    file = write_report(run, data, output=output, overrides=set_ or (), **told)
    typer.echo(f"report: {file}")


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, devices, extras, cached weights, and what to install for more.

    Example: `tagmask doctor`
    """
    from tagmask.api.doctor import look_around

    typer.echo("\n".join(look_around()))


@app.command()
def serve(
    run: Annotated[Optional[Path], typer.Argument(help="Run folder; none with --tags.")] = None,  # noqa: UP045
    other: Annotated[Optional[Path], typer.Argument(help="A second run folder, to compare.")] = None,  # noqa: UP045
    images: Annotated[Optional[Path], typer.Option(help="Folder or data set of photographs; else the run's.")] = None,  # noqa: UP045
    masks: Annotated[Optional[Path], typer.Option(help="Masks to review, from `label` or `predict`.")] = None,  # noqa: UP045
    review: Annotated[Optional[Path], typer.Option(help="CSV file for the decisions of the review.")] = None,  # noqa: UP045
    tags: Annotated[Optional[Path], typer.Option(help="A table of `tagmask tags` to confirm, without a run.")] = None,  # noqa: UP045
    port: Annotated[int, typer.Option(min=1024, max=65535, help="On this machine only, 127.0.0.1.")] = 7860,
    set_: Set = None,
) -> None:
    """Open a page to try a run, compare two, review masks, or confirm tags. Needs the extra `web`.

    Example: `tagmask serve runs/mine --images photos --masks masks --review reviews/first.csv`
    """
    from tagmask.engine.progress import report_skipped
    from tagmask.serve.server import confirming, serving

    # As Ctrl+C does, so that the temporary uploads go with the page.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        left_out: list[str] = []
        if tags is not None:
            if run is not None:
                raise TagmaskError(f"--tags {tags}: confirmed on a page without a run; leave {run} out")
            if set_:
                raise TagmaskError(f"--set {set_[0]}: is of the recipe of a run, and --tags goes without; leave it out")
            address = stack.enter_context(confirming(tags, port=port))
        elif run is None:
            raise TagmaskError("serve needs a run folder, or --tags with a table that `tagmask tags` wrote")
        else:
            folders = {"images": images, "masks": masks, "review": review}
            address, left_out = stack.enter_context(serving(run, other, **folders, port=port, overrides=set_ or ()))
        try:
            report_skipped(left_out, "masks")
            typer.echo(f"page: {address}   (Ctrl+C ends it)")
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo()


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    license: Annotated[Optional[str], typer.Option(help="Of the model, as cc-by-4.0; goes on its card.")] = None,  # noqa: UP045
) -> None:
    """Upload a run's model with a model card; `hf-hub:OWNER/NAME` then stands for it in other verbs.

    Example: `tagmask push runs/mine ada/street-tags`
    """
    from tagmask.api.hub import push as push_run

    typer.echo(f"pushed: {push_run(run, repository, private=not public, license=license)}")
