"""The output of a large labelling as a whole: what it is for, how far it is, and the tables at its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tagmask.data.confidence import CONFIDENCE, MaskRow, confidence_text
from tagmask.data.csv_cells import csv_text
from tagmask.data.files import classes_text
from tagmask.data.ledger import LEDGER, ledger_text
from tagmask.engine.fleet.shards import JOB, read_manifests
from tagmask.engine.fleet.sources import Piece
from tagmask.engine.fleet.store import Store
from tagmask.engine.fleet.work import Job
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.label_ids import IGNORE

SKIPPED = "skipped.csv"
Manifests = dict[str, dict[str, Any]]


def begin_or_resume(store: Store, job: Job, method: Method, pieces: Sequence[Piece]) -> Manifests:
    """Begin an output, or take up that of the same work; return the manifests of what is done.

    Raises:
        TagmaskError: the output holds something else.
    """
    description = _description(job, method, pieces)
    if not store.has(JOB):
        there = [name for name in store.sizes() if not name.startswith(".tagmask")]
        if there and there != ["classes.txt"]:  # which is written first
            raise TagmaskError(f"{store.place}: holds {there[0]}, not written by --engine ray; choose another output")
        store.put("classes.txt", classes_text(job.classes).encode())
        store.put(JOB, (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode())
        return {}
    [content] = store.get([JOB]).values()
    before = json.loads(content) if isinstance(content, bytes) else {}
    if changed := [key for key, value in description.items() if before.get(key) != value]:
        raise TagmaskError(
            f"{store.path(JOB)}: masks of other work were begun here, with another {', '.join(changed)}; choose "
            "another output, or give the same run, source and options"
        )
    return read_manifests(store)


def _description(job: Job, method: Method, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return what must be the same for a run to go on where another stopped."""
    weights = hashlib.sha256()
    for name, value in sorted(method.state_dict().items()):
        weights.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    listed = hashlib.sha256()
    for piece in pieces:
        shown = [[item.name, item.path.as_posix(), item.tags, item.context] for item in piece.items]
        listed.update(json.dumps([piece.name, piece.kind, piece.place, shown]).encode())
    return {
        "model": weights.hexdigest(),
        "classes": list(job.classes),
        "inference": job.config.model_dump(mode="json"),
        "source": job.source,
        "tagged": job.tagged,
        "sink": job.sink,
        "shard_size": job.shard_size,
        "images": listed.hexdigest(),
    }


def is_whole(piece: Piece, done: Manifests) -> bool:
    """Say whether all shards of a piece are written."""
    if piece.kind == "files":
        return piece.name in done
    number = 0
    while (manifest := done.get(f"{piece.name}-{number:05d}")) and not manifest["last"]:
        number += 1
    return manifest is not None


def write_tables(store: Store, job: Job, done: Manifests) -> tuple[int, list[str], bool]:
    """Write what was skipped, and beside PNG masks the tables that `predict` leaves there, too.

    Returns:
        how many masks there are, what is wrong with each image that was left out, and whether the masks, where they are
        PNG, hold not a pixel of any class.
    """
    manifests = [done[name] for name in sorted(done)]
    refused = [tuple(pair) for manifest in manifests for pair in manifest["refused"]]
    store.put(SKIPPED, csv_text([("image", "error"), *refused]).encode())
    plain = False
    if job.sink == "png":
        masks = [mask for manifest in manifests for mask in manifest["masks"]]
        rows = [
            MaskRow(name, confidence, tuple(job.classes[label - 1] for label in ids if label not in (0, IGNORE)))
            for name, _, confidence, ids in masks
        ]
        store.put(LEDGER, ledger_text((f"{name}.png", own) for name, own, _, _ in masks).encode())
        store.put(CONFIDENCE, confidence_text(rows).encode())
        plain = bool(rows) and not any(row.classes for row in rows)
    return sum(manifest["images"] for manifest in manifests), [reason for _, reason in refused], plain
