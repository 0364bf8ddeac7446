"""A recipe's stages, in order, each in a folder of its own: skipped when done, resumed when killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.files import write_text
from tagmask.engine.progress import plain_console
from tagmask.errors import TagmaskError

DONE = "done.json"
COSTS = "stages.json"


@dataclass(frozen=True)
class Stage:
    """A step with its products on disk.

    Attributes:
        name: also of its folder in the run folder.
        make: given the folder, makes or goes on making the products; each is written whole or not at all.
        products: given the folder, what `make` writes there, for a stage that is to be run anew.
    """

    name: str
    make: Callable[[Path], None]
    products: Callable[[Path], Sequence[Path]]


def run_stages(folder: Path, stages: Sequence[Stage], *, start: str | None = None) -> None:
    """Run what is not done, and keep account of seconds and bytes in `stages.json`.

    Args:
        folder: of the run.
        stages: in order.
        start: run this stage and all later ones anew. Files the stages did not write stay.

    Raises:
        TagmaskError: no stage of that name, or whatever a stage raises.
    """
    check_start(stages, start)
    names = [stage.name for stage in stages]
    if start is not None:
        for stage in reversed(
            stages[names.index(start) :]
        ):  # killed in between, nothing done follows from what is gone
            _forget(folder / stage.name, stage)
    console = plain_console()
    for number, stage in enumerate(stages, start=1):
        place, heading = folder / stage.name, f"stage {number} of {len(stages)}, {stage.name}"
        if (place / DONE).exists():
            console.print(f"{heading}: done before")
            continue
        place.mkdir(parents=True, exist_ok=True)
        console.print(heading)
        begin, done = time.perf_counter(), False
        try:
            stage.make(place)
            done = True
        finally:
            cost = _account(folder, names, stage.name, time.perf_counter() - begin, done)
        write_text(place / DONE, json.dumps(cost) + "\n")
        console.print(f"{heading}: {cost['seconds']:.0f} s, {cost['bytes'] / 1e6:.1f} MB")


def check_start(stages: Sequence[Stage], start: str | None) -> None:
    """Raise a TagmaskError where there is no stage of that name."""
    names = [stage.name for stage in stages]
    if start is not None and start not in names:
        raise TagmaskError(f"no stage {start!r} in this recipe; its stages: {', '.join(names)}")


def read_costs(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds and bytes of each stage that was begun."""
    path = folder / COSTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _account(folder: Path, names: Sequence[str], name: str, seconds: float, done: bool) -> dict[str, float]:
    """Add to what earlier starts of the stage took; return the stage's entry."""
    costs = read_costs(folder)
    earlier = costs.get(name, {}).get("seconds", 0.0)
    size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
    costs[name] = {"seconds": round(earlier + seconds, 2), "bytes": size, "done": done}
    ordered = {known: costs[known] for known in names if known in costs}
    write_text(folder / COSTS, json.dumps(ordered, indent=1) + "\n")
    return costs[name]


def _forget(place: Path, stage: Stage) -> None:
    (place / DONE).unlink(missing_ok=True)
    for product in stage.products(place):
        product.unlink(missing_ok=True)
    costs = read_costs(place.parent)
    if costs.pop(stage.name, None) is not None:
        write_text(place.parent / COSTS, json.dumps(costs, indent=1) + "\n")
