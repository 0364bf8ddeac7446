"""What a large labelling would take, from a few of its images."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tagmask.data.members import is_member
from tagmask.engine.fleet.sources import Piece, count_samples, open_chunks
from tagmask.engine.fleet.store import Store, is_remote, of_file
from tagmask.engine.fleet.work import Job
from tagmask.engine.inference import stream
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method

IMAGES = 16


@dataclass(frozen=True)
class Measured:
    """What a few images took on one core.

    Attributes:
        images: how many.
        seconds: of an image, from reading to its encoded mask.
        written: bytes of a mask.
    """

    images: int
    seconds: float
    written: float


def measure(job: Job, method: Method, piece: Piece) -> Measured:
    """Label the first images of a piece on one core; nothing is written.

    Raises:
        TagmaskError: none of them could be labelled.
    """
    few = replace(piece, items=piece.items[:IMAGES])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        chunks = open_chunks(few, IMAGES, job.classes, tagged=job.tagged, is_done=lambda _: False)
        began = time.perf_counter()
        chunk = next(chunks)
        reading = time.perf_counter() - began
        # The first image of all takes longer; it is labelled once more.
        for _ in stream(method, chunk.items[:1], job.config, source=job.source, on_error=chunk.refuse):
            pass
        began = time.perf_counter()
        predictions = stream(method, chunk.items, job.config, source=job.source, on_error=chunk.refuse)
        masks = [job.mask(prediction, None) for prediction in predictions]
        labelling = time.perf_counter() - began
        chunks.close()
    finally:
        torch.set_num_threads(threads)
    if not masks:
        reason = chunk.refused[0][1] if chunk.refused else "there are none"
        raise TagmaskError(f"{piece.name}: none of its first images can be labelled: {reason}")
    written = sum(len(mask.content) if isinstance(mask.content, bytes) else _length(mask.content) for mask in masks)
    return Measured(len(masks), (reading + labelling) / len(masks), written / len(masks))


def _length(codes: Sequence[tuple[int, str]]) -> int:
    return sum(len(code) for _, code in codes)


def count_images(pieces: Sequence[Piece]) -> tuple[int, int, bool]:
    """Return the images and bytes of the source, and whether every image was counted.

    Of tar and parquet files the first is counted, and the others by their bytes.
    """
    if pieces[0].kind == "files":
        images = sum(len(piece.items) for piece in pieces)
        if is_remote(pieces[0].place):
            there = Store(pieces[0].place).sizes()
            return images, sum(there.get(item.path.as_posix(), 0) for piece in pieces for item in piece.items), True
        return images, sum(_bytes_of(item.path) for piece in pieces for item in piece.items), True
    files = [of_file(piece.place) for piece in pieces]
    sizes = [store.size(name) for store, name in files]
    first = count_samples(pieces[0])
    return round(first * sum(sizes) / max(1, sizes[0])), sum(sizes), len(pieces) == 1


def _bytes_of(path: Path) -> int:
    """Return the length of an image's file, 0 where there is none; one inside an archive has it in its path."""
    if is_member(path):
        return int(path.parent.name.rpartition("+")[2])  # of `shards/00.tar/@1536+20480/cow.jpg`
    return os.path.getsize(path) if path.exists() else 0


def duration(hours: float) -> str:
    """Return a time for a person."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} hours"
