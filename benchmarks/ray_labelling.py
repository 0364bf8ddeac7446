"""Labelling by many workers: what the engine costs over the plain path, how it scales, and many images in one run.

    python benchmarks/ray_labelling.py [--parts overhead many] [--images 1536] [--many 100000]

`overhead`: one folder by `predict` and by two workers of one core each, then by one of them;
`many`: shards of WebDataset with small images to parquet in one run, by a tiny network. Rates leave out the start of
Ray and of the workers, whose seconds are told apart. Parts that are not asked for keep their rows.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.common import RESULTS, device_facts, write_results
from benchmarks.ray_kills import below, make_world

SHARD = 128
VIT = (
    "backbone.options={img_size: 112, patch_size: 16, embed_dim: 192, depth: 12, num_heads: 3}",
    "inference.size=112",
)
PER_TAR = 1000


def plain(run: Path, photos: Path, output: Path) -> dict[str, float]:
    """Label by the plain path in this process, with as many threads as there are cores."""
    import torch

    from tagmask import api

    torch.set_num_threads(os.cpu_count() or 1)
    began, cpu = time.perf_counter(), time.process_time()
    images = api.predict(run, photos, output=output).images
    return {
        "images_per_second": images / (time.perf_counter() - began),
        "cpu_seconds_per_image": (time.process_time() - cpu) / images,
    }


def family_cpu() -> float:
    """Return the CPU seconds of this process and all that it started, which Ray's processes are."""
    ticks = 0
    for process in (os.getpid(), *below(os.getpid())):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Notes time and CPU seconds whenever another shard is done."""

    def __init__(self, output: Path) -> None:
        super().__init__(daemon=True)
        self.output, self.ended = output, threading.Event()
        self.seen: list[tuple[int, float, float]] = []

    def run(self) -> None:
        while not self.ended.wait(0.2):
            done = len(list(self.output.glob("manifests/**/*.json")))
            if done and (not self.seen or done > self.seen[-1][0]):
                self.seen.append((done, time.perf_counter(), family_cpu()))


def by_ray(
    run: Path, source: Path, output: Path, workers: int, sink: str = "png", shard: int = SHARD, pause: int = 2
) -> dict[str, Any]:
    """Label by so many workers of one core; rates are of the time after the first `pause` shards of each worker."""
    import ray

    from tagmask.api.fleet import Fleet, label_fleet

    began = time.perf_counter()
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=40)
    fleet = Fleet(gpus=0, sink=sink, shard_size=shard)  # pyright: ignore[reportArgumentType]
    watch = Watch(output)
    watch.start()
    written = label_fleet(run, source, output=output, fleet=fleet, tagged=False)
    whole = time.perf_counter() - began
    watch.ended.set()
    watch.join()
    ray.shutdown()
    done, since, cpu = next(seen for seen in watch.seen if seen[0] >= pause * workers)
    last, until, until_cpu = watch.seen[-1]
    images = (last - done) * shard
    return {
        **{"workers": workers, "images": written.images, "skipped": len(written.skipped), "seconds_with_start": whole},
        "seconds_to_first_shard": watch.seen[0][1] - began,
        "images_per_second": images / (until - since),
        "cpu_seconds_per_image": (until_cpu - cpu) / images,
    }


def same(first: Path, second: Path) -> bool:
    masks = {path.relative_to(first): path.read_bytes() for path in first.rglob("*.png")}
    return bool(masks) and masks == {path.relative_to(second): path.read_bytes() for path in second.rglob("*.png")}


def overhead(base: Path, images: int, repeats: int = 2) -> dict[str, Any]:
    """Time both paths in turn on a ViT-Tiny at 112."""
    run, photos = make_world(base / "overhead", images, *VIT)
    rows = []
    for number in range(repeats):
        own = plain(run, photos, base / f"plain{number}")
        rows.append({"plain": own, "ray": by_ray(run, photos, base / f"ray{number}", 2)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)

    def median(path: str, key: str) -> float:
        return statistics.median(row[path][key] for row in rows)

    fine = all(same(base / f"plain{number}", base / f"ray{number}") for number in range(repeats))
    alone = by_ray(run, photos, base / "alone", 1)
    return {
        "overhead": {
            **{"network": "ViT-Tiny at 112", "images": images, "rows": rows, "masks_byte_identical": fine},
            "of_wall": median("plain", "images_per_second") / median("ray", "images_per_second") - 1,
            "of_cpu": median("ray", "cpu_seconds_per_image") / median("plain", "cpu_seconds_per_image") - 1,
        },
        "scaling": {
            "one_worker": alone,
            "two_workers_images_per_second": median("ray", "images_per_second"),
            "factor": median("ray", "images_per_second") / alone["images_per_second"],
        },
    }


def make_tars(photos: Path, folder: Path, images: int) -> None:
    """Write WebDataset shards of so many JPEG-sized images, the given ones over and over, each under its own name."""
    folder.mkdir()
    given = [path.read_bytes() for path in sorted(photos.iterdir())]
    for start in range(0, images, PER_TAR):
        with tarfile.open(folder / f"{start // PER_TAR:05d}.tar", "w") as archive:
            for number in range(start, min(images, start + PER_TAR)):
                content = given[number % len(given)]
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def many(base: Path, images: int) -> dict[str, Any]:
    """Label many small images from tar shards to parquet, and count what came out."""
    import pyarrow.parquet as pq

    run, photos = make_world(base / "many", 1000)
    make_tars(photos, base / "tars", images)
    output = base / "out"
    row = by_ray(run, base / "tars", output, 2, "parquet", 4 * SHARD)
    names = [
        name
        for path in output.rglob("*.parquet")
        for name in pq.read_table(path, columns=["image"])["image"].to_pylist()
    ]
    with (output / "skipped.csv").open() as file:
        names += [own["image"] for own in csv.DictReader(file)]
    size = sum(path.stat().st_size for path in output.rglob("*.parquet"))
    return {
        "many": {
            **{
                "network": "a ViT of three blocks of 48 at 64",
                "given": images,
                **row,
                "lost": images - len(set(names)),
            },
            **{"doubled": len(names) - len(set(names)), "shards": len(list(output.rglob("*.parquet")))},
            "bytes_per_mask_parquet": size / row["images"],
            "bytes_per_manifest": sum(path.stat().st_size for path in output.glob("manifests/**/*.json"))
            / len(list(output.rglob("*.parquet"))),
        }
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["overhead", "many"], choices=["overhead", "many"])
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--many", type=int, default=100_000)
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # on a busy machine
    kept = RESULTS / "ray_labelling.json"
    values: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    with tempfile.TemporaryDirectory(prefix="tagmask-ray-") as temporary:
        base = Path(temporary)
        if "overhead" in arguments.parts:
            values |= overhead(base, arguments.images)
        if "many" in arguments.parts:
            values |= many(base, arguments.many)
    write_results("ray_labelling", {"benchmark": "ray_labelling", **device_facts(), **values})


if __name__ == "__main__":
    main()
