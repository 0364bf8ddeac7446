"""Kill labelling by many workers at random moments, start it again, and compare: no image is lost or comes twice.

    python benchmarks/ray_kills.py --kills 20 [--seed 0] [--images 640]

Killed (SIGKILL) are in turn the driver, a worker that holds the model, and the raylet, which is what is left of a node
where it fails; at the moment when a random number of shards is done and a random part of a second has passed. After two
to four kills of an output the same command is left to end, and its masks, tables and shards are compared, byte for
byte, with those of the plain path or of an undisturbed run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.common import device_facts, write_results
from benchmarks.kills import import_all, must_run, run, start

VICTIMS = ("driver", "worker", "raylet")
SHARD = 128
WAIT = 600.0  # seconds for a command to end by itself after a kill; then it counts as one that hangs
MODEL = (
    *("backbone.name=vit_tiny_patch16_224", "backbone.weights=null", "backbone.stem=patch", "inference.size=64"),
    "backbone.options={img_size: 64, patch_size: 8, embed_dim: 48, depth: 3, num_heads: 2}",
    *("views.crop=64", "inference.scales=[1.0]", "training.batch=4", "training.workers=0", "method.decoder_from=0"),
    *("training.precision=32-true", "training.checkpoint_every=0", "method.scales=[1.0]"),
)


def make_world(base: Path, images: int, *more: str) -> tuple[Path, Path]:
    """Make a run of a small network, trained for a moment, and a folder of images of 64 x 64, two of them damaged.

    All that computes is done by forks of this process, which must have no threads when it forks again.
    """
    said = base / "said.txt"
    base.mkdir(exist_ok=True)
    must_run(["data", "make", "cooccur", "-o", base / "set", "--images", "200", "--size", "64", "--classes", "3"], said)
    settings = [argument for text in (*MODEL, "training.steps=20", *more) for argument in ("--set", text)]
    must_run(["train", base / "set", "-r", "cam/demo", "-o", base / "run", *settings], said)
    photos = base / "photos"
    photos.mkdir()
    given = sorted((base / "set" / "images").iterdir())
    for number in range(images):
        (photos / f"{number:06d}.png").write_bytes(given[number % len(given)].read_bytes())
    for number in (7, images // 2):
        (photos / f"{number:06d}.png").write_bytes(b"no image")
    return base / "run", photos


def processes() -> dict[int, tuple[int, str]]:
    """Return parent and command line of every process of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found[int(folder.name)] = int(status.rpartition(")")[2].split()[1]), title
    return found


def below(parent: int) -> dict[int, str]:
    """Return the command lines of a process's descendants."""
    everyone = processes()
    found: dict[int, str] = {}
    ancestors = {parent}
    while more := {own for own, (above, _) in everyone.items() if above in ancestors and own not in found}:
        found |= {own: everyone[own][1] for own in more}
        ancestors = more
    return found


def ended_with(process: int) -> int | None:
    """Return the status of a child that has ended; None while it runs."""
    ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def victim_of(kind: str, driver: int) -> int | None:
    if kind == "driver":
        return driver
    wanted = "MapWorker" if kind == "worker" else "raylet/raylet"
    return next((own for own, title in sorted(below(driver).items()) if wanted in title), None)


