"""The verbs under `data` and `import`: what comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tagmask.cli.apps import Output, RecipeOfData, Set, data_app, import_app


@data_app.command("unpack")
def data_unpack(
    path: Annotated[Path, typer.Argument(help="Parquet file that holds images, or the folder of several.")],
    output: Output,
) -> None:
    """Unpack the images inside parquet files to a folder that `train` reads. Needs the extra `hf`.

    Example: `tagmask data unpack train-00000-of-00001.parquet -o photos`
    """
    from tagmask.data.readers.parquet import unpack_parquet

    typer.echo(f"{unpack_parquet(path, output)} images: {output}")


@data_app.command("sbd")
def data_sbd(
    sbd: Annotated[Path, typer.Argument(help="SBD as unpacked (benchmark_RELEASE).")],
    voc: Annotated[Path, typer.Argument(help="VOC 2012 tree; its SegmentationClassAug is written.")],
) -> None:
    """Turn SBD's outlines into VOC's augmented masks. What is there already stays.

    Example: `tagmask data sbd benchmark_RELEASE VOCdevkit/VOC2012`
    """
    from tagmask.data.sbd import write_augmented

    folder, masks = write_augmented(sbd, voc)
    typer.echo(f"{masks} masks: {folder}")


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="Folder, tags table, COCO file or VOC tree.")],
    recipe: RecipeOfData = None,
    set_: Set = None,
) -> None:
    """Count, open and cross-check everything; exit status 1 where something is wrong.

    Example: `tagmask data check photos/tags.csv --set data.background=false`
    """
    from tagmask.cli.check_report import render
    from tagmask.data.check import check_dataset
    from tagmask.data.images import limit_pixels
    from tagmask.data.splits import reader_options
    from tagmask.engine.progress import plain_console
    from tagmask.recipes.load import load_recipe

    config = load_recipe(recipe or {"method": "cam"}, set_ or ()).data
    limit_pixels(config.max_pixels)
    report = check_dataset(path, **reader_options(config))
    plain_console(stderr=False).print(render(report))
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("make")
def data_make(
    kind: Annotated[Literal["cooccur"], typer.Argument(help="Objects that keep company with their contexts.")],
    output: Output = Path("cooccur"),
    images: Annotated[int, typer.Option(min=1)] = 800,
    size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 96,
    classes: Annotated[int, typer.Option(min=1, help="How many kinds of objects.")] = 6,
    meet: Annotated[float, typer.Option(min=0, max=1, help="How often an object stands on its own context.")] = 0.9,
    alone: Annotated[float, typer.Option(min=0, max=1, help="How often a context stands without its object.")] = 0.2,
    seed: int = 0,
) -> None:
    """Make a synthetic tagged set with exact masks.

    Example: `tagmask data make cooccur -o cooccur --images 800 --meet 0.9`
    """
    from tagmask.data.synthetic import make_cooccur

    folder = make_cooccur(output, images=images, size=size, classes=classes, meet=meet, alone=alone, seed=seed)
    typer.echo(f"data: {folder}")


Checkpoint = Annotated[Path, typer.Argument(help="Published checkpoint (.pth or .safetensors); never unpickled.")]
ClassNames = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Class names, one a line; by default those of VOC or COCO, told by their number."),
]


@import_app.command("seco")
def import_seco(
    file: Checkpoint, output: Output = Path("runs/seco-import"), classes: ClassNames = None, set_: Set = None
) -> None:
    """Make a run folder of a SeCo checkpoint, of VOC or COCO. It labels images as a trained run does.

    Example: `tagmask import seco checkpoint.pth -o runs/seco-voc`
    """
    _import("seco", file, output, classes, set_)


@import_app.command("sccam")
def import_sccam(
    file: Checkpoint, output: Output = Path("runs/sccam-import"), classes: ClassNames = None, set_: Set = None
) -> None:
    """Make a run folder of SC-CAM's last classifier. It has CAMs; `train --from cams` adds masks and a segmenter.

    Example: `tagmask import sccam res38_sccam.pth -o runs/sccam-voc`
    """
    _import("sccam", file, output, classes, set_)


@import_app.command("psa")
def import_psa(
    file: Checkpoint, output: Output = Path("runs/sccam-psa"), classes: ClassNames = None, set_: Set = None
) -> None:
    """Put PSA's classifier or AffinityNet into a run folder of SC-CAM, a new one or one that has the other.

    `tagmask train` with the same output then trains what is left.

    Example: `tagmask import psa res38_cls.pth -o runs/sccam-voc`
    """
    _import("psa", file, output, classes, set_)


@import_app.command("rca")
def import_rca(
    file: Checkpoint, output: Output = Path("runs/rca-import"), classes: ClassNames = None, set_: Set = None
) -> None:
    """Make a run folder of a classifier that RCA's released code trained. It has CAMs, as that of `sccam`.

    Example: `tagmask import rca rca.pth -o runs/rca-voc`
    """
    _import("rca", file, output, classes, set_)


@import_app.command("deeplab")
def import_deeplab(
    file: Checkpoint, output: Output = Path("runs/deeplab-import"), classes: ClassNames = None, set_: Set = None
) -> None:
    """Make a run folder of a DeepLab-v2 of kazuto1011/deeplab-pytorch. It labels images as a trained run does.

    Example: `tagmask import deeplab deeplabv2_resnet101_msc-vocaug-20000.pth -o runs/deeplab-voc`
    """
    _import("deeplab", file, output, classes, set_)


def _import(kind: str, file: Path, output: Path, classes: Path | None, overrides: list[str] | None) -> None:
    from tagmask import api

    typer.echo(f"run: {api.import_checkpoint(kind, file, output, classes=classes, overrides=overrides or ())}")
