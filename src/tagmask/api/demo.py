"""The demonstration: a synthetic set, plain CAM and another method trained on its tags, side by side."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from tagmask.api.demo_part import SCORES
from tagmask.api.demo_pictures import early_sheet, sheet
from tagmask.data.label_maps import write_png
from tagmask.data.limits import parse_json
from tagmask.data.synthetic import demo_folder, make_demo_set
from tagmask.engine.progress import Waiting
from tagmask.errors import TagmaskError

logger = logging.getLogger(__name__)

LOOK = 0.5  # seconds between looks at how far the parts are
YIELDING = 5  # added to the niceness of plain CAM
PHASES = {
    "cam": ((0, 0.12), (300, 0.20), (700, 10.0)),
    "seco": ((0, 0.13), (100, 0.17), (214, 0.54), (700, 10.0)),
}
"""For the time left: from which step on a step of the recipe takes how many seconds; at the end what comes after."""


def demo(output: Path | str = "demo", *, method: str = "seco", seed: int = 0) -> dict[str, float]:
    """Run the demonstration.

    Makes a set in which objects meet their context nine times in ten, trains plain CAM and `method` from scratch on
    its tags, and writes masks, pictures and scores. Where torch has two cores or more, both are trained at the same
    time. First pictures are there when plain CAM has learnt for 200 steps. What is done is not done again.

    Args:
        output: folder for everything.
        method: what to set beside plain CAM.
        seed: of data and training.

    Returns:
        mIoU in percent of both decoders on the test split, no tags given.

    Raises:
        TagmaskError: a training failed; it names the file that says more.
    """
    folder, start = demo_folder(output, seed), time.perf_counter()
    names = list(dict.fromkeys(("cam", method)))
    cores = torch.get_num_threads()
    at_once = min(cores, len(names))
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as started:
        # Plain CAM is done long before the other method: what it leaves of the cores the other one takes.
        nices = [YIELDING, *[0] * (len(names) - 1)]
        parts = [
            Part(name, folder, started, seed, cores // at_once, nice) for name, nice in zip(names, nices, strict=True)
        ]
        data = make_demo_set(output, seed)
        logger.info("training %s%s", " and ".join(names), " at the same time" if at_once > 1 else "")
        _wait(parts, at_once, folder, start)
    runs = {name: folder / name for name in names}
    write_png(folder / "pictures.png", sheet(runs, data))
    scores = {name: json.loads((run / SCORES).read_text(encoding="utf-8"))["decoder"] for name, run in runs.items()}
    logger.info("test split, decoder, no tags given, protocol seco; FP/TP is the mean over classes")
    for name, own in scores.items():
        unbounded = f" (+ {own['unbounded']} infinite)" if own["unbounded"] else ""
        ratio = own["mean_confusion_ratio"]
        logger.info("%-6s mIoU %.1f %%   FP/TP %.2f%s", name, 100 * own["miou"], ratio, unbounded)
    logger.info("masks: %s/*/masks   pictures: %s/pictures.png   metrics: %s/*/metrics.jsonl", *3 * (folder,))
    logger.info("%.0f seconds", time.perf_counter() - start)
    return {name: round(100 * own["miou"], 2) for name, own in scores.items()}


class Part:
    """The process that trains and scores one method; it waits until it is told to begin.

    Args:
        name: of the method, and of its run folder.
        folder: of the demonstration.
        started: stops the process, if it still runs, and closes its files.
        seed: of the training.
        threads: cores that it may use.
        nice: added to the niceness of its process.
    """

    def __init__(self, name: str, folder: Path, started: ExitStack, seed: int, threads: int, nice: int) -> None:
        self.name, self.run, self.said = name, folder / name, folder / f"{name}.log"
        self.begun: float | None = None
        words = (folder / "data", self.run, name, seed, threads, nice)
        log = started.enter_context(self.said.open("w", encoding="utf-8"))
        self.process = started.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tagmask.api.demo_part", *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        )
        started.callback(self.process.kill)

    def begin(self) -> None:
        """Have it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b".")
        self.process.stdin.flush()
        self.begun = time.monotonic()

    def is_done(self) -> bool:
        """Say whether it has ended.

        Raises:
            TagmaskError: it failed.
        """
        code = self.process.poll()
        if code:
            lines = self.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise TagmaskError(f"{self.said}: training {self.name} failed: {lines[-1] if lines else f'status {code}'}")
        return code == 0

    def step(self) -> int:
        """Give the last step that it logged; 0 before."""
        try:
            return int(parse_json((self.run / "metrics.jsonl").read_bytes().splitlines()[-1])["step"])
        except (OSError, IndexError, TagmaskError, KeyError, TypeError):
            return 0

    def seconds(self) -> float | None:
        """Estimate how long it still takes, from how long it took so far; None where nobody knows."""
        step = self.step()
        if self.name not in PHASES or self.begun is None or not step:
            return None
        if self.process.poll() is not None:
            return 0.0
        done, whole = cost(self.name, step), cost(self.name, None)
        return max(0.0, (time.monotonic() - self.begun) * (whole - done) / done)


def cost(name: str, step: int | None) -> float:
    """Sum up what the steps of a recipe of the demonstration take until `step`; None: with all that comes after."""
    phases = PHASES[name]
    if step is None:
        return cost(name, phases[-1][0]) + phases[-1][1]
    ends = [begin for begin, _ in phases[1:]]
    return sum(max(0, min(step, end) - begin) * each for (begin, each), end in zip(phases, ends, strict=False))


def _wait(parts: Sequence[Part], at_once: int, folder: Path, start: float) -> None:
    """Have the parts work, so many at a time, and show how far they are."""
    waiting, working = list(parts), list[Part]()
    shown_first = (folder / "first.png").exists()
    with Waiting("training") as shown:
        while waiting or working:
            working = [part for part in working if not part.is_done()]
            while waiting and len(working) < at_once:
                waiting[0].begin()
                working.append(waiting.pop(0))
            if not shown_first and (picture := early_sheet(parts[0].run, folder / "data")) is not None:
                shown_first = True
                write_png(folder / "first.png", picture)
                logger.info(
                    "after %.0f s: first masks of plain CAM: %s", time.perf_counter() - start, folder / "first.png"
                )
            left = [part.seconds() for part in working]
            known = [each for each in left if each is not None]
            text = ", ".join(f"{part.name} step {part.step()}" for part in working)
            shown.update(text, max(known) if known and len(known) == len(left) and not waiting else None)
            time.sleep(LOOK)
