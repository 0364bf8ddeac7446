"""What a large labelling writes: PNG files, or shards of many masks; beside them a manifest says what is done."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tagmask.data.label_maps import encode_label_map
from tagmask.data.masks import encode_runs
from tagmask.engine.fleet.store import Store

Sink = Literal["png", "tar", "parquet"]
SINKS: tuple[Sink, ...] = get_args(Sink)
MANIFESTS = "manifests"
JOB = "job.json"


@dataclass(frozen=True)
class Mask:
    """One image's result as it is written.

    Attributes:
        name: of the image.
        size: height and width.
        content: the PNG file; for parquet, label ids and run-length codes.
        labels: the ids in the mask, sorted.
        confidence: as in `confidence.csv`.
        place: where the image lies on the map, where it says so and the sink has room for it.
    """

    name: str
    size: tuple[int, int]
    content: Any
    labels: tuple[int, ...]
    confidence: float
    place: str | None = None


def make_mask(name: str, labels: np.ndarray, confidence: float, sink: Sink, place: str | None = None) -> Mask:
    """Encode a label map, (H, W), as `sink` wants it."""
    content = encode_runs(labels) if sink == "parquet" else encode_label_map(labels)
    return Mask(name, labels.shape, content, tuple(int(label) for label in np.unique(labels)), confidence, place)


def write_shard(
    store: Store, sink: Sink, shard: str, masks: Sequence[Mask], refused: Sequence[tuple[str, str]], *, last: bool
) -> dict[str, Any]:
    """Write a shard, then its manifest, and return the manifest.

    A shard without manifest is not done. What is written depends on the images alone: whoever writes it again, after a
    kill or because two machines were given the same work, writes the same bytes to the same place.

    Args:
        store: of the output.
        sink: `png` (a file a mask), `tar` (WebDataset: NAME.png and NAME.json), or `parquet` (COCO run-length codes).
        shard: its name; masks of `png` bear their own.
        masks: in the order of the images.
        refused: image and reason of those that are not labelled.
        last: whether no shard of the same piece follows.
    """
    manifest: dict[str, Any] = {"shard": shard, "images": len(masks), "refused": list(refused), "last": last}
    if sink == "png":
        for mask in masks:
            store.put(f"{mask.name}.png", mask.content)
            if mask.place is not None:
                store.put(f"{mask.name}.png.aux.xml", mask.place.encode())
        manifest["masks"] = [
            [mask.name, hashlib.sha256(mask.content).hexdigest(), mask.confidence, mask.labels] for mask in masks
        ]
    else:
        content = _tar(masks) if sink == "tar" else _parquet(masks)
        store.put(f"{shard}.{sink}", content)
        manifest |= {"file": f"{shard}.{sink}", "sha256": hashlib.sha256(content).hexdigest()}
    store.put(manifest_name(shard), (json.dumps(manifest, ensure_ascii=False) + "\n").encode())
    return manifest


def manifest_name(shard: str) -> str:
    """Return the name of a shard's manifest."""
    return f"{MANIFESTS}/{shard}.json"


def read_manifests(store: Store, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Read the manifests, by default all, by the names of their shards."""
    found = store.sizes(MANIFESTS) if names is None else map(manifest_name, names)
    contents = store.get(name for name in found if name.endswith(".json"))
    read = [json.loads(content) for content in contents.values() if isinstance(content, bytes)]
    return {manifest["shard"]: manifest for manifest in read}


def _tar(masks: Sequence[Mask]) -> bytes:
    """Pack masks as WebDataset does; without times and owners, so that equal masks give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for mask in masks:
            folder, slash, name = mask.name.rpartition("/")
            key = folder + slash + name.replace(".", "%2E")  # readers take what follows the first dot for the ending
            said = {"image": mask.name, "confidence": round(mask.confidence, 4), "labels": mask.labels}
            for ending, content in (("png", mask.content), ("json", json.dumps(said, ensure_ascii=False).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _parquet(masks: Sequence[Mask]) -> bytes:
    """Make a table with a row a mask: what is of no label listed is background."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "image": pa.array([mask.name for mask in masks], pa.string()),
        "height": pa.array([mask.size[0] for mask in masks], pa.int32()),
        "width": pa.array([mask.size[1] for mask in masks], pa.int32()),
        "confidence": pa.array([round(mask.confidence, 4) for mask in masks], pa.float64()),
        "labels": pa.array([[label for label, _ in mask.content] for mask in masks], pa.list_(pa.int32())),
        "counts": pa.array([[code for _, code in mask.content] for mask in masks], pa.list_(pa.string())),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()
