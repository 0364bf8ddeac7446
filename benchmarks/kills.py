"""Kill every verb that writes at random moments, start it again, and compare: what is left at the end is the same.

    python benchmarks/kills.py --kills 200 [--seed 0] [--verbs train predict [--add]]

Each verb is first run undisturbed. Then it is killed (SIGKILL) after a random part of that time and started again, up
to five times an output, and then left to end. Compared are its masks, models, exports and tables, byte for byte; files
of the user's that lie beside them must be untouched, and no temporary file or lock may be left.

The commands are forks of this process, which has imported everything: a command spends its time on its work, so
that the kills fall there and not into the seconds that importing torch takes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import RESULTS, device_facts, write_results

TIMED = ("events", "metrics.jsonl", "stages.json", "done.json")
"""Names in a run folder that hold times, which differ from one run to the next."""
NOTE, STATE_FILE = "mine.txt", "training_state.pt"
AT_ONCE = 5
"""Kills of one output at the most, before it may end."""
IMPORTED = ("torch", "timm", "matplotlib.pyplot", "sklearn.cluster", "scipy.io", "onnx", "onnxscript", "onnxruntime")
TINY = (
    *("backbone.name=vit_tiny_patch16_224", "backbone.weights=null", "backbone.stem=patch"),
    "backbone.options={img_size: 32, patch_size: 8, embed_dim: 12, depth: 3, num_heads: 2}",
    *("views.crop=32", "views.scale=[0.7, 1.3]", "inference.size=32", "inference.scales=[1.0]"),
    *("training.steps=40", "training.batch=4", "training.workers=0", "training.checkpoint_every=5"),
    *("training.log_every=5", "training.precision=32-true", "optimizer.warmup=2", "method.scales=[1.0]"),
)


def settings(*more: str) -> list[str]:
    return [argument for text in (*TINY, *more) for argument in ("--set", text)]


STAGED = (
    *("segmenter.training.steps=20", "segmenter.training.checkpoint_every=5"),
    *("segmenter.training.batch=4", "segmenter.training.workers=0", "segmenter.training.precision=32-true"),
    *("refine.name=none", "refine.background_score=0.4"),
)


def _train(base: Path, out: Path, *more: str) -> list[Any]:
    return ["train", base / "data", "-r", "cam/demo", "-o", out, *settings(*more)]


def _export(form: str) -> Callable[[Path, Path], list[Any]]:
    return lambda base, out: ["export", "masks", base / "masks", "-f", form, "-o", out, "-i", base / "data/images"]


@dataclass(frozen=True)
class Verb:
    """A command that writes.

    Attributes:
        arguments: of the command line, of a folder of what is given and of the output folder.
        beside: the user's note lies beside the output: a folder that is replaced or made as a whole holds nothing else.
        replaces: an earlier output may be replaced.
        once: an output that is whole is refused the next time.
        begin: a folder of what is given, of which the output is a copy at first.
    """

    arguments: Callable[[Path, Path], list[Any]]
    beside: bool = False
    replaces: bool = False
    once: bool = False
    begin: str | None = None


VERBS: dict[str, Verb] = {
    "data make": Verb(
        lambda base, out: ["data", "make", "cooccur", "-o", out, "--images", "60", "--size", "48"],
        beside=True,
        replaces=True,
    ),
    "data unpack": Verb(lambda base, out: ["data", "unpack", base / "rows.parquet", "-o", out], beside=True, once=True),
    "data sbd": Verb(lambda base, out: ["data", "sbd", base / "sbd", out], begin="voc"),
    "train": Verb(_train, beside=True),
    "train in stages": Verb(lambda base, out: _train(base, out, *STAGED), beside=True),
    "train --from": Verb(
        lambda base, out: [*_train(base, out, *STAGED, "segmenter.training.steps=25"), "--from", "segmenter"],
        begin="staged",
    ),
    "import seco": Verb(lambda base, out: ["import", "seco", base / "seco.pth", "-o", out], beside=True, once=True),
    "label": Verb(lambda base, out: ["label", base / "run", base / "data", "-o", out]),
    "label --save-cams": Verb(
        lambda base, out: [
            *("label", base / "run", base / "data", "-o", out / "masks", "--source", "cam", "--save-cams", out / "cams")
        ]
    ),
    "predict": Verb(lambda base, out: ["predict", base / "run", base / "data" / "images", "-o", out]),
    "refine": Verb(lambda base, out: ["refine", base / "cams", base / "data", "-o", out, "--with", "crf"]),
    "evaluate": Verb(lambda base, out: ["evaluate", base / "run", base / "data", "-o", out / "scores.json"]),
    "report": Verb(lambda base, out: ["report", base / "run", base / "data", "-o", out / "report.html"]),
    "export coco": Verb(_export("coco"), beside=True, replaces=True),
    "export voc": Verb(_export("voc"), beside=True, replaces=True),
    "export onnx": Verb(lambda base, out: ["export", "onnx", base / "run", "-o", out / "model.onnx"], replaces=True),
}
"""What is killed. `serve`, `push`, `suggest`, `doctor` and `data check` write no results; `demo` and `reproduce` are
`data make`, `train` and `evaluate` in turn."""


def import_all() -> None:
    """Import what commands import; no thread may be started by that, or a fork would not be a whole process."""
    import tagmask

    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for module in pkgutil.walk_packages(tagmask.__path__, "tagmask."):
        if ".serve" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def start(arguments: list[Any], said: Path) -> int:
    """Start a command in a process of its own, with its output in a file, and return the process's number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with said.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = io.TextIOWrapper(io.FileIO(1, "w")), io.TextIOWrapper(io.FileIO(2, "w"))
        sys.argv = ["tagmask", *map(str, arguments)]
        from tagmask.cli import main as tagmask_main

        tagmask_main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run(arguments: list[Any], said: Path) -> tuple[int, float]:
    """Run a command to its end; return its status and the seconds that it took."""
    begin = time.monotonic()
    _, status = os.waitpid(start(arguments, said), 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begin


def run_killed(arguments: list[Any], said: Path, seconds: float) -> int:
    """Run a command for so many seconds at the most, kill it then, and return its status."""
    process, end = start(arguments, said), time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def must_run(arguments: list[Any], said: Path) -> float:
    status, seconds = run(arguments, said)
    if status:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{said.read_text(errors='replace')[-2000:]}")
    return seconds


def content(path: Path) -> bytes:
    """Return what is compared of a file: its bytes, but of a training's state the values that it holds.

    A state that was read holds the same values as other objects, which pickle tells apart. A report holds seconds.
    """
    if path.suffix == ".html":
        return re.sub(rb">[0-9.]+ s<", b"><", path.read_bytes())
    if path.name != STATE_FILE:
        return path.read_bytes()
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), hashlib.sha256(value.numpy().tobytes()).hexdigest()
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    return repr(plain(torch.load(path, map_location="cpu", weights_only=True))).encode()


