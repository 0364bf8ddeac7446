"""Change one thing at a time in a module and see whether a test notices: mutation testing.

    python scripts/mutants.py                                # every module of MODULES, into mutants.json
    python scripts/mutants.py ops/cam data/views -o few.json  # some of them
    python scripts/mutants.py --fraction 0.3 --seed 1         # a fixed sample of each module's mutants
    python scripts/mutants.py --again                         # only what survived the last time, after new tests

What is changed is decided by mutmut's rules. The running is done here, because mutmut's own runner leaves out every
decorated function, class attribute and constant, which is most of `ops`. A parent process imports torch once; each
mutant runs in a fork of it, which imports tagmask with the one changed module and runs, shortest first, only those
tests that reach the changed statement.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "tagmask"
# Imported before the forks, so that a mutant costs what tagmask and its tests cost, and not torch's ten seconds.
PRELOADED = """
    torch torch.distributed torch.utils.tensorboard torchvision torchvision.transforms.v2.functional timm numpy scipy
    sklearn.cluster PIL.Image PIL.ImageFilter pydantic yaml rich typer safetensors.torch huggingface_hub pytest
    hypothesis lightning_fabric lightning_fabric.strategies.ddp torchmetrics.classification
    tagmask.recipes.load tagmask.data.dataset tagmask.data.images tagmask.data.synthetic
