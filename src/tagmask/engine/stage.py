"""The stages of a run, one after the other, each in a folder of its own: what is done is skipped on a second start.

Several processes that train together run each stage together. The first of them alone keeps account of it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.files import write_text
from tagmask.data.limits import parse_json
from tagmask.engine.device import is_first_process
from tagmask.errors import TagmaskError
from tagmask.ops.distributed import from_first, wait_for_all

logger = logging.getLogger(__name__)
DONE = "done.json"  # in a stage's folder, once the stage is finished
COSTS = "stages.json"  # in the run folder
SLACK = 2.0  # seconds by which a copy of a run folder may mix up the times of its files


@dataclass(frozen=True)
class Products:
    """What a stage leaves on disk.

    Attributes:
        name: of the stage and of its folder in the run folder.
        files: those that the stage writes in that folder; they are removed where it is to run anew.
    """

    name: str
    files: Callable[[Path], Sequence[Path]]


@dataclass(frozen=True)
class Stage(Products):
    """A step of a run that leaves its products on disk.

    Attributes:
        make: makes the files in the stage's folder, or goes on where it was killed; each is written whole or not at
            all, by one of the processes.
    """

    make: Callable[[Path], None]


def forget_stages(folder: Path, stages: Sequence[Products], start: str | None) -> None:
    """Remove what a stage and all later ones made, so that they run anew; files that the stages did not write stay.

    A mask that somebody changed after its stage was done is moved into a folder `STAGE-changed`.

    Args:
        folder: of the run.
        stages: in order.
        start: name of the first stage to forget; None forgets none.
    """
    if start is None:
        return
    names = [stage.name for stage in stages]
    # The last stage first: if this is killed in between, no stage counts as done whose input is already gone.
    for stage in reversed(stages[names.index(start) :]):
        _forget(folder / stage.name, stage)


def run_stages(folder: Path, stages: Sequence[Stage]) -> None:
    """Run the stages that are not done, and write down the seconds and bytes of each in `stages.json`.

    Args:
        folder: of the run.
        stages: in order.

    Raises:
        TagmaskError: whatever a stage raises.
    """
    names = [stage.name for stage in stages]
    for number, stage in enumerate(stages, start=1):
        place, heading = folder / stage.name, f"stage {number} of {len(stages)}, {stage.name}"
        if from_first((place / DONE).exists):
            logger.info("%s: done before", heading)
            continue
        place.mkdir(parents=True, exist_ok=True)
        logger.info(heading)
        begin, done = time.perf_counter(), False
        try:
            stage.make(place)
            wait_for_all()
            done = True
        except KeyboardInterrupt as stopped:
            stopped.add_note(f"in stage {stage.name}")
            raise
        finally:
            # Of a stage that fails too: what it took counts when it is resumed.
            cost = _account(folder, names, stage.name, time.perf_counter() - begin, done) if is_first_process() else {}
        if cost:
            write_text(place / DONE, json.dumps(cost) + "\n")
            logger.info("%s: %.0f s, %.1f MB", heading, cost["seconds"], cost["bytes"] / 1e6)


def check_start(stages: Sequence[Stage], start: str | None) -> None:
    """Raise a TagmaskError where there is no stage of that name."""
    names = [stage.name for stage in stages]
    if start is not None and start not in names:
        raise TagmaskError(f"no stage {start!r} in this recipe; its stages: {', '.join(names)}")


def read_costs(folder: Path) -> dict[str, dict[str, float]]:
    """Read the seconds and bytes of each stage that was begun.

    Raises:
        TagmaskError: the file is damaged.
    """
    path = folder / COSTS
    if not path.exists():
        return {}
    try:
        costs = parse_json(path.read_bytes())
        return {
            name: {"seconds": float(cost["seconds"]), "bytes": int(cost["bytes"]), "done": bool(cost["done"])}
            for name, cost in costs.items()
        }
    except (TagmaskError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise TagmaskError(
            f"{path}: damaged; expected the seconds and bytes of each stage. Remove it: nothing else is lost"
        ) from None


def _account(folder: Path, names: Sequence[str], name: str, seconds: float, done: bool) -> dict[str, float]:
    """Add the seconds to those of the stage's earlier starts, and give its entry in `stages.json`."""
    costs = read_costs(folder)
    earlier = costs.get(name, {}).get("seconds", 0.0)
    size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
    costs[name] = {"seconds": round(earlier + seconds, 2), "bytes": size, "done": done}
    ordered = {known: costs[known] for known in names if known in costs}
    write_text(folder / COSTS, json.dumps(ordered, indent=1) + "\n")
    return costs[name]


def _forget(place: Path, stage: Products) -> None:
    """Remove what a stage wrote, its mark of being done first, and its costs."""
    products = stage.files(place)
    _move_changed(place, products)
    (place / DONE).unlink(missing_ok=True)
    for product in products:
        product.unlink(missing_ok=True)
    costs = read_costs(place.parent)
    if costs.pop(stage.name, None) is not None:
        write_text(place.parent / COSTS, json.dumps(costs, indent=1) + "\n")


def _move_changed(place: Path, products: Sequence[Path]) -> None:
    """Move the masks that were changed since their stage was done into a folder beside the stage's."""
    if not (place / DONE).exists():
        return
    done = (place / DONE).stat().st_mtime + SLACK
    changed = [path for path in products if path.suffix == ".png" and path.exists() and path.stat().st_mtime > done]
    if not changed:
        return
    aside = place.with_name(f"{place.name}-changed")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}-2")
    for path in changed:
        target = aside / path.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    logger.warning(
        "%d masks in %s were changed since the run made them, and are now in %s; to learn from them: --set "
        "data.use_masks=%s",
        len(changed),
        place,
        aside,
        aside,
    )
