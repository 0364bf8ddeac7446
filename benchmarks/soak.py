"""Label for an hour and serve the page to 8 clients for an hour, at the same time: memory, errors, length of the queue.

    python benchmarks/soak.py [--minutes 60] [--warm-up 10] [--clients 8] [--only serve]

Labelling is one `tagmask label` with the dense CRF on small photographs of many sizes. The clients of the page upload a
photograph, have it labelled, change its tags, and fetch page and mask, each over and over as a person with a fast hand
would. Every few minutes a burst of 100 requests comes at once, which the queue has to refuse beyond its length.
Resident memory of each process is read every five seconds; its slope is that of the least squares after the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import RESULTS, device_facts, write_results

EVERY, BURST_EVERY, BURST = 5.0, 240.0, 100
"""Seconds between two readings of memory and between two bursts, and the requests of a burst."""
PHOTOGRAPHS = 120_000
"""More than an hour of labelling takes; all but the first 240 are links."""
TRAIN = (
    *("training.steps=2", "training.workers=0", "method.decoder_from=0"),
    *("inference.size=112", "inference.scales=[1.0]", "method.scales=[1.0]"),
)
ANSWER = 'class=\\"tm-stage'


def tagmask(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tagmask", *map(str, arguments)]


def prepare(base: Path) -> None:
    """Train a small run, and make a set of photographs of many sizes."""
    from PIL import Image

    make = tagmask("data", "make", "cooccur", "-o", base / "data", "--images", 240, "--size", 96)
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    settings = [argument for text in TRAIN for argument in ("--set", text)]
    train = tagmask("train", base / "data", "-r", "cam/demo", "-o", base / "run", *settings)
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    sizes, photos = random.Random(0), sorted((base / "data/images").glob("*"))
    (base / "many").mkdir()
    rows = ["image,tags"]
    classes = (base / "run/classes.txt").read_text().split("\n")[:-1]
    for number, path in enumerate(photos):
        picture = Image.open(path).convert("RGB").resize((sizes.randint(48, 128), sizes.randint(48, 128)))
        picture.save(base / f"many/{number:06}.jpg", quality=90)
    for number in range(PHOTOGRAPHS):
        if number >= len(photos):
            os.link(base / f"many/{number % len(photos):06}.jpg", base / f"many/{number:06}.jpg")
        rows.append(f"{number:06}.jpg,{classes[number % len(classes)]}")
    (base / "many/tags.csv").write_text("\n".join(rows) + "\n")


class Memory(threading.Thread):
    """Reads the resident memory of a process over and over."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.begin = process, time.monotonic()
        self.read: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Read until `ended` is set; megabytes by minute."""
        while not self.ended.wait(EVERY):
            if megabytes := resident(self.process):
                self.read.append(((time.monotonic() - self.begin) / 60, megabytes))

    def slope(self, warm_up: float) -> dict[str, Any]:
        """Return the slope in MB a minute after the warm-up, its standard error, and some readings."""
        points = np.array([point for point in self.read if point[0] >= warm_up])
        if len(points) < 3:
            return {"readings": len(points)}
        minutes, megabytes = points.T
        slope, start = np.polyfit(minutes, megabytes, 1)
        left = megabytes - (slope * minutes + start)
        error = np.sqrt((left**2).sum() / (len(points) - 2) / ((minutes - minutes.mean()) ** 2).sum())
        fives = [
            [megabytes for minute, megabytes in self.read if now <= minute < now + 5]
            for now in range(0, int(minutes[-1]) + 1, 5)
        ]
        return {
            "mb_a_minute": round(float(slope), 3),
            "standard_error": round(float(error), 3),
            "most_mb": round(float(megabytes.max())),
            "mean_mb_of_five_minutes": [round(float(np.mean(part)), 1) for part in fives if part],
            "readings": len(points),
        }


def resident(process: int) -> float:
    """Return the resident memory of a process in MB (2**20 bytes); 0 where it is no more."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0.0)


