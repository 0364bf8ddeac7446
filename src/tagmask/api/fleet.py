"""The verbs `label` and `predict` on many machines, with Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tagmask.api.predict import distinct_names, find_images
from tagmask.api.write_masks import Written
from tagmask.data.dataset import PathLike
from tagmask.data.images import is_image_name
from tagmask.data.lock import locked
from tagmask.data.splits import open_data
from tagmask.engine.fleet.estimate import count_images, duration, measure
from tagmask.engine.fleet.output import begin_or_resume, is_whole, write_tables
from tagmask.engine.fleet.pipeline import cluster, run_pieces
from tagmask.engine.fleet.shards import SINKS, Sink, read_manifests
from tagmask.engine.fleet.sources import KINDS, Piece
from tagmask.engine.fleet.store import Store, is_remote
from tagmask.engine.fleet.work import Job
from tagmask.engine.inference import WINDOW, Item, Source, check_source
from tagmask.engine.model import load, overridden
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fleet:
    """How a large labelling is divided and written.

    Attributes:
        address: of a Ray cluster, as `auto`; None starts Ray on this machine.
        sink: `png`, a file a mask; `tar`, shards of WebDataset; `parquet`, shards of COCO run-length codes.
        shard_size: images of an output shard, a multiple of 128.
        gpus: GPUs that hold the model; None: all of the cluster. 0: each core does everything by itself.
    """

    address: str | None = None
    sink: Sink = "png"
    shard_size: int = 2 * WINDOW
    gpus: int | None = None

    def check(self) -> None:
        """Raise a TagmaskError where a value is none of those allowed."""
        if self.sink not in SINKS:
            raise TagmaskError(f"sink: {self.sink!r} is neither of {', '.join(SINKS)}")
        if self.shard_size < WINDOW or self.shard_size % WINDOW:
            raise TagmaskError(f"shard size: {self.shard_size} is no multiple of {WINDOW}; try {2 * WINDOW}")


DEFAULT = Fleet()


def label_fleet(
    run: PathLike,
    data: PathLike | None = None,
    *,
    output: PathLike,
    fleet: Fleet = DEFAULT,
    tagged: bool = True,
    split: Sequence[str] | None = None,
    source: Source = "decoder",
    overrides: Iterable[str] = (),
) -> Written:
    """Write masks of many images by many workers; called again with the same output, it goes on where it stopped.

    The masks are, byte for byte, those of `label` and `predict`.

    Args:
        run: a run folder.
        data: a folder of images; a tar or parquet file, or a folder of such; each here or in an object store, as
            `s3://bucket/shards`. With tags also what `label` reads.
        output: folder or address. It gets the masks, `manifests/` that say what is done, and `skipped.csv`, a row an
            image that could not be labelled.
        fleet: how the work is divided, and what is written.
        tagged: whether only an image's own tags and background can win, as with `label`; else as with `predict`.
        split: only these splits of a data set.
        source: `decoder`, or `cam` for the class activation maps themselves, which needs tags.
        overrides: of the recipe's `inference` and `data`.

    Raises:
        TagmaskError: whatever is wrong with run, data, output or cluster.
    """
    fleet.check()
    method, job, pieces = _prepare(run, data, output, fleet, tagged, split, source, overrides)
    store = Store(job.output)
    with nullcontext() if is_remote(output) else locked(Path(output)):
        done = begin_or_resume(store, job, method, pieces)
        left = [piece for piece in pieces if not is_whole(piece, done)]
        if done:
            logger.info("%d shards were done before", len(done))
        if left:
            images = sum(len(piece.items) for piece in left) if left[0].kind == "files" else None
            with cluster(fleet.address) as (cores, gpus):
                gpus = gpus if fleet.gpus is None else fleet.gpus
                run_pieces(job, method, left, cores=cores, gpus=gpus, images=images)
            done = read_manifests(store)
        images, skipped, plain = write_tables(store, job, done)
    return Written(Path(output), images, tuple(skipped), plain=plain)


def _prepare(
    run: PathLike,
    data: PathLike | None,
    output: PathLike,
    fleet: Fleet,
    tagged: bool,
    split: Sequence[str] | None,
    source: Source,
    overrides: Iterable[str],
) -> tuple[Method, Job, list[Piece]]:
    """Open run and source for `label_fleet` and `estimate`, whose arguments these are."""
    check_source(source)
    model = load(run)
    if source == "decoder":
        model.check_decoder()
    recipe = overridden(model.run.recipe, overrides, only=("inference", "data"), but=("data.classes",))
    job = Job(
        config=recipe.inference,
        source=source,
        classes=model.classes,
        background=model.method.background,
        tagged=tagged,
        output=str(output) if is_remote(output) else str(Path(output).absolute()),
        sink=fleet.sink,
        shard_size=fleet.shard_size,
        max_pixels=recipe.data.max_pixels,
    )
    pieces = _shards(data, fleet.sink) or _remote_images(data, tagged, job.shard_size)
    if pieces and split:
        raise TagmaskError(f"--split: shards know of no splits; name those of {', '.join(split)} instead of {data}")
    if not pieces and tagged:
        records = open_data(data, recipe.data, model.classes).split(split).records
        items = [Item(record.name, record.image.absolute(), record.tags, record.context) for record in records]
        pieces = _pieces(items, "", job.shard_size)
    elif not pieces:
        items = find_images(Path(str(data)), Path(str(output)))
        pieces = _pieces([Item(item.name, item.path.absolute()) for item in items], "", job.shard_size)
    return model.method.cpu(), job, pieces


def _shards(data: PathLike | None, sink: Sink) -> list[Piece]:
    """Return the tar and parquet files that `data` names or holds; none where it is something else."""
    if data is None:
        return []
    place = str(data) if is_remote(data) else str(Path(data).absolute())
    if Path(place).suffix.lower() in KINDS:
        places = {place: Path(place).stem}
    elif is_remote(place) or Path(place).is_dir():
        store = Store(place)
        there = store.sizes()
        files = [name for name in there if Path(name).suffix.lower() in KINDS]
        if any(is_image_name(Path(name).name) for name in there):  # a table beside its images
            return []
        places = dict(zip(map(store.path, files), distinct_names(files, place), strict=True))
    else:
        return []
    # Image names are unique in a shard, perhaps not among shards, whose PNG files would replace one another.
    return [
        Piece(name, KINDS[Path(file).suffix.lower()], file, prefix=f"{name}/" if sink == "png" else "")
        for file, name in places.items()
    ]


def _remote_images(data: PathLike | None, tagged: bool, size: int) -> list[Piece]:
    """Return the images of a folder in an object store."""
    if data is None or not is_remote(data):
        return []
    if tagged:
        raise TagmaskError(f"{data}: no tar or parquet file in it, which are where tags stand in an object store")
    store = Store(str(data))
    files = [name for name in store.sizes() if is_image_name(Path(name).name)]
    if not files:
        raise TagmaskError(f"{data}: no images in it; expected .jpg, .png, .webp, … files, or .tar or .parquet")
    names = distinct_names(files, str(data))
    return _pieces([Item(name, Path(file)) for name, file in zip(names, files, strict=True)], store.place, size)


def _pieces(items: Sequence[Item], place: str, size: int) -> list[Piece]:
    return [
        Piece(f"part-{start // size:06d}", "files", place, tuple(items[start : start + size]))
        for start in range(0, len(items), size)
    ]


def estimate(
    run: PathLike,
    data: PathLike | None = None,
    *,
    output: PathLike,
    fleet: Fleet = DEFAULT,
    price: float | None = None,
    tagged: bool = True,
    split: Sequence[str] | None = None,
    source: Source = "decoder",
    overrides: Iterable[str] = (),
) -> list[str]:
    """Say how many images and bytes there are, and what labelling them would take; nothing is written.

    A few images are labelled on one core of this machine, and their time is multiplied. Where the cluster's cores are
    others, or GPUs hold the model, it says what these would need without.

    Args:
        price: of a core an hour; None leaves the cost out.

    Returns:
        lines for a person.

    Raises:
        TagmaskError: as `label_fleet`.
    """
    fleet.check()
    method, job, pieces = _prepare(run, data, output, fleet, tagged, split, source, overrides)
    with cluster(fleet.address) if fleet.address else nullcontext((os.cpu_count() or 1, 0)) as (cores, _):
        sample = measure(job, method, pieces[0])
    images, size, counted = count_images(pieces)
    hours = images * sample.seconds / cores / 3600
    lines = [
        f"images: {images}" + ("" if counted else f", counted in the first of {len(pieces)} files"),
        f"to read: {size / 1e9:.3g} GB; to write: about {images * sample.written / 1e9:.3g} GB",
        f"time: about {duration(hours)} on {cores} cores, at {sample.seconds:.3f} s an image and core "
        f"(measured here on {sample.images} images)",
    ]
    if price is not None:
        lines.append(f"cost: about {hours * cores * price:.2f}, at {price:g} a core and hour")
    return lines