"""  # of tagmask, only what imports none of the modules that are changed
DEVICES = "ops/test_devices.py"
EVERY_METHOD = "methods/test_every_method.py"
VIEWS = [f"data/test_{name}.py" for name in ("views", "numbered_views", "training_stream", "paste")]
INFERENCE = [f"engine/test_{name}.py" for name in ("inference", "flips", "photographs", "tiles")]
OPTIM = ["engine/test_optim.py", "engine/test_schedule.py", "test_golden.py"]
# Modules under src/tagmask and the tests that are theirs, under tests/.
MODULES = {
    "ops/affinity": ["ops/test_affinity.py", DEVICES],
    "ops/cam": ["ops/test_cam.py", "ops/test_cam_forms.py", "ops/test_labels.py", DEVICES],
    "ops/crf": ["ops/test_crf.py"],
    "ops/distributed": ["ops/test_distributed.py"],
    "ops/energy": ["ops/test_energy.py"],
    "ops/kmeans": ["ops/test_kmeans.py"],
    "ops/labels": ["ops/test_labels.py", "ops/test_cam.py", DEVICES],
    "ops/lattice": ["ops/test_lattice.py", DEVICES],
    "ops/multi_scale": ["ops/test_multi_scale.py", DEVICES],
    "ops/par": ["ops/test_par.py", DEVICES],
    "ops/resize": ["ops/test_cam_forms.py"],
    "ops/saliency": ["ops/test_saliency.py", DEVICES],
    "methods/affinitynet": ["methods/test_affinitynet.py"],
    "methods/base": ["methods/test_base.py", "methods/test_registry.py", EVERY_METHOD],
    "methods/cam": ["methods/test_base.py", EVERY_METHOD],
    "methods/full": ["methods/test_base.py", "ops/test_multi_scale.py", EVERY_METHOD],
    "methods/rca": ["methods/test_rca_training.py", "methods/test_rca.py", EVERY_METHOD],
    "methods/rca_attention": ["methods/test_rca_attention.py"],
    "methods/rca_memory": ["methods/test_rca_memory.py"],
    "methods/rca_network": ["methods/test_rca.py"],
    "methods/registry": ["methods/test_registry.py", EVERY_METHOD],
    "methods/sccam": ["methods/test_sccam_rounds.py", "methods/test_sccam.py", EVERY_METHOD],
    "methods/seco": ["methods/test_seco.py", EVERY_METHOD],
    "methods/seco_losses": ["methods/test_seco_losses.py", "methods/test_seco.py"],
    "methods/seco_patches": ["methods/test_seco.py"],
    "data/views": VIEWS,
    "engine/optim": OPTIM,
    "engine/inference": INFERENCE,
    "engine/photographs": ["engine/test_photographs.py", "engine/test_flips.py"],
    "evaluation/confusion": ["evaluation/test_confusion.py", "test_golden.py"],
    "evaluation/protocols": ["evaluation/test_protocols.py", "test_golden.py"],
    "evaluation/sweep": ["evaluation/test_sweep.py"],
}
FLOOR, SLACK = 10.0, 6.0  # a mutant may take FLOOR seconds and SLACK times what its tests take without it


@dataclass(frozen=True)
class Mutant:
    """One changed module.

    Attributes:
        line: where the changed statement begins.
        lines: first and last line of the code whose tests may notice; None for what runs when the module is imported.
        before, after: the lines that differ.
        code: the whole changed module.
    """

    line: int
    lines: tuple[int, int] | None
    before: str
    after: str
    code: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every change that mutmut's rules make in a module, one at a time."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    positions, parents = wrapper.resolve(PositionProvider), wrapper.resolve(ParentNodeProvider)
    starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    seen = {source}
    for node, position in positions.items():
        if _left_out(node, parents):
            continue
        for kind, operator in mutation_operators:
            if not isinstance(node, kind):
                continue
            changes = list(operator(node))  # pyright: ignore
            if isinstance(node, cst.BaseString):
                changes = changes[:1]  # the same text in capitals says nothing new
            for changed in changes:
                if isinstance(node, cst.Call) and _checks(node) != _checks(changed):
                    continue
                begin, end = (starts[at.line - 1] + at.column for at in (position.start, position.end))
                code = source[:begin] + wrapper.module.code_for_node(changed).strip(" ") + source[end:]
                if code not in seen:
                    seen.add(code)
                    before, after = _difference(source, code)
                    yield Mutant(position.start.line, _reach(node, parents, positions), before, after, code)


def _left_out(node: cst.CSTNode, parents: dict) -> bool:
    """Types, decorators, imports; words for readers; checks of the programmer's (`strict=` of zip, `assert`).

    Sections of recipes are left out too, where a method's stands beside it: what they hold are defaults of keys.
    """
    last = node
    while node is not None:
        if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.Assert):
            return True
        if isinstance(node, cst.Arg) and node.keyword and node.keyword.value == "strict":
            return True
        if isinstance(node, cst.ClassDef) and any(
            getattr(base.value, "value", "") == "MethodSection" for base in node.bases
        ):
            return True
        if isinstance(node, cst.Raise) and isinstance(last, cst.BaseString):
            return True
        if isinstance(node, cst.Subscript) and isinstance(node.value, cst.Name) and node.value.value == "Literal":
            return True
        node = parents.get(node)
    return False


def _checks(call: cst.CSTNode) -> str:
    """What a call says of arguments whose absence means the same: `strict` of zip, `align_corners=False` of torch."""
    arguments = [argument for argument in getattr(call, "args", ()) if argument.keyword]
    same = {"strict": None, "align_corners": "False"}
    told = {argument.keyword.value: getattr(argument.value, "value", "") for argument in arguments}
    return str({name: told.get(name) for name, value in same.items() if value in (None, told.get(name))})


def _reach(node: cst.CSTNode, parents: dict, positions: dict) -> tuple[int, int] | None:
    """The lines of the statement around a node, or of the function whose defaults it belongs to."""
    statement, inside = None, False
    while node is not None:
        if isinstance(node, cst.FunctionDef):
            inside = True
            if statement is None:
                statement = positions[node.body].start.line, positions[node.body].end.line
        elif statement is None and isinstance(node, cst.SimpleStatementLine):
            statement = positions[node].start.line, positions[node].end.line
        elif statement is None and isinstance(node, cst.BaseCompoundStatement) and hasattr(node, "body"):
            statement = positions[node].start.line, positions[node.body].start.line
        node = parents.get(node)
    return statement if inside else None


def _difference(source: str, code: str) -> tuple[str, str]:
    lines = [line for line in difflib.ndiff(source.splitlines(), code.splitlines()) if line[0] in "-+"]
    sides = [" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+"]
    return sides[0], sides[1]


class Changed(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from changed source and leaves all others to Python."""

    def __init__(self, name: str, path: Path, code: str) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, fullname: str, path: object, target: object = None) -> object:
        """Claim the one module."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def get_filename(self, fullname: str) -> str:
        """The file whose place the changed source takes."""
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        """The changed source."""
        return self.code.encode()

    def path_stats(self, path: str) -> dict:
        """Refuse, so that Python neither reads nor writes a compiled file."""
        raise OSError("changed source has no cache")


class Reached:
    """A pytest plugin that notes which lines of one file each test reaches, and how long the test takes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.test = ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Begin to note lines."""
        self.test, self.seconds[nodeid] = nodeid, time.perf_counter()
        sys.settrace(self._enter)
        threading.settrace(self._enter)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """End it, and the clock."""
        sys.settrace(None)
        threading.settrace(None)  # pyright: ignore
        self.seconds[nodeid] = time.perf_counter() - self.seconds[nodeid]

    def _enter(self, frame, event, argument):
        return self._line if frame.f_code.co_filename == self.path else None

    def _line(self, frame, event, argument):
        self.lines[self.test].add(frame.f_lineno)
        return self._line


class FirstFailure:
    """A pytest plugin that ends the process at the first test that fails."""

    def pytest_runtest_logreport(self, report) -> None:
        """A test has run."""
        if report.failed:
            os._exit(1)

    def pytest_collectreport(self, report) -> None:
        """A file of tests was imported."""
        if report.failed:
            os._exit(1)


def in_fork(run, limit: float) -> int | None:
    """Exit status of `run` in a fork of this process; None where it took more than `limit` seconds."""
    child = os.fork()
    if not child:
        status = 99
        try:
            signal.alarm(0)
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            status = int(run())
        finally:
            os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(tests: Sequence[str], *plugins: object) -> int:
    """Run tests in this process and stop at the first that fails."""
    import pytest
    from hypothesis import Phase, settings

    # The same examples for every mutant, none remembered, none made smaller once it has failed.
    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutants")
    options = [f"-pno:{name}" for name in ("cacheprovider", "unraisableexception", "threadexception", "logging")]
    return pytest.main(["-x", "-q", "--no-header", "--tb=no", *options, *tests], plugins=list(plugins))


def measure(module: str, tests: Sequence[str], fraction: float, seed: int, before: dict | None = None) -> dict:
    """Make the mutants of one module, run them, and say which survived; `before`: only those that survived then."""
    path, name = SOURCES / f"{module}.py", f"tagmask.{module.replace('/', '.')}"
    source = path.read_text(encoding="utf-8")
    pool = [f"tests/{test}" for test in tests if (ROOT / "tests" / test).exists()]
    notes = Path(tempfile.gettempdir()) / f"mutants-{os.getpid()}.json"

    def trace() -> int:
        reached = Reached(path)
        status = run_tests(pool, reached)
        lines = {test: sorted(reached.lines.get(test, ())) for test in reached.seconds}
        notes.write_text(json.dumps([lines, reached.seconds]))
        return status

    if (status := in_fork(trace, 900)) != 0:
        raise SystemExit(f"{module}: its tests do not pass unchanged (pytest says {status})")
    lines, seconds = json.loads(notes.read_text())
    notes.unlink()

    every = list(mutants_of(source))
    chosen = every
    if fraction < 1:
        count = max(1, round(fraction * len(every)))
        chosen = sorted(random.Random(f"{seed} {module}").sample(every, count), key=lambda mutant: mutant.line)
    survivors, slow = [], 0
    if before is not None:
        known = {(each["before"], each["after"]) for each in before["survivors"]}
        chosen = [mutant for mutant in every if (mutant.before, mutant.after) in known]
    for mutant in chosen:
        first, last = mutant.lines or (0, sys.maxsize)
        reaching = [test for test in sorted(seconds, key=seconds.get) if any(first <= n <= last for n in lines[test])]

        def attempt(mutant: Mutant = mutant, reaching: list[str] = reaching) -> int:
            sys.meta_path.insert(0, Changed(name, path, mutant.code))
            return run_tests(reaching, FirstFailure())

        limit = FLOOR + SLACK * sum(seconds[test] for test in reaching)
        status = in_fork(attempt, limit) if reaching else 0
        slow += status is None
        if status == 0:
            print(f"  survived {module}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
            survivors.append({"line": mutant.line, "before": mutant.before, "after": mutant.after})
            if not reaching:
                survivors[-1]["unreached"] = True
    run = len(chosen) if before is None else before["killed"] + len(chosen)
    killed = run - len(survivors)
    print(f"{module}: {killed} of {run} killed ({len(every)} mutants in all, {slow} by the clock)", flush=True)
    return {"mutants": len(every), "run": run, "killed": killed, "too_slow": slow, "survivors": survivors}


def main() -> None:
    """Measure the modules asked for and write what survived."""
    parser = argparse.ArgumentParser(description="Mutation testing; see the module's docstring.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; default all")
    parser.add_argument("--fraction", type=float, default=1.0, help="of each module's mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="run only what survived the last time")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "mutants.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - MODULES.keys():
        parser.error(f"no tests are known for {', '.join(sorted(unknown))}")

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    sys.path[:0] = [str(SOURCES.parent), str(ROOT)]
    for library in PRELOADED.split():
        importlib.import_module(library)
    # What is imported here is never rubbish; looked through in a fork, its pages would all be copied.
    gc.freeze()
    gc.disable()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for module in arguments.modules or (results if arguments.again else MODULES):
        before = results[module] if arguments.again else None
        if before is None or before["survivors"]:
            results[module] = measure(module, MODULES[module], arguments.fraction, arguments.seed, before)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    run, killed = (sum(results[module][key] for module in results) for key in ("run", "killed"))
    print(f"{killed} of {run} mutants killed: {100 * killed / run:.1f} %", flush=True)
    os._exit(0)  # libraries that miss the collector would complain of leaks


if __name__ == "__main__":
    main()