def hashes(folder: Path) -> dict[str, str]:
    """Return the content of every file below a folder by name, but for those that hold times."""
    named = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(content(path)).hexdigest()
        for name, path in named.items()
        if not set(name.parts) & set(TIMED)
    }


def prepare(base: Path, verbs: list[str], said: Path) -> None:
    """Make what the verbs work on: a set, a run of it, its masks and CAMs, and files of others where they are read."""
    import numpy as np
    import torch

    from tests.api.test_checkpoints import seco_state
    from tests.data.readers.test_parquet import encoded, write_parquet
    from tests.data.test_sbd import write_mat
    from tests.data.trees import write_image, write_mask

    make = ["data", "make", "cooccur", "-o", base / "data", "--images", "40", "--size", "48", "--classes", "3"]
    must_run(make, said)
    must_run(_train(base, base / "run", "training.steps=4", "method.decoder_from=0"), said)
    must_run(["predict", base / "run", base / "data" / "images", "-o", base / "masks"], said)
    label = ["label", base / "run", base / "data", "-o", base / "other", "--source", "cam", "--save-cams"]
    must_run([*label, base / "cams"], said)
    if "train --from" in verbs:
        must_run(_train(base, base / "staged", *STAGED), said)
    if "data unpack" in verbs:
        rows = [{"bytes": encoded(colour=number), "path": f"{number}.jpg"} for number in range(60)]
        names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
        write_parquet(base / "rows.parquet", {"image": rows, "label": [number % 2 for number in range(60)]}, names)
    if "data sbd" in verbs:
        for number in range(60):
            write_image(base / f"voc/JPEGImages/{number}.jpg")
            write_mat(base / f"sbd/dataset/cls/{number}.mat", np.full((6, 8), number % 21, np.uint8))
        write_mask(base / "voc/SegmentationClass/0.png", np.full((6, 8), 3))
    if "import seco" in verbs:
        torch.manual_seed(0)
        torch.save(seco_state(20), base / "seco.pth")


