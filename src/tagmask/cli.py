"""The command line: every verb is a thin call of the Python face."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from tagmask import __version__
from tagmask.errors import TagmaskError

app = typer.Typer(
    name="tagmask",
    help="Image tags in, pixel masks out.\n\nFrom a folder to masks: `tagmask train photos/ -o runs/mine`, then "
    "`tagmask predict runs/mine new_photos/ -o masks/`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at a data set, or make one.", no_args_is_help=True)
import_app = typer.Typer(help="Take over published checkpoints.", no_args_is_help=True)
export_app = typer.Typer(help="Write masks, or a run, in forms that others read.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")

Set = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads this form)
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the recipe, as --set optimizer.lr=1e-4; repeatable."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]
Split = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--split", help="Only this split; repeatable."),
]
DataPath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="Folder, tags table (CSV, JSONL), COCO file or VOC tree."),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tagmask {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Output = Path("demo"),
    method: Annotated[
        Literal["seco", "cam", "sccam", "rca"], typer.Option(help="The method to set beside plain CAM.")
    ] = "seco",
    seed: Annotated[int, typer.Option(help="Of data and training.")] = 0,
) -> None:
    """Make a synthetic set, train plain CAM and another method on its tags, compare them.

    Example: `tagmask demo -o demo`
    """
    from tagmask.demonstration import demo as run_demo

    print(json.dumps(run_demo(output, method=method, seed=seed)))


@app.command()
def train(
    data: DataPath = None,
    recipe: Annotated[
        str,
        typer.Option("--recipe", "-r", help="METHOD/NAME of the package, a YAML file, or auto: chosen, with reasons."),
    ] = "auto",
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="Run folder.")] = None,  # noqa: UP045
    from_stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Of a recipe of several stages: run this one and all later ones anew."),
    ] = None,
    set_: Set = None,
) -> None:
    """Train on images and tags. Called again with the same output, it resumes.

    Example: `tagmask train photos/ -o runs/mine --set training.steps=5000`
    """
    from tagmask import api

    folder = api.train(data, recipe=recipe, output=output, overrides=set_ or (), from_stage=from_stage)
    typer.echo(f"run: {folder}")


@app.command()
def label(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: DataPath = None,
    output: Output = Path("masks"),
    split: Split = None,
    source: Annotated[Literal["decoder", "cam"], typer.Option(help="What the masks are read off.")] = "decoder",
    save_cams: Annotated[Optional[Path], typer.Option(help="Folder for the CAMs too, with --source cam.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Write masks of tagged images: only an image's own tags and background can win.

    Example: `tagmask label runs/mine photos/tags.csv -o masks --set inference.refine=crf`
    """
    from tagmask import api

    _report(api.label(run, data, output=output, split=split, source=source, save_cams=save_cams, overrides=set_ or ()))


@app.command()
def refine(
    cams: Annotated[Path, typer.Argument(help="Folder of CAMs NAME.npz, from `label --source cam --save-cams`.")],
    data: Annotated[Path, typer.Argument(help="Where the images are: folder, tags table, COCO file or VOC tree.")],
    output: Output = Path("masks"),
    split: Split = None,
    how: Annotated[
        Literal["none", "par", "crf", "affinity", "fusion"],
        typer.Option("--with", help="affinity: random walk; fusion: RCA's CRF and saliency."),
    ] = "crf",
    run: Annotated[Optional[Path], typer.Option(help="For affinity: the run whose AffinityNet to walk by.")] = None,  # noqa: UP045
    recipe: Annotated[Optional[str], typer.Option("--recipe", "-r", help="Whose data section to read by.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Make masks of CAMs: by a threshold, PAR, dense CRF, random walk, or fusion with saliency maps.

    Example: `tagmask refine cams photos/tags.csv -o masks --with crf --set refine.crf=cam --set refine.alpha=8`
    """
    from tagmask.refine_verb import refine_cams

    _report(refine_cams(cams, data, output, how=how, split=split, run=run, recipe=recipe, overrides=set_ or ()))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    output: Output = Path("masks"),
    set_: Set = None,
) -> None:
    """Write masks of images without tags.

    Example: `tagmask predict runs/mine new_photos/ -o masks`
    """
    from tagmask import api

    _report(api.predict(run, images, output=output, overrides=set_ or ()))


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
    recipe: Annotated[Optional[str], typer.Option("--recipe", "-r", help="For masks: its data section.")] = None,  # noqa: UP045
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="JSON file for the scores.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Compare a run or a folder of masks with the truth.

    Example: `tagmask evaluate runs/mine --split test --source cam -o scores.json`
    """
    from rich.console import Console

    from tagmask import api
    from tagmask.evaluation.report import render, to_json
    from tagmask.run import write_text

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
    render(result, Console())
    values: dict[str, Any] = to_json(result)
    if sweep is not None:
        typer.echo(
            f"best of the sweep: mIoU {100 * sweep.best.miou:.2f} at background score {sweep.best_threshold:.2f}"
        )
        values["sweep"] = {
            "thresholds": [round(float(value), 4) for value in sweep.thresholds],
            "miou": [round(float(value), 6) for value in sweep.miou],
        }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(values, indent=1) + "\n")


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Optional[Path], typer.Argument(help="A second run folder, to compare.")] = None,  # noqa: UP045
    images: Annotated[Optional[Path], typer.Option(help="Folder or data set of photographs; else the run's.")] = None,  # noqa: UP045
    masks: Annotated[Optional[Path], typer.Option(help="Masks to review, from `label` or `predict`.")] = None,  # noqa: UP045
    review: Annotated[Optional[Path], typer.Option(help="CSV file for the decisions of the review.")] = None,  # noqa: UP045
    port: Annotated[int, typer.Option(min=1024, max=65535, help="On this machine only, 127.0.0.1.")] = 7860,
) -> None:
    """Open a page to try a run, compare two, and review masks. Needs the extra `web`.

    Example: `tagmask serve runs/mine --images photos --masks masks --review reviews/first.csv`
    """
    from tagmask.serve.server import serve as serve_page

    serve_page(run, other, images=images, masks=masks, review=review, port=port)


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
    set_: Set = None,
) -> None:
    """Write one HTML page on a run: scores or, without true masks, tags and certainty; pictures, curves, costs.

    Example: `tagmask report runs/mine -o report.html`
    """
    from tagmask.reporting.report import report as write_report

    file = write_report(run, data, output=output, split=split, protocol=protocol, shown=shown, overrides=set_ or ())
    typer.echo(f"report: {file}")


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
    from tagmask.hub import push as push_run

    typer.echo(f"pushed: {push_run(run, repository, private=not public, license=license)}")


