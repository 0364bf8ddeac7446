"""The options of `label` and `predict` for labelling on many machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from tagmask.cli.apps import tell
from tagmask.errors import TagmaskError

Place = Annotated[str, typer.Option("--output", "-o", help="Folder to write to; with --engine ray also s3://… .")]
Engine = Annotated[
    Literal["plain", "ray"], typer.Option(help="ray: by many workers, on this machine or a cluster; see docs/scale.md.")
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Ray: the cluster's address, such as auto; by default this machine alone."),
]
SinkOption = Annotated[
    Literal["png", "tar", "parquet"],
    typer.Option("--sink", help="Ray: PNG files, WebDataset shards, or parquet shards of COCO run-length codes."),
]
ShardSize = Annotated[int, typer.Option(help="Ray: images of an output shard, a multiple of 128.")]
Gpus = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, help="Ray: GPUs that hold the model, by default all; 0: each core does everything."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Ray: label a few images, say what all would take.")]
Price = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0, help="Ray: of a core an hour, for --dry-run."),
]


def on_ray(
    run: Path,
    data: str | None,
    output: str,
    *,
    address: str | None,
    sink: Literal["png", "tar", "parquet"],
    shard_size: int,
    gpus: int | None,
    dry_run: bool,
    price: float | None,
    refused: dict[str, Any],
    **told: Any,
) -> None:
    """Label by many workers, or say what that would take.

    Args:
        refused: options that this engine does not know, by name; none may be given.
        told: what `label_fleet` takes beside.
    """
    from tagmask.api.fleet import Fleet, estimate, label_fleet

    if given := [name for name, value in refused.items() if value]:
        raise TagmaskError(f"{given[0]}: --engine ray does not know it; leave it out")
    fleet = Fleet(address, sink, shard_size, gpus)
    if dry_run:
        for line in estimate(run, data, output=output, fleet=fleet, price=price, **told):
            typer.echo(line)
        return
    tell(label_fleet(run, data, output=output, fleet=fleet, **told), output)
