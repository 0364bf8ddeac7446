"""A table of a million rows: seconds and memory of reading it, of a training's start, and of drawing its batches.

    make bench NAME=large_sets [ARGS="--rows 1000000 --classes 254"]

The images are hard links to sixteen or more small JPEGs, in folders of 10,000; making them is counted apart. What is
measured is `tagmask train` up to its first step, in a process of its own: reading the table; splits, checks, class
counts, digests, run folder and network; the first batch and those after it, from the real loader. The seconds of the
processor are those of the main process. All classes of the table are learnt.

Further, some images are read from a folder with a table and from tar shards, and drawn by the same loader.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import device_facts, write_results
from PIL import Image

PARTS = ("read", "start", "first_batch", "batches")
LINKS = 60_000  # of one file; ext4 allows 65,000
A_FOLDER = 10_000
SHARD = 1_000  # images of a tar
RECIPE = "cam/default"
SMALL = ("backbone.weights=null", "views.crop=32", "views.resize_long=[32,48]", "inference.size=32")


class Measured(BaseException):
    """Ends a training in place of its first step."""


def measure(data: str, batches: int, batch: int, workers: int) -> None:
    """Start `tagmask train` and print seconds and memory of its parts; it ends in place of the first step."""
    import tagmask
    from tagmask.data.splits import open_data
    from tagmask.engine import loop

    training = importlib.import_module("tagmask.api.train")
    found: dict[str, Any] = {"imported": {"peak_gib": peak_gib()}}
    clocks = time.perf_counter(), time.process_time()

    def note(part: str) -> None:
        nonlocal clocks
        now = time.perf_counter(), time.process_time()
        wall, processor = (round(after - before, 2) for before, after in zip(clocks, now, strict=True))
        found[part] = {"wall_s": wall, "processor_s": processor, "peak_gib": peak_gib()}
        clocks = now

    def read(*given: Any) -> Any:
        dataset = open_data(*given)
        found["records"] = len(dataset)
        note("read")
        return dataset

    def draw(*given: Any, **named: Any) -> Any:
        note("start")
        drawn = iter(make_loader(*given, **named))
        next(drawn)
        note("first_batch")
        for _ in range(batches - 1):
            next(drawn)
        note("batches")
        found["workers_private_gib"] = private_gib()
        print(json.dumps(found))
        raise Measured

    make_loader, loop.training_loader, training.open_data = loop.training_loader, draw, read  # pyright: ignore
    settings = (*SMALL, f"training.batch={batch}", f"training.steps={batches + 100}", f"training.workers={workers}")
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(Measured):
        tagmask.train(data, recipe=RECIPE, output=f"{name}/run", overrides=settings)


def peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def private_gib() -> float:
    """What the loader processes have in memory that the main one has not, together."""
    import multiprocessing

    kilobytes = 0
    for process in multiprocessing.active_children():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return round(kilobytes / 2**20, 3)


def measured(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Call `measure` in a process of its own."""
    words = [sys.executable, __file__, "--measure", data, options.batches, options.batch, options.workers]
    printed = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout.splitlines()
    found = json.loads(printed[-1])
    for clock in ("wall_s", "processor_s"):
        found[f"total_{clock}"] = round(sum(found[part][clock] for part in PARTS), 2)
    return found