class Client:
    """A browser's requests, without the browser."""

    def __init__(self, address: str, photos: list[Path], counts: Counter[str], seed: int) -> None:
        self.address, self.photos, self.counts = address, photos, counts
        self.random, self.direct = random.Random(seed), urllib.request.build_opener(urllib.request.ProxyHandler({}))
        config = json.loads(self.get("config"))
        self.classes = next(
            [choice[0] for choice in own["props"]["choices"]]
            for own in config["components"]
            if own["props"].get("elem_id") == "try-tags"
        )
        self.event = next(
            own["id"] for own in config["dependencies"] if any(name == "change" for _, name in own["targets"])
        )

    def get(self, path: str) -> bytes:
        """Fetch a part of the page."""
        with self.direct.open(self.address + path, timeout=300) as answer:
            return answer.read()

    def upload(self, photo: Path) -> str:
        """Upload a photograph, and return the server's name of it."""
        mark = secrets.token_hex(8)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{photo.name}"\r\n'
        body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + photo.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        request = urllib.request.Request(self.address + "gradio_api/upload", body, headers)
        with self.direct.open(request, timeout=300) as answer:
            return json.load(answer)[0]

    def join(self, session: str, given: str, tags: list[str]) -> int:
        """Ask for the masks of an uploaded photograph, and return the status of the answer."""
        photo = {"path": given, "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}
        values = {"data": [photo, tags], "fn_index": self.event, "session_hash": session, "trigger_id": None}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + "gradio_api/queue/join", json.dumps(values).encode(), headers)
        try:
            with self.direct.open(request, timeout=300) as answer:
                return answer.status
        except HTTPError as error:
            return error.code

    def wait(self, session: str) -> str:
        """Read what the server says until it is done."""
        return self.get(f"gradio_api/queue/data?session_hash={session}").decode()

    def visit(self) -> None:
        """Open the page, upload a photograph, have it labelled with three sets of tags, and fetch a mask."""
        session = secrets.token_hex(6)
        self.get("")
        given = self.upload(self.random.choice(self.photos))
        for _ in range(3):
            tags = self.random.sample(self.classes, self.random.randrange(3))
            while (status := self.join(session, given, tags)) == 503:
                self.counts["asked again, for the queue was full"] += 1
                time.sleep(1.0)
            said = self.wait(session) if status == 200 else f"status {status}"
            if ANSWER not in said:
                raise RuntimeError(said[-500:])
            self.counts["labelled"] += 1
        told = [json.loads(part) for part in said.split("data: ")[1:]]
        done = next(each for each in told if each["msg"] == "process_completed")
        path = done["output"]["data"][5]["value"]["path"]
        if not self.get(f"gradio_api/file={path}").startswith(b"\x89PNG"):
            raise RuntimeError(f"{path}: no mask")
        self.counts["visits"] += 1


def burst(client: Client, count: int) -> Counter[str]:
    """Send so many requests at once, wait for those that were taken, and count the answers."""
    given = client.upload(client.photos[0])
    sessions = [secrets.token_hex(6) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        statuses = list(pool.map(lambda session: client.join(session, given, []), sessions))
        taken = [session for session, status in zip(sessions, statuses, strict=True) if status == 200]
        said = list(pool.map(client.wait, taken))
    if unanswered := sum(ANSWER not in text for text in said):
        raise RuntimeError(f"{unanswered} of {len(said)} requests of a burst without an answer")
    return Counter({"bursts": 1} | {str(status): number for status, number in Counter(statuses).items()})


def visit_until(end: float, client: Client, errors: list[str]) -> None:
    """Visit the page over and over; what goes wrong is noted, and the next visit begins."""
    while time.monotonic() < end:
        try:
            client.visit()
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:500])
            time.sleep(1.0)