def kill_verb(name: str, base: Path, kills: int, random_: random.Random) -> dict[str, Any]:
    """Run a verb undisturbed, then with kills; return how many hit, and what was wrong."""
    verb, said = VERBS[name], base / "said.txt"
    undisturbed, disturbed = base / f"{name}-whole" / "out", base / f"{name}-killed" / "out"

    def begin(out: Path) -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir(parents=True)
        if verb.begin:
            shutil.copytree(base / verb.begin, out)

    begin(undisturbed)
    seconds = must_run(verb.arguments(base, undisturbed), said)
    wanted, given = hashes(undisturbed), _given(base)
    arguments = verb.arguments(base, disturbed)
    note = (disturbed.parent if verb.beside else disturbed) / NOTE
    hit, compared, left, differences, faults = 0, 0, 0, 0, []
    while hit < kills and len(faults) < 20:
        begin(disturbed)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("mine")
        if verb.replaces and random_.random() < 0.5:
            must_run(arguments, said)  # so that there is an earlier one to replace
        status = -signal.SIGKILL
        for _ in range(min(random_.randint(1, AT_ONCE), kills - hit)):
            status = run_killed(arguments, said, seconds * random_.uniform(0, 1.05))
            if status != -signal.SIGKILL:
                break
            hit += 1
            if verb.once and hashes(disturbed) == wanted:
                status = 0  # killed when all was written
                break
        if status == -signal.SIGKILL or not (verb.once or status):
            status, _ = run(arguments, said)
        if status:
            faults.append(f"status {status} after a kill: {said.read_text(errors='replace').strip()[-300:]}")
            continue
        compared += 1
        found = hashes(disturbed)
        if not verb.beside:
            found.pop(NOTE, None)
        if other := {each for each in {*found, *wanted} if found.get(each) != wanted.get(each)}:
            differences += 1
            faults.append(f"other bytes in {', '.join(sorted(other)[:3])}")
        if not note.is_file() or note.read_text() != "mine":
            faults.append(f"{note.name} was touched")
        if remains := [path.name for path in disturbed.parent.rglob("*") if path.name.startswith(".tagmask")]:
            left += len(remains)
            faults.append(f"left: {', '.join(sorted(remains)[:3])}")
    if _given(base) != given:
        faults.append("what was given was changed")
    shutil.rmtree(disturbed.parent)
    return {
        **{"kills": hit, "outputs_compared": compared, "leftovers": left, "differences": differences},
        **{"seconds_undisturbed": round(seconds, 2), "faults": faults},
    }


def _given(base: Path) -> dict[str, dict[str, str]]:
    names = ("data", "run", "masks", "cams", "staged", "sbd", "voc")
    return {name: hashes(base / name) for name in names if (base / name).exists()}


def measure(kills: int, seed: int, verbs: list[str]) -> dict[str, dict[str, Any]]:
    """Kill each of the verbs so that together they were killed so often; results by verb."""
    import_all()
    with tempfile.TemporaryDirectory(prefix="tagmask-kills-") as temporary:
        base = Path(temporary)
        prepare(base, verbs, base / "said.txt")
        results = {}
        for position, verb in enumerate(verbs):
            own = kills // len(verbs) + (position < kills % len(verbs))
            # The moments of a verb are the same whichever verbs go before it.
            results[verb] = kill_verb(verb, base, own, random.Random(f"{seed} {verb}"))
            print(f"{verb}: {results[verb]}", file=sys.stderr, flush=True)
        return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all verbs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", default=list(VERBS), choices=list(VERBS))
    parser.add_argument("--add", action="store_true", help="keep the rows of other verbs in results/kills.json")
    parser.add_argument("--results", type=Path, help="write the table by verb to this JSON file instead of results/")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = measure(arguments.kills, arguments.seed, arguments.verbs)
    if arguments.results:
        arguments.results.write_text(json.dumps(results))
        return
    if arguments.add:
        results = json.loads((RESULTS / "kills.json").read_text())["verbs"] | results
    values = {
        "benchmark": "kills",
        **device_facts(),
        "seed": arguments.seed,
        **{key: sum(result[key] for result in results.values()) for key in ("kills", "leftovers", "differences")},
        "faults": sum(len(result["faults"]) for result in results.values()),
        "verbs": results,
    }
    write_results("kills", values)


if __name__ == "__main__":
    main()