def run_killed(command: list[Any], output: Path, kind: str, random_: random.Random, shards: int, said: Path) -> str:
    """Run a command, kill one of its processes, and say how it ended: killed, finished, failed, hung or missed."""
    process = start(command, said)
    there = len(list(output.glob("manifests/*.json")))
    wanted = random_.randrange(there, shards)
    delay = random_.random()
    status = None
    while status is None and len(list(output.glob("manifests/*.json"))) < wanted:
        time.sleep(0.02)
        status = ended_with(process)
    while status is None and victim_of(kind, process) is None:
        time.sleep(0.1)  # it has not started yet
        status = ended_with(process)
    time.sleep(delay)
    family = below(process)
    victim, status = victim_of(kind, process), status if status is not None else ended_with(process)
    if status is not None:
        return "missed"
    if victim is None:
        os.waitpid(process, 0)
        return "missed"
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + WAIT
    while (status := ended_with(process)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = "killed" if kind == "driver" else "finished" if status == 0 else "failed"
    if status is None:
        ended = "hung"
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    # What the driver leaves ends by itself as its raylet sees that it is gone.
    deadline = time.monotonic() + 60
    while (left := set(family) & set(processes())) and time.monotonic() < deadline:
        time.sleep(0.2)
    for own in left:
        os.kill(own, signal.SIGKILL)
    return f"{ended}, {len(left)} processes left" if left else ended


def contents(output: Path) -> dict[str, bytes]:
    """Return the files that are results; the order of lines in the list of what was written is that of the work."""
    found = {own.relative_to(output).as_posix(): own for own in sorted(output.rglob("*")) if own.is_file()}
    return {
        name: b"".join(sorted(path.read_bytes().splitlines(True))) if name == "written.jsonl" else path.read_bytes()
        for name, path in found.items()
    }


def faults_of(output: Path, wanted: dict[str, bytes], images: int, sink: str) -> dict[str, Any]:
    """Count images that were lost, that came twice, and files of other bytes."""
    found = contents(output)
    listed: list[str] = []
    for path in sorted(output.glob("manifests/*.json")):
        manifest = json.loads(path.read_text())
        listed += [mask[0] for mask in manifest["masks"]] if sink == "png" else []
        listed += [name for name, _ in manifest["refused"]] if sink == "png" else []
        listed += [f"{manifest['shard']}#{number}" for number in range(manifest["images"])] if sink != "png" else []
    if sink != "png":
        with (output / "skipped.csv").open() as file:
            listed += [row["image"] for row in csv.DictReader(file)]
    return {
        "lost": images - len(set(listed)),
        "doubled": len(listed) - len(set(listed)),
        "other_bytes": sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)),
    }


def measure(base: Path, kills: int, seed: int, images: int, minutes: float) -> dict[str, Any]:
    import_all()
    random_ = random.Random(seed)
    model, photos = make_world(base, images)
    said = base / "said.txt"
    shards = -(-images // SHARD)
    wanted: dict[str, dict[str, bytes]] = {}
    for sink in ("png", "tar"):
        output = base / f"whole-{sink}"
        command = _command(model, photos, output, sink)
        must_run(command, said)
        wanted[sink] = contents(output)
    plain = base / "plain"
    must_run(["predict", model, photos, "-o", plain], said)
    same = all(wanted["png"].get(name) == content for name, content in contents(plain).items())
    rows: list[dict[str, Any]] = []
    done, outputs = 0, 0
    end = time.monotonic() + 60 * minutes
    while done < kills and time.monotonic() < end:
        sink = ("png", "tar")[outputs % 2]
        output = base / f"killed-{outputs}"
        outputs += 1
        command = _command(model, photos, output, sink)
        row: dict[str, Any] = {"sink": sink, "kills": []}
        for _ in range(min(random_.randint(2, 4), kills - done)):
            kind = VICTIMS[done % len(VICTIMS)]
            before = len(list(output.glob("manifests/*.json")))
            if before == shards:
                break
            ended = run_killed(command, output, kind, random_, shards, said)
            if ended == "missed":
                break
            done += 1
            row["kills"].append({"victim": kind, "shards_done_before": before, "ended": ended})
        if run(command, said)[0]:
            row["error"] = said.read_text()[-500:]
        row |= faults_of(output, wanted[sink], images, sink)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return {
        **{"benchmark": "ray_kills", **device_facts(), "seed": seed, "images": images, "shards": shards},
        "kills": {kind: sum(kill["victim"] == kind for row in rows for kill in row["kills"]) for kind in VICTIMS},
        **{"outputs": len(rows), "plain_path_the_same": same},
        **{key: sum(row[key] for row in rows) for key in ("lost", "doubled")},
        **{"other_bytes": sum(len(row["other_bytes"]) for row in rows), "errors": sum("error" in row for row in rows)},
        "rows": rows,
    }


def _command(model: Path, photos: Path, output: Path, sink: str) -> list[Any]:
    return ["predict", model, photos, "-o", output, "--engine", "ray", "--sink", sink, "--shard-size", SHARD]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--minutes", type=float, default=600, help="begin no further output after this time")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # on a busy machine
    with tempfile.TemporaryDirectory(prefix="tagmask-ray-kills-") as temporary:
        write_results(
            "ray_kills", measure(Path(temporary), arguments.kills, arguments.seed, arguments.images, arguments.minutes)
        )


if __name__ == "__main__":
    main()
