"""Where the images of a large labelling come from: lists of files, and shards of WebDataset (tar) or parquet."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tagmask.data.members import sample_key
from tagmask.data.names import image_name_fault
from tagmask.data.readers.cells import read_tags
from tagmask.data.readers.parquet import Layout, schema_layout
from tagmask.data.readers.shards import image_ending, tags_of_sample
from tagmask.engine.fleet.store import Store, is_remote, of_file
from tagmask.engine.inference import Item
from tagmask.errors import TagmaskError, first_line

Kind = Literal["files", "tar", "parquet"]
KINDS: dict[str, Kind] = {".tar": "tar", ".parquet": "parquet"}
ROWS = 64  # of a parquet file that are read at a time


@dataclass(frozen=True)
class Piece:
    """A part of the source that one worker reads from beginning to end.

    Attributes:
        name: with which the names of its output shards begin.
        kind: what it is.
        place: path or address of a tar or parquet file; of the folder of remote files.
        items: of `files`, the images; those of a remote folder have paths relative to it.
        prefix: of the names of a tar or parquet file's images.
    """

    name: str
    kind: Kind
    place: str = ""
    items: tuple[Item, ...] = ()
    prefix: str = ""


@dataclass(frozen=True)
class Sample:
    """An image of a shard as it is read.

    Attributes:
        name: of the image.
        suffix: of its file.
        content: of its file; None where `fault` says what is wrong.
        tags: as the shard gives them.
        fault: why it cannot be labelled.
    """

    name: str
    suffix: str = ""
    content: bytes | None = None
    tags: Any = None
    fault: str = ""


@dataclass(frozen=True)
class Chunk:
    """The images of one output shard, as files on this machine.

    Attributes:
        shard: its name.
        items: what to label.
        refused: image and reason of each that is no image to begin with.
        last: whether it is the last of its piece.
        done: whether the shard was written before; there are no items then.
        shown: what messages are to name in place of a temporary file.
    """

    shard: str
    items: list[Item] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    last: bool = True
    done: bool = False
    shown: dict[str, str] = field(default_factory=dict)

    def refuse(self, item: Item, error: TagmaskError) -> None:
        """Note why an image cannot be labelled."""
        self.refused.append(
            (item.name, str(error).replace(str(item.path), self.shown.get(str(item.path), str(item.path))))
        )


def open_chunks(
    piece: Piece, size: int, classes: Sequence[str], *, tagged: bool, is_done: Callable[[str], bool]
) -> Generator[Chunk]:
    """Give the chunks of a piece; the files of one are there until the next is asked for.

    Args:
        piece: to read.
        size: images of a chunk.
        classes: of the run.
        tagged: whether the images' tags are needed.
        is_done: says of a shard's name whether it was written before.
    """
    if piece.kind == "files":
        with nullcontext(Chunk(piece.name, done=True)) if is_done(piece.name) else _fetched(piece) as chunk:
            yield chunk
        return
    samples = _tar_samples(piece) if piece.kind == "tar" else _parquet_samples(piece, tagged)
    ahead = list(islice(samples, size))
    number = 0
    while ahead or not number:  # a shard without images is done, too
        chunk, ahead = ahead, list(islice(samples, size))
        shard = f"{piece.name}-{number:05d}"
        number += 1
        with TemporaryDirectory(prefix="tagmask-") as folder:
            done = is_done(shard)
            yield Chunk(shard, done=True) if done else _unpacked(shard, chunk, Path(folder), classes, tagged, not ahead)


def _unpacked(
    shard: str, samples: Sequence[Sample], folder: Path, classes: Sequence[str], tagged: bool, last: bool
) -> Chunk:
    """Write samples as files, so that they are opened like all others."""
    chunk = Chunk(shard, last=last)
    for number, sample in enumerate(samples):
        try:
            if sample.fault or sample.content is None:
                raise TagmaskError(sample.fault)
            tags = _tag_ids(sample.tags, classes) if tagged else None
        except TagmaskError as error:
            chunk.refused.append((sample.name, str(error)))
            continue
        path = folder / f"{number:06d}{sample.suffix}"
        path.write_bytes(sample.content)
        chunk.items.append(Item(sample.name, path, tags))
        chunk.shown[str(path)] = sample.name
    return chunk


@contextmanager
def _fetched(piece: Piece) -> Iterator[Chunk]:
    """Give a list of files as a chunk; those of an object store are fetched at once."""
    if not is_remote(piece.place):
        yield Chunk(piece.name, list(piece.items))
        return
    with TemporaryDirectory(prefix="tagmask-") as folder:
        chunk = Chunk(piece.name)
        contents = Store(piece.place).get(item.path.as_posix() for item in piece.items)
        for number, item in enumerate(piece.items):
            content = contents[item.path.as_posix()]
            if isinstance(content, Exception):
                chunk.refused.append((item.name, f"{piece.place}/{item.path}: cannot be read ({first_line(content)})"))
                continue
            path = Path(folder) / f"{number:06d}{item.path.suffix}"
            path.write_bytes(content)
            chunk.items.append(Item(item.name, path, item.tags, item.context))
            chunk.shown[str(path)] = f"{piece.place}/{item.path}"
        yield chunk


def _tag_ids(cell: Any, classes: Sequence[str]) -> tuple[int, ...]:
    """Return the class indices of the tags in a cell.

    Raises:
        TagmaskError: there are none, or one is no class of the run.
    """
    tags, _ = read_tags(cell, classes)
    if cell is None:
        raise TagmaskError("has no tags; use `tagmask predict`, or add them")
    if strange := [tag for tag in tags if tag not in classes]:
        raise TagmaskError(f"tag {strange[0]!r} is no class of the run; its classes: {', '.join(classes)}")
    return tuple(sorted(classes.index(tag) for tag in tags))


def _checked(samples: Iterator[Sample], piece: Piece) -> Iterator[Sample]:
    """Refuse names that are no safe path, or that came before in the same file."""
    seen: set[str] = set()
    for sample in samples:
        fault = sample.fault or image_name_fault(sample.name)
        if not fault and sample.name in seen:
            fault = f"comes twice in {piece.place}; rename one of the two"
        seen.add(sample.name)
        name = piece.prefix + sample.name
        yield Sample(name, fault=f"{sample.name}: {fault}") if fault else replace(sample, name=name)


def count_samples(piece: Piece) -> int:
    """Count the images of a tar or parquet file; a tar is read through for that."""
    if piece.kind == "tar":
        return sum(1 for _ in _read_tar(piece))
    import pyarrow.parquet as pq

    store, name = of_file(piece.place)
    with store.open(name) as stream:
        return pq.ParquetFile(stream).metadata.num_rows


def _tar_samples(piece: Piece) -> Iterator[Sample]:
    return _checked(_read_tar(piece), piece)


def _read_tar(piece: Piece) -> Iterator[Sample]:
    """Read the samples of a WebDataset shard: consecutive files of one name up to its first dot are one sample.

    The image is the file whose ending is that of an image; tags stand in `.json`, in a key as columns are called, or
    in `.cls`.
    """
    store, name = of_file(piece.place)
    try:
        with store.open(name) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            members = ((member, archive.extractfile(member)) for member in archive if member.isfile())
            parts = ((sample_key(member.name), file.read()) for member, file in members if file is not None)
            for key, group in groupby(parts, lambda part: part[0][0]):
                files = {ending: content for (_, ending), content in group}
                yield _sample(key, files)
    except (tarfile.TarError, EOFError) as error:
        reason = f"damaged or cut short ({first_line(error)}); copy it again"
        yield Sample(f"{PurePosixPath(name).stem}-rest", fault=f"{piece.place}: {reason}")


def _sample(key: str, files: dict[str, bytes]) -> Sample:
    try:
        ending, (tags, _) = image_ending(files), tags_of_sample(files)
    except TagmaskError as error:
        return Sample(key, fault=str(error))
    return Sample(key, f".{ending}", files[ending], tags)


def _parquet_samples(piece: Piece, tagged: bool) -> Iterator[Sample]:
    return _checked(_read_parquet(piece, tagged), piece)


def _read_parquet(piece: Piece, tagged: bool) -> Iterator[Sample]:
    """Read the rows of a parquet file of images, or of paths of images beside it."""
    import pyarrow.parquet as pq

    store, name = of_file(piece.place)
    with store.open(name) as stream:
        try:
            file = pq.ParquetFile(stream)
            layout = schema_layout(file.schema_arrow, piece.place, tagged=tagged)
            columns = [layout.image, *([layout.tags] if tagged else [])]
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=ROWS, columns=columns))
            for number, row in enumerate(row for batch in batches for row in batch):
                yield _row_sample(row, layout, number, store)
        except (OSError, ValueError) as error:  # pyarrow's own errors are both
            raise TagmaskError(
                f"{piece.place}: is no whole parquet file ({first_line(error)}); copy it again"
            ) from error


def _row_sample(row: dict[str, Any], layout: Layout, number: int, store: Store) -> Sample:
    cell = row[layout.image]
    path = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    file = PurePosixPath(str(path or f"{number:08d}.png").replace("\\", "/"))
    name = file.with_suffix("").as_posix()
    if content is None:
        if path is None:
            return Sample(name, fault=f"row {number + 1} holds no image")
        if image_name_fault(name):
            return Sample(name, content=b"")  # refused by its name
        read = store.get([file.as_posix()])[file.as_posix()]
        if isinstance(read, Exception):
            return Sample(name, fault=f"{store.path(file.as_posix())}: cannot be read ({first_line(read)})")
        content = read
    tags = row.get(layout.tags)
    if tags is not None and layout.names is not None:
        try:
            tags = list(read_tags(tags, layout.names)[0])
        except TagmaskError as error:
            return Sample(name, fault=str(error))
    return Sample(name, file.suffix, content, tags)