@export_app.command("onnx")
def export_onnx(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("model.onnx"),
    size: Annotated[Optional[int], typer.Option(min=1, help="Fix this square side; else the recipe's.")] = None,  # noqa: UP045
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave height and width free.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Give label ids instead of scores.")] = False,
) -> None:
    """Write a run's model as ONNX, checked against torch. Needs the extra `onnx`.

    Example: `tagmask export onnx runs/mine -o model.onnx`
    """
    from tagmask.onnx_export import export_onnx as write

    done = write(run, output, size=size, dynamic=dynamic, labels=labels)
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
) -> None:
    """Write masks in the format of a label tool or a training. An untouched earlier export is replaced.

    Example: `tagmask export masks masks -f coco -o coco --images photos`
    """
    from tagmask.export.masks import export_masks as run_export

    done = run_export(masks, images, output, format=format, image_url=image_url)
    for line in (*done.skipped[:10], *done.notes):
        typer.echo(f"note: {line}", err=True)
    if len(done.skipped) > 10:
        typer.echo(f"note: {len(done.skipped)} masks were left out in all", err=True)
    typer.echo(f"{done.images} masks as {format}: {done.folder}")


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


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="Folder, tags table, COCO file or VOC tree.")],
    recipe: Annotated[Optional[str], typer.Option("--recipe", "-r", help="Whose data section to read by.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Count, open and cross-check everything; exit status 1 where something is wrong.

    Example: `tagmask data check photos/tags.csv --set data.background=false`
    """
    from rich.console import Console

    from tagmask.data.check import check_dataset, render
    from tagmask.recipe import load_recipe

    config = load_recipe(recipe or {"method": "cam"}, set_ or ()).data
    report = check_dataset(
        path,
        format=config.format,
        classes=list(config.classes) if config.classes else None,
        background=config.background,
        image_folder=config.image_folder,
        masks=config.masks,
        mask_classes=list(config.mask_classes) if config.mask_classes else None,
        untagged=config.untagged,
        tag_source=config.tag_source,
    )
    Console().print(render(report))
    if report.errors:
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


@import_app.command("seco")
def import_seco(
    file: Annotated[Path, typer.Argument(help="Published checkpoint (.pth or .safetensors).")],
    output: Output = Path("runs/seco-import"),
    classes: Annotated[Optional[Path], typer.Option(help="Class names, one a line; by default VOC's.")] = None,  # noqa: UP045
    set_: Set = None,
) -> None:
    """Make a run folder of a published SeCo checkpoint.

    Example: `tagmask import seco checkpoint.pth -o runs/seco-voc`
    """
    from tagmask import api

    typer.echo(f"run: {api.import_checkpoint('seco', file, output, classes=classes, overrides=set_ or ())}")


def _report(written: Any) -> None:
    for reason in written.skipped[:10]:
        typer.echo(f"skipped: {reason}", err=True)
    if len(written.skipped) > 10:
        typer.echo(f"skipped: {len(written.skipped)} images in all", err=True)
    typer.echo(f"{written.images} masks: {written.folder}")
    if not written.images:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error of the user's is one line and exit status 2."""
    try:
        app()
    except TagmaskError as error:
        print(f"tagmask: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
