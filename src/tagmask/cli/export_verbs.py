"""The verbs under `export`: a run or masks in forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tagmask.cli.apps import Output, Overwrite, check_order, export_app


@export_app.command("onnx")
def export_onnx(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("model.onnx"),
    size: Annotated[Optional[int], typer.Option(min=1, help="Fix this square side; else the recipe's.")] = None,  # noqa: UP045
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave height and width free.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Give label ids instead of scores.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's model as ONNX, checked against torch. Needs the extra `onnx`.

    Example: `tagmask export onnx runs/mine -o model.onnx`
    """
    from tagmask.api.onnx import export_onnx as write

    done = write(run, output, size=size, dynamic=dynamic, labels=labels, overwrite=overwrite)
    shape = f"any size in multiples of {done.multiple}" if done.size is None else "{} x {}".format(*done.size)
    off = "" if done.difference is None else f"scores within {done.difference:.1g} of torch's, "
    typer.echo(f"model: {done.path} ({shape}; {off}{done.agreement:.2%} of labels equal)")


@export_app.command("masks")
def export_masks(
    masks: Annotated[Path, typer.Argument(help="Folder of masks, from `label` or `predict`.")],
    images: Annotated[Path, typer.Option("--images", "-i", help="The photographs or the data set that was labelled.")],
    format: Annotated[
        Literal["coco", "coco-polygons", "yolo", "voc", "label-studio", "cvat"], typer.Option("--format", "-f")
    ],
    output: Output = Path("export"),
    image_url: Annotated[Optional[str], typer.Option(help="label-studio: what stands before file names.")] = None,  # noqa: UP045
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export though files in it were changed or added.")
    ] = False,
) -> None:
    """Write masks in the format of a label tool or a training. An untouched earlier export is replaced.

    Example: `tagmask export masks masks -f coco -o coco --images photos`
    """
    from tagmask.api.export import export_masks as run_export
    from tagmask.engine.progress import report_skipped

    check_order("export masks", masks, images)
    done = run_export(masks, images, output, format=format, image_url=image_url, overwrite=overwrite)
    report_skipped(done.skipped, "masks")
    for line in done.notes:
        typer.echo(f"note: {line}", err=True)
    typer.echo(f"{done.images} masks as {format}: {done.folder}")