def serve(base: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """Start the page with a temporary folder of its own."""
    (base / "temporary").mkdir()
    page = subprocess.Popen(
        tagmask("serve", base / "run", "--images", base / "data", "--port", port),
        env={**os.environ, "TMPDIR": str(base / "temporary")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert page.stdout is not None
    line = page.stdout.readline()
    if not line.startswith("page: "):
        raise SystemExit("the page did not start")
    return page, line.split()[1]


def on_disk(folder: Path) -> dict[str, float]:
    """Count the files of a folder and their size."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"files": len(sizes), "megabytes": round(sum(sizes) / 2**20, 1)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def soak_label(base: Path, minutes: float, warm_up: float) -> dict[str, Any]:
    """Label for so many minutes; return what was read and what went wrong."""
    command = tagmask("label", base / "run", base / "many", "-o", base / "masks", "--set", "inference.refine=crf")
    with (base / "label.txt").open("w") as told:
        label = subprocess.Popen(command, stdout=told, stderr=told)
    memory = Memory(label.pid)
    memory.start()
    errors = []
    with contextlib.suppress(subprocess.TimeoutExpired):
        label.wait(60 * minutes)
        errors.append(f"ended with status {label.returncode}: {(base / 'label.txt').read_text()[-300:]}")
    memory.ended.set()
    label.send_signal(signal.SIGTERM)
    label.wait(600)
    masks = sum(1 for _ in (base / "masks").rglob("*.png"))
    return {"minutes": minutes, "masks": masks, **memory.slope(warm_up), "errors": errors}


def soak_serve(base: Path, minutes: float, warm_up: float, clients: int) -> dict[str, Any]:
    """Serve the page to clients for so many minutes; return what was read and what went wrong."""
    page, address = serve(base, free_port())
    memory = Memory(page.pid)
    memory.start()
    counts: Counter[str] = Counter()
    errors: list[str] = []
    bursts: Counter[str] = Counter()
    photos, end = sorted((base / "many").glob("0000*.jpg"))[:100], time.monotonic() + 60 * minutes
    visitors = [Client(address, photos, counts, seed) for seed in range(clients)]
    threads = [threading.Thread(target=visit_until, args=(end, each, errors), daemon=True) for each in visitors]
    for thread in threads:
        thread.start()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, BURST_EVERY))
        if end - time.monotonic() > BURST_EVERY / 2:
            try:
                bursts.update(burst(visitors[0], BURST))
            except Exception as error:
                errors.append(f"burst: {error}"[:500])
        print(round(left / 60, 1), dict(counts), len(errors), memory.read[-1], file=sys.stderr, flush=True)
    for thread in threads:
        thread.join(120)
    memory.ended.set()
    disk = on_disk(base / "temporary")
    page.send_signal(signal.SIGTERM)
    page.wait(600)
    return {
        "minutes": minutes,
        "clients": clients,
        **counts,
        "bursts_of": BURST,
        "answers_to_bursts": dict(bursts),
        "temporary": disk,
        "left_in_temporary_after_end": on_disk(base / "temporary")["files"],
        **memory.slope(warm_up),
        "errors": errors[:20],
        "errors_counted": len(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=10, help="minutes that count for no slope")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--only", choices=("label", "serve"), help="leave the other's results as they are")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    former = RESULTS / "soak.json"
    results = json.loads(former.read_text()) if arguments.only and former.exists() else {}
    with tempfile.TemporaryDirectory(prefix="tagmask-soak-") as temporary, ThreadPoolExecutor(2) as pool:
        base, times = Path(temporary), (arguments.minutes, arguments.warm_up)
        prepare(base)
        running = {}
        if arguments.only != "serve":
            running["label"] = pool.submit(soak_label, base, *times)
        if arguments.only != "label":
            running["serve"] = pool.submit(soak_serve, base, *times, arguments.clients)
        measured = {name: {**each.result(), "warm_up_minutes": arguments.warm_up} for name, each in running.items()}
    write_results("soak", {**results, "benchmark": "soak", **device_facts(), **measured})


if __name__ == "__main__":
    main()
