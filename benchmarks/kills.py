"""Kill every verb at random moments, start it again, and compare: what ends is byte for byte what no kill disturbed.

    python benchmarks/kills.py --kills 200 [--seed 0] [--verbs train predict]

Each verb is first run undisturbed. Then it is killed (SIGKILL) after a random part of that time and started again,
until the kills are used up and it ends. Compared are its masks, models, exports and tables; files of the user's that
lie beside them must be untouched, and no temporary file or lock may be left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import device_facts, write_results

TIMED = ("events", "metrics.jsonl", "stages.json", "done.json", "report.html")
"""Names in a run folder that hold times, which differ from one run to the next."""
NOTE = "mine.txt"
TINY = (
    *("backbone.name=vit_tiny_patch16_224", "backbone.weights=null", "backbone.stem=patch"),
    "backbone.options={img_size: 32, patch_size: 8, embed_dim: 12, depth: 3, num_heads: 2}",
    *("views.crop=32", "views.scale=[0.7, 1.3]", "inference.size=32", "inference.scales=[1.0]"),
    *("training.steps=40", "training.batch=4", "training.workers=0", "training.checkpoint_every=5"),
    *("training.log_every=5", "training.precision=32-true", "optimizer.warmup=2"),
)


def settings(*more: str) -> list[str]:
    return [argument for text in (*TINY, *more) for argument in ("--set", text)]


STAGED = settings(
    *("method.scales=[1.0]", "segmenter.training.steps=20", "segmenter.training.checkpoint_every=5"),
    *("segmenter.training.batch=4", "segmenter.training.workers=0", "segmenter.training.precision=32-true"),
    *("refine.name=none", "refine.background_score=0.4"),
)
VERBS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "data make": lambda base, out: ["data", "make", "cooccur", "-o", out, "--images", "60", "--size", "48"],
    "train": lambda base, out: ["train", base / "data", "-r", "cam/demo", "-o", out, *settings("method.scales=[1.0]")],
    "train in stages": lambda base, out: ["train", base / "data", "-r", "cam/demo", "-o", out, *STAGED],
    "label": lambda base, out: ["label", base / "run", base / "data", "-o", out],
    "predict": lambda base, out: ["predict", base / "run", base / "data" / "images", "-o", out],
    "save cams": lambda base, out: [
        *("label", base / "run", base / "data", "-o", out / "masks", "--source", "cam", "--save-cams", out / "cams")
    ],
    "refine": lambda base, out: ["refine", base / "cams", base / "data", "-o", out, "--with", "crf"],
    "export coco": lambda base, out: [
        "export",
        "masks",
        base / "masks",
        "-f",
        "coco",
        "-o",
        out,
        "-i",
        base / "data/images",
    ],
    "export voc": lambda base, out: [
        "export",
        "masks",
        base / "masks",
        "-f",
        "voc",
        "-o",
        out,
        "-i",
        base / "data/images",
    ],
}
"""Command lines by verb, of a folder of what is given and of the output."""
REPLACING = ("data make", "export coco", "export voc")
"""Verbs that replace their output as a whole, so that nothing of the user's can lie in it."""


def command(arguments: list[Any]) -> list[str]:
    return [sys.executable, "-m", "tagmask", *map(str, arguments)]


def run(arguments: list[Any]) -> float:
    begin = time.monotonic()
    done = subprocess.run(command(arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stderr[-2000:]}")
    return time.monotonic() - begin


def hashes(folder: Path) -> dict[str, str]:
    """Return the content of every file below a folder by name, but for those that hold times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    named = {
        path.relative_to(folder).as_posix(): path
        for path in files
        if not set(path.relative_to(folder).parts) & set(TIMED)
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named.items()}


def prepare(base: Path) -> None:
    """Make what the verbs work on: a set, a run of it, its masks and CAMs."""
    run(["data", "make", "cooccur", "-o", base / "data", "--images", "40", "--size", "48", "--classes", "3"])
    run(
        [
            "train",
            base / "data",
            "-r",
            "cam/demo",
            "-o",
            base / "run",
            *settings("method.scales=[1.0]", "training.steps=4", "method.decoder_from=0"),
        ]
    )
    run(["predict", base / "run", base / "data" / "images", "-o", base / "masks"])
    run(["label", base / "run", base / "data", "-o", base / "other", "--source", "cam", "--save-cams", base / "cams"])


def kill_verb(verb: str, base: Path, kills: int, random_: random.Random) -> dict[str, Any]:
    """Run a verb undisturbed, then with kills; return how many hit, and what was wrong."""
    undisturbed, disturbed = base / f"{verb}-whole", base / f"{verb}-killed" / "out"
    seconds = run(VERBS[verb](base, undisturbed))
    given = hashes(base / "data") | hashes(base / "run")
    hit, faults = 0, []
    note = disturbed / NOTE if verb not in REPLACING and not verb.startswith("train") else disturbed.parent / NOTE
    while hit < kills:
        shutil.rmtree(disturbed.parent, ignore_errors=True)
        note.parent.mkdir(parents=True)
        note.write_text("mine")
        if verb in REPLACING and random_.random() < 0.5:
            run(VERBS[verb](base, disturbed))  # so that there is an earlier one to replace
        # The same output is killed up to five times before it may end.
        for _ in range(min(5, kills - hit)):
            process = subprocess.Popen(
                command(VERBS[verb](base, disturbed)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                # Most of the time a command only imports; the kills are to fall where it writes.
                process.wait(timeout=seconds * random_.uniform(0.3, 1.05))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                hit += 1
            process.wait()
            if process.returncode not in (0, -signal.SIGKILL):
                faults.append(f"a start after {hit} kills ended with status {process.returncode}")
                break
        done = subprocess.run(command(VERBS[verb](base, disturbed)), capture_output=True, text=True, check=False)
        if done.returncode:
            faults.append(done.stderr.strip().splitlines()[-1])
            continue
        found = {name: own for name, own in hashes(disturbed).items() if name != NOTE}
        if found != hashes(undisturbed):
            other = {
                name for name in {*found, *hashes(undisturbed)} if found.get(name) != hashes(undisturbed).get(name)
            }
            faults.append(f"other bytes in {', '.join(sorted(other)[:3])}")
        if not note.is_file() or note.read_text() != "mine":
            faults.append(f"{note} was touched")
        left = [path.name for path in disturbed.parent.rglob("*") if path.name.startswith(".tagmask")]
        faults += [f"left: {name}" for name in left[:3]]
    if hashes(base / "data") | hashes(base / "run") != given:
        faults.append("what was given was changed")
    return {"kills": hit, "seconds_undisturbed": round(seconds, 1), "faults": faults}


def measure(kills: int, seed: int, verbs: list[str]) -> dict[str, dict[str, Any]]:
    random_ = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="tagmask-kills-") as temporary:
        base = Path(temporary)
        prepare(base)
        results = {}
        for position, verb in enumerate(verbs):
            own = kills // len(verbs) + (position < kills % len(verbs))
            results[verb] = kill_verb(verb, base, own, random_)
            print(f"{verb}: {results[verb]}", file=sys.stderr)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all verbs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", default=list(VERBS), choices=list(VERBS))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = measure(arguments.kills, arguments.seed, arguments.verbs)
    values = {
        "benchmark": "kills",
        **device_facts(),
        "seed": arguments.seed,
        "kills": sum(result["kills"] for result in results.values()),
        "faults": sum(len(result["faults"]) for result in results.values()),
        "verbs": results,
    }
    write_results("kills", values)


if __name__ == "__main__":
    main()
