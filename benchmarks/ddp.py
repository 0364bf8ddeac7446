"""What it costs to train by two processes: seconds an image, of the wall and of the cores, beside one process.

make bench NAME=ddp [ARGS='--steps 20 --rounds 5']

One process with one thread, one with two threads, and two with one thread each train the same method on the same
batches, in turns, and each round is compared within itself: `overhead_of_cores` is how many more seconds of the cores
the two processes take than one process with one thread, `overhead_of_wall` how many more seconds of the wall than one
process with as many threads. On a machine that does other work only the first tells something, and little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import device_facts, write_results

BATCH = 8
WARM = 3  # steps that are not counted
WAYS = {"one_process": (1, 1), "one_process_two_threads": (1, 2), "two_processes": (2, 1)}
"""Processes, and threads of each."""
PLAIN = {"cores": "one_process", "wall": "one_process_two_threads"}
"""What the two processes are compared with, by whose seconds."""


def work(data: Path, folder: Path, method: str, steps: int) -> None:
    """Be one of the processes; the first prints the seconds of each step, of the wall and of its core."""
    from tagmask.api import open_data
    from tagmask.engine import loop
    from tagmask.engine.processes import together
    from tagmask.ops.distributed import world
    from tagmask.recipes.load import DataConfig, load_recipe

    loop.has_tensorboard = lambda: False
    marks: list[tuple[float, float]] = []
    overrides = [f"training.steps={steps + WARM}", f"training.batch={BATCH}", "training.workers=0"]
    overrides += ["training.log_every=1", "training.precision=32-true", "views.crop=128", "method.decoder_from=0"]
    overrides += [
        "method.scales=[1.0]",
        "backbone={name: vit_tiny_patch16_224, weights: null, options: {img_size: 128}}",
    ]
    with together():
        devices = world()[1]
        recipe = load_recipe(f"{method}/default", [*overrides, f"training.devices={devices}"])
        loop.train(
            recipe,
            open_data(data, DataConfig()),
            folder,
            on_log=lambda step, values: marks.append((time.perf_counter(), time.process_time())),
        )
    if marks:
        wall, core = ([after - before for before, after in pairwise(own)] for own in zip(*marks, strict=True))
        print(json.dumps({"wall": wall[WARM - 1 :], "cores": [devices * seconds for seconds in core[WARM - 1 :]]}))


def measured(data: Path, method: str, steps: int, processes: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each step, of the wall and of all cores together."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        given = [__file__, "--work", str(data), folder, "--method", method, "--steps", str(steps)]
        command = [sys.executable, *(torchrun if processes > 1 else []), *given]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench(methods: list[str], steps: int, rounds: int) -> dict[str, Any]:
    from tagmask.data.synthetic import make_cooccur

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_cooccur(Path(folder) / "set", images=16, size=128, classes=3, seed=0)
        for method in methods:
            taken: dict[str, dict[str, list[float]]] = {way: {"wall": [], "cores": []} for way in WAYS}
            for number in range(rounds):
                for way in (list(WAYS) * 2)[number % len(WAYS) :][: len(WAYS)]:  # each way comes first in its turn
                    for clock, seconds in measured(data, method, steps, *WAYS[way]).items():
                        taken[way][clock].append(statistics.median(seconds) / BATCH)
            own: dict[str, Any] = {
                way: {f"{clock}_s_an_image": round(statistics.median(all_), 4) for clock, all_ in each.items()}
                for way, each in taken.items()
            }
            for clock, plain in PLAIN.items():
                pairs = zip(taken["two_processes"][clock], taken[plain][clock], strict=True)
                more = [round(two / one - 1, 3) for two, one in pairs]
                own |= {f"overhead_of_{clock}": round(statistics.median(more), 3), f"{clock}_of_each_round": more}
            found[method] = own
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["cam", "seco"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        given, place = arguments.work
        work(given, place, arguments.method, arguments.steps)
    else:
        result = bench(arguments.methods, arguments.steps, arguments.rounds)
        load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
        write_results("ddp", {"batch": BATCH, **result, "load_average": load, **device_facts()})
