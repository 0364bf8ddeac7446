"""Read what a run folder knows about its training: curves, time, disk, recorded scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.data.limits import parse_json
from tagmask.engine.stage import read_costs
from tagmask.errors import TagmaskError
from tagmask.evaluation.result import Conditions

TRAINING = "training"  # what the only stage of a run is called


@dataclass(frozen=True)
class Series:
    """One logged quantity: its name, and its values over steps, which need not be finite."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the lines of a run's `metrics.jsonl`; empty where it has none, as an imported checkpoint's.

    Raises:
        TagmaskError: a line is no JSON object with a step.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            values = parse_json(line)
            lines.append({name: float(value) for name, value in values.items()} | {"step": int(values["step"])})
        except (TagmaskError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise TagmaskError(
                f"{path}, line {number}: no JSON object of numbers with a step; remove the line"
            ) from None
    return lines


def read_logs(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Read the metrics of each training of a run by the name of its stage, in order, without stages that log nothing.

    Raises:
        TagmaskError: as `read_metrics`.
    """
    places = {TRAINING: folder, **{name: folder / name for name in read_costs(folder)}}
    logs = {name: read_metrics(place) for name, place in places.items()}
    return {name: lines for name, lines in logs.items() if lines}


def series(lines: Sequence[Mapping[str, float]]) -> list[Series]:
    """Return the logged quantities: evaluations first, then the loss, its parts, learning rate and speed."""
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    ordered = sorted(names, key=lambda name: (not name.startswith("eval/"), name != "loss"))
    found = []
    for name in ordered:
        points = [(int(line["step"]), float(line[name])) for line in lines if name in line]
        found.append(Series(name, *(tuple(column) for column in zip(*points, strict=True))))  # pyright: ignore
    return found


@dataclass(frozen=True)
class StageCost:
    """What a stage took.

    Attributes:
        name: of the stage.
        seconds: of all its starts; of a run of one stage, of the logged steps alone.
        bytes: of its folder; None where the stage has no folder of its own.
        steps: that its training logged; None where it trains nothing.
        done: whether it is finished.
    """

    name: str
    seconds: float
    bytes: int | None
    steps: int | None
    done: bool


def stage_costs(folder: Path, logs: Mapping[str, Sequence[Mapping[str, float]]], batch: int) -> list[StageCost]:
    """Return what each stage of a run took, from `stages.json`, or of a run of one stage from the speeds in its log.

    Args:
        folder: of the run.
        logs: as `read_logs`.
        batch: images a step, of a run of one stage.
    """
    steps = {name: int(lines[-1]["step"]) for name, lines in logs.items()}
    accounts = read_costs(folder)
    if accounts:
        return [
            StageCost(name, account["seconds"], int(account["bytes"]), steps.get(name), bool(account["done"]))
            for name, account in accounts.items()
        ]
    seconds, former = 0.0, 0.0
    for line in logs.get(TRAINING, ()):
        speed = line.get("images_per_second", 0.0)
        if speed > 0 and math.isfinite(speed):
            seconds += (line["step"] - former) * batch / speed
            former = line["step"]
    return [StageCost(TRAINING, seconds, None, steps[TRAINING], True)] if former else []


def disk_use(folder: Path) -> list[tuple[str, int, int]]:
    """Return for each entry of a run folder its name, how many files it holds, and its bytes; largest first."""
    entries = [(entry.name, *_size(entry)) for entry in folder.iterdir()]
    return sorted(entries, key=lambda entry: (-entry[2], entry[0]))


def _size(entry: Path) -> tuple[int, int]:
    files = [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
    return len(files), sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Recorded:
    """A score that an earlier evaluation wrote down.

    Attributes:
        name: what was scored.
        miou: in [0, 1].
        ratio: mean FP/TP over classes, None where it is not finite.
        images: how many.
        protocol, conditions: under which it holds.
    """

    name: str
    miou: float | None
    ratio: float | None
    images: int
    protocol: str
    conditions: Conditions


def recorded_scores(folder: Path) -> list[Recorded]:
    """Read the scores in a run's `scores.json`: one result of `tagmask evaluate -o`, or several by name.

    Raises:
        TagmaskError: the file is something else.
    """
    path = folder / "scores.json"
    if not path.is_file():
        return []
    try:
        values = parse_json(path.read_bytes())
        results = {values["conditions"].get("source") or "run": values} if "protocol" in values else values
        return [_recorded(name, value) for name, value in results.items()]
    except (TagmaskError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise TagmaskError(f"{path}: no scores as `tagmask evaluate -o` writes them; remove the file") from None


def _recorded(name: str, values: Mapping[str, Any]) -> Recorded:
    said = dict(values["conditions"])
    if "threshold" in said:  # as version 0.1 called it
        said["background_score"] = said.pop("threshold")
    conditions = Conditions(**said)
    ratio, images = values["mean_confusion_ratio"], int(values["images"])
    return Recorded(name, values["miou"], ratio, images, str(values["protocol"]), conditions)
