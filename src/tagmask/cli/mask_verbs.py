"""The verbs from a folder to masks: demo, train, label, refine, predict."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from tagmask.cli.apps import DataPath, Output, Overwrite, RecipeOfData, Set, Split, app, check_order, tell
from tagmask.cli.fleet_options import Address, DryRun, Engine, Gpus, Place, Price, ShardSize, SinkOption, on_ray
from tagmask.recipes import recipe_names


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
    from tagmask.data.synthetic import begin_demo_set

    # Loading torch takes as long as making the set, most of all at the first start, which compiles it to bytecode.
    making = begin_demo_set(output, seed)
    from tagmask.api.demo import demo as run_demo

    making.join()
    print(json.dumps(run_demo(output, method=method, seed=seed)))


@app.command()
def train(
    data: DataPath = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            autocompletion=lambda: ["auto", *recipe_names()],
            help="METHOD/NAME of the package, a YAML file, or auto: chosen, with reasons.",
        ),
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
    from tagmask.engine.device import is_first_process

    check_order("train", None, data)
    start = time.monotonic()
    folder = api.train(data, recipe=recipe, output=output, overrides=set_ or (), from_stage=from_stage)
    if not is_first_process():
        return
    begun = time.time() - (time.monotonic() - start)
    earlier = (folder / "classes.txt").stat().st_mtime < begun  # which is written once, as the run is made
    minutes = f"{(time.monotonic() - start) / 60:.1f} minutes"
    typer.echo(f"run: {folder} ({minutes}{', this start alone' if earlier else ''})")
    for line in api.next_steps(folder):
        typer.echo(line)


@app.command()
def tags(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    classes: Annotated[str, typer.Option(help="Names parted by commas, or a file with one a line.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="The table; tags.csv among the photographs otherwise."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A network of images and captions: hf-hub:OWNER/NAME or a folder, in open_clip's form."),
    ] = None,
    least: Annotated[float, typer.Option(help="The score from which a class becomes a tag.")] = 0.5,
    overwrite: Overwrite = False,
) -> None:
    """Propose tags of photographs by the names of classes, for you to confirm. Needs the extra `tags`.

    Example: `tagmask tags photos/ --classes cow,sheep,boat`
    """
    from tagmask.api.tags import propose_tags

    own = {} if model is None else {"model": model}
    table = propose_tags(photos, classes, output=output, least=least, overwrite=overwrite, **own)
    typer.echo(f"tags: {table}")
    typer.echo(f"They are guesses. Confirm them: tagmask serve --tags {table}")


@app.command()
def label(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Folder, tags table (CSV, JSONL), COCO file or VOC tree; with --engine ray also shards."),
    ] = None,
    output: Place = "masks",
    split: Split = None,
    source: Annotated[Literal["decoder", "cam"], typer.Option(help="What the masks are read off.")] = "decoder",
    save_cams: Annotated[Optional[Path], typer.Option(help="Folder for the CAMs too, with --source cam.")] = None,  # noqa: UP045
    overwrite: Overwrite = False,
    set_: Set = None,
    engine: Engine = "plain",
    address: Address = None,
    sink: SinkOption = "png",
    shard_size: ShardSize = 256,
    gpus: Gpus = None,
    dry_run: DryRun = False,
    price: Price = None,
) -> None:
    """Write masks of tagged images: only an image's own tags and background can win.

    Example: `tagmask label runs/mine photos/tags.csv -o masks --set inference.refine=crf`
    """
    from tagmask import api

    check_order("label", run, data)
    told: dict[str, Any] = {"split": split, "source": source, "overrides": set_ or ()}
    if engine == "ray":
        refused = {"--save-cams": save_cams, "--overwrite": overwrite}
        fleet = {"address": address, "sink": sink, "shard_size": shard_size, "gpus": gpus}
        on_ray(run, data, output, **fleet, dry_run=dry_run, price=price, refused=refused, **told)
        return
    written = api.label(run, data, output=output, save_cams=save_cams, overwrite=overwrite, **told)
    tell(written, run=run, images=data, settings=set_)


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
    run: Annotated[Optional[Path], typer.Option(help="The run of the CAMs, or of the AffinityNet.")] = None,  # noqa: UP045
    recipe: RecipeOfData = None,
    overwrite: Overwrite = False,
    set_: Set = None,
) -> None:
    """Make masks of CAMs: by a threshold, PAR, dense CRF, random walk, or fusion with saliency maps.

    Example: `tagmask refine cams photos/tags.csv -o masks --with crf --set refine.crf=cam --set refine.alpha=8`
    """
    from tagmask.api.refine import refine_cams

    check_order("refine", cams, data)
    told = {"how": how, "split": split, "run": run, "recipe": recipe, "overwrite": overwrite}
    tell(refine_cams(cams, data, output, overrides=set_ or (), **told))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    images: Annotated[
        str, typer.Argument(help="An image, or a folder of images; with --engine ray also shards, and s3://… .")
    ],
    output: Place = "masks",
    names: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--list", help="File with the names of the images to take from the folder, one a line."),
    ] = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    engine: Engine = "plain",
    address: Address = None,
    sink: SinkOption = "png",
    shard_size: ShardSize = 256,
    gpus: Gpus = None,
    dry_run: DryRun = False,
    price: Price = None,
) -> None:
    """Write masks of images without tags.

    Example: `tagmask predict runs/mine new_photos/ -o masks`
    """
    from tagmask import api

    check_order("predict", run, images)
    if engine == "ray":
        refused = {"--list": names, "--overwrite": overwrite}
        fleet: dict[str, Any] = {"address": address, "sink": sink, "shard_size": shard_size, "gpus": gpus}
        told: dict[str, Any] = {"dry_run": dry_run, "price": price, "overrides": set_ or ()}
        on_ray(run, images, output, **fleet, refused=refused, tagged=False, **told)
        return
    written = api.predict(run, images, output=output, names=names, overwrite=overwrite, overrides=set_ or ())
    tell(written, run=run, images=Path(images).parent if Path(images).is_file() else images)


@app.command()
def suggest(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: DataPath = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many images.")] = 16,
    masks: Annotated[
        Path | None, typer.Option(help="Folder for the run's masks of these images, to be mended on the page.")
    ] = None,
    set_: Set = None,
) -> None:
    """Name the tagged images whose masks, drawn by hand, would help the run most, and say why.

    Example: `tagmask suggest runs/mine photos/ -n 16`, then draw them into photos/masks and
    `tagmask train photos/ -o runs/mine --from refine --set data.use_masks=true`
    """
    from tagmask.api.suggest import suggest as find

    check_order("suggest", run, data)
    for each in find(run, data, count=count, masks=masks, overrides=set_ or ()):
        typer.echo(f"{each.image}\t{each.reason}")
    if masks is not None:
        shown = [] if data is None else ["--images", str(data)]
        page = ["tagmask", "serve", str(run), *shown, "--masks", str(masks), "--review", "reviews/first.csv"]
        typer.echo(f"their masks are in {masks}; to mend them: {shlex.join(page)}", err=True)