def make_set(folder: Path, rows: int, classes: int) -> None:
    random = np.random.default_rng(0)
    originals = [folder / f"original{number}.jpg" for number in range(-(-rows // LINKS) + 15)]
    for path in originals:
        Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    drawn = random.integers(0, classes, (rows, 3))
    (folder / "classes.txt").write_text("".join(f"{class_name(number)}\n" for number in range(classes)))
    with (folder / "tags.csv").open("w") as table:
        table.write("image,tags,split\n")
        for row in range(rows):
            name = f"{row // A_FOLDER:04}/{row:07}.jpg"
            if row % A_FOLDER == 0:
                (folder / "images" / name).parent.mkdir(parents=True)
            os.link(originals[row % len(originals)], folder / "images" / name)
            given = ";".join(map(class_name, sorted(set(drawn[row]))))
            table.write(f"{name},{given},{'val' if row % 100 == 0 else 'train'}\n")


def class_name(number: int) -> str:
    return f"class{number}"


def make_shards(folder: Path, contents: list[bytes], images: int, *, files: bool) -> None:
    """Write images as tar shards, and as files with a table too, if `files`; of two tags in turn."""
    (folder / "shards").mkdir(parents=True)
    (folder / "files" / "images").mkdir(parents=True)
    rows = ["image,tags\n"]
    for start in range(0, images, SHARD):
        with tarfile.open(folder / "shards" / f"{start // SHARD:05}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(start, min(start + SHARD, images)):
                name, content, tag = f"{number:07}", contents[number % len(contents)], class_name(number % 2)
                tags = json.dumps({"tags": [tag]}).encode()
                for ending, own in (("jpg", content), ("json", tags)):
                    member = tarfile.TarInfo(f"{name}.{ending}")
                    member.size = len(own)
                    archive.addfile(member, io.BytesIO(own))
                if files:
                    (folder / "files" / "images" / f"{name}.jpg").write_bytes(content)
                    rows.append(f"{name}.jpg,{tag}\n")
    (folder / "files" / "tags.csv").write_text("".join(rows))


def jpeg(random: np.random.Generator, width: int, height: int) -> bytes:
    """A smooth picture with some noise, of about as many bytes as a photograph of its size."""
    small = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    noise = random.integers(-12, 13, (height, width, 3))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) + noise
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def forget(folder: Path) -> None:
    """Have the system drop the files below a folder from its memory, so that they are read from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare_shards(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Draw the same images from files and from shards, from the disk and from memory; and list many small shards.

    The loader works in this process, so that the seconds of the processor are those of reading and decoding.
    """
    from tagmask.data.readers import read_dataset
    from tagmask.data.views import BatchPositions, TrainingViews, training_loader
    from tagmask.recipes.load import ViewsConfig

    random = np.random.default_rng(1)
    contents = [jpeg(random, 500, 375) for _ in range(16)]
    make_shards(folder / "large", contents, options.images, files=True)
    found: dict[str, Any] = {"bytes_an_image": round(sum(map(len, contents)) / len(contents))}
    steps = options.images // options.batch
    for state in ("disk", "memory", "memory_again"):
        for source in ("files", "shards"):
            if state == "disk":
                forget(folder / "large" / source)
            views = TrainingViews(read_dataset(folder / "large" / source), ViewsConfig(crop=224), 0)
            loader = training_loader(views, BatchPositions(options.batch, 0, steps), 0)
            wall, processor = time.perf_counter(), time.process_time()
            sums = [int(batch.images.sum()) for batch in loader]
            found[f"{source}_from_{state}"] = {
                "images_per_s": round(steps * options.batch / (time.perf_counter() - wall), 1),
                "images_per_processor_s": round(steps * options.batch / (time.process_time() - processor), 1),
            }
            assert found.setdefault("checksum", sum(sums)) == sum(sums), "the same pixels"
    make_shards(folder / "many", [jpeg(random, 48, 48)], options.listed, files=False)
    wall, processor = time.perf_counter(), time.process_time()
    assert len(read_dataset(folder / "many" / "shards")) == options.listed
    found["listed_wall_s"] = round(time.perf_counter() - wall, 2)
    found["listed_processor_s"] = round(time.process_time() - processor, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, nargs="+", default=[254, 1000], help="a table each")
    parser.add_argument("--batches", type=int, default=100, help="drawn from the loader")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="processes of the loader")
    parser.add_argument("--images", type=int, default=2_000, help="of 500 x 375, in files and in shards; 0: none")
    parser.add_argument("--listed", type=int, default=100_000, help="small images in shards")
    options = parser.parse_args()
    results: dict[str, Any] = device_facts() | {"options": vars(options)}
    for classes in options.classes:
        with tempfile.TemporaryDirectory() as name:
            make_set(Path(name), options.rows, classes)
            results[f"classes_{classes}"] = measured(Path(name) / "tags.csv", options)
            print(classes, results[f"classes_{classes}"], flush=True)
    if options.images:
        with tempfile.TemporaryDirectory() as name:
            results["shards"] = compare_shards(Path(name), options)
    write_results("large_sets", results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
