"""What a worker does: a piece of the source to output shards, in one go or in three steps on different processors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tagmask.data.images import limit_pixels
from tagmask.data.members import is_member, read_member
from tagmask.data.rasters import georeference
from tagmask.engine.fleet.shards import Mask, Sink, make_mask, manifest_name, read_manifests, write_shard
from tagmask.engine.fleet.sources import Chunk, Piece, open_chunks
from tagmask.engine.fleet.store import Store
from tagmask.engine.inference import (
    BATCH,
    WINDOW,
    Item,
    Prediction,
    Source,
    apart,
    group_scores,
    large_predictions,
    same_size,
    stream,
    to_label_map,
)
from tagmask.engine.photographs import Photograph, open_ahead
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig


@dataclass(frozen=True)
class Job:
    """All that a worker has to know but the model.

    Attributes:
        config: of the inference.
        source: what masks are read off.
        classes: of the run.
        background: whether label 0 exists.
        tagged: whether only an image's own tags and background can win.
        output: folder or address.
        sink: what is written there.
        shard_size: images of an output shard, a multiple of `WINDOW`.
        max_pixels: of an image.
    """

    config: InferenceConfig
    source: Source
    classes: tuple[str, ...]
    background: bool
    tagged: bool
    output: str
    sink: Sink
    shard_size: int
    max_pixels: int

    def chunks(self, piece: Piece) -> Iterator[Chunk]:
        """Give the chunks of a piece, without images where their shards were written before."""
        limit_pixels(self.max_pixels)
        store = Store(self.output)
        return open_chunks(
            piece,
            self.shard_size,
            self.classes,
            tagged=self.tagged,
            is_done=lambda shard: store.has(manifest_name(shard)),
        )

    def mask(self, prediction: Prediction, place: str | None) -> Mask:
        """Encode a prediction."""
        return make_mask(prediction.item.name, prediction.labels, prediction.confidence, self.sink, place)

    def write(self, chunk: Chunk, masks: list[Mask]) -> dict[str, Any]:
        """Write a chunk's masks, in the order of its images; return what the driver wants to know of it."""
        if chunk.done:
            manifest = read_manifests(Store(self.output), [chunk.shard])[chunk.shard]
        else:
            refused = sorted(chunk.refused)
            order = {item.name: number for number, item in enumerate(chunk.items)}
            masks = sorted(masks, key=lambda mask: order[mask.name])
            manifest = write_shard(Store(self.output), self.sink, chunk.shard, masks, refused, last=chunk.last)
        return {"shard": chunk.shard, "images": manifest["images"], "refused": len(manifest["refused"])}


def place_on_map(job: Job, item: Item) -> str | None:
    """Return the text of the file that lies beside a PNG mask, where the image says where on the map it lies."""
    return georeference(item.path) if job.sink == "png" else None


def label_piece(job: Job, method: Method, piece: Piece) -> Iterator[dict[str, Any]]:
    """Label a piece from files to shards: all that a worker without help does."""
    for chunk in job.chunks(piece):
        predictions = stream(method, chunk.items, job.config, source=job.source, on_error=chunk.refuse)
        masks = [job.mask(prediction, place_on_map(job, prediction.item)) for prediction in predictions]
        yield job.write(chunk, masks)


@dataclass
class Opened:
    """A chunk on its way from one processor to the next.

    Attributes:
        chunk: whose files are no longer there.
        photographs: what goes through the network, a list a forward.
        large: images that are labelled in tiles: their files' contents.
        places: on the map, by name.
        scored: the network's scores beside what the refinement looks at.
        masks: those that are done.
    """

    chunk: Chunk
    photographs: list[list[tuple[Item, Photograph]]] = field(default_factory=list)
    large: list[tuple[Item, bytes]] = field(default_factory=list)
    places: dict[str, str | None] = field(default_factory=dict)
    scored: list[tuple[Item, Photograph, Tensor]] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)


def open_piece(job: Job, piece: Piece) -> Iterator[Opened]:
    """Read and decode: the first of three steps, for any CPU."""
    for chunk in job.chunks(piece):
        opened = Opened(chunk)
        for start in range(0, len(chunk.items), WINDOW):
            whole, large = apart(chunk.items[start : start + WINDOW], job.config, job.source)
            photographs = open_ahead((item.path for item in whole), job.config, most=4 * BATCH)
            groups = same_size(whole, photographs, BATCH, chunk.refuse)
            opened.photographs += groups
            opened.large += [(item, _content(item.path)) for item in large]
        kept = [item for group in opened.photographs for item, _ in group] + [item for item, _ in opened.large]
        opened.places = {item.name: place for item in kept if (place := place_on_map(job, item)) is not None}
        yield opened


def _content(path: Path) -> bytes:
    """Read an image's file, in a folder or inside an archive."""
    return read_member(path) if is_member(path) else path.read_bytes()


@torch.inference_mode()
def score_opened(job: Job, method: Method, opened: Opened) -> Opened:
    """Send photographs through the network: the second step, for whoever holds the model."""
    nothing = torch.zeros(0, dtype=torch.uint8)
    for group in opened.photographs:
        for (item, photograph), scores in zip(group, group_scores(method, group, job.config, job.source), strict=True):
            opened.scored.append((item, replace(photograph, pixels=nothing), scores.cpu().clone()))
    opened.photographs = []
    with TemporaryDirectory(prefix="tagmask-") as folder:
        items = []
        for number, (item, content) in enumerate(opened.large):
            path = Path(folder, f"{number}{item.path.suffix}")
            path.write_bytes(content)
            opened.chunk.shown[str(path)] = opened.chunk.shown.get(str(item.path), str(item.path))
            items.append(replace(item, path=path))
        for prediction in large_predictions(method, items, job.config, BATCH, opened.chunk.refuse):
            opened.masks.append(job.mask(prediction, opened.places.get(prediction.item.name)))
    opened.large = []
    return opened


@torch.inference_mode()
def finish_opened(job: Job, opened: Opened) -> dict[str, Any]:
    """Refine, enlarge, encode and write: the third step, for any CPU."""
    for item, photograph, scores in opened.scored:
        labels, confidence = to_label_map(scores, item.tags, photograph, job.config, job.source, job.background)
        opened.masks.append(make_mask(item.name, labels, confidence, job.sink, opened.places.get(item.name)))
    return job.write(opened.chunk, opened.masks)


def packed(value: Any) -> bytes:
    """Turn what one worker hands to the next into bytes."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def unpacked(content: bytes) -> Any:
    """Turn back what `packed` made, in a worker of the same run; no file is ever read so."""
    return pickle.loads(content)
