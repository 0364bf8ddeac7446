"""How many strokes a rough mask needs until it is good: with scribbles that are refined, and with a brush alone.

    make bench NAME=mending ARGS="demo/seco --images 10"

A steady hand that knows the ground truth mends the masks that a run makes of its evaluated images: each time it takes
the largest region that is wrong, draws a line through the middle of it, and says what is there. With *scribbles* the
line goes through `refine_scribble`, as on the page; with the *brush* it is painted as broad as fits into the region,
never over its rim, which stands for an editor without refinement and flatters it. Each stops at a mean IoU of 0.9, or
after `--most` strokes. Counted are strokes, the way that the hand went, and seconds of one core; how long a person
takes between strokes is not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import device_facts, write_results
from PIL import Image
from scipy import ndimage

from tagmask.api import Model, load, open_data, to_evaluate
from tagmask.data.dataset import Record
from tagmask.data.images import open_image
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.study import image_quality
from tagmask.ops.label_ids import IGNORE
from tagmask.serve.scribble import FIXED, STROKE, refine_scribble

GOOD = 0.9  # the mean IoU over the ids of an image at which its mask is done
ANGLES = 12  # directions that a line may take
Mend = Callable[[np.ndarray, np.ndarray, "Stroke"], np.ndarray]


@dataclass(frozen=True)
class Stroke:
    """A line that a hand draws: (n, 2) rows and columns, what is there, and the widest brush that fits."""

    points: np.ndarray
    label: int
    radius: float


def quality(labels: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """Return the mean IoU over the ids in the mask or its ground truth."""
    matrix = ConfusionMatrix(num_classes)
    matrix.add(truth, labels)
    return image_quality(matrix) or 0.0


def next_stroke(labels: np.ndarray, truth: np.ndarray) -> Stroke | None:
    """Draw through the middle of the largest region that is wrong; None where nothing is."""
    best, size, label = None, 0, 0
    for own in np.unique(truth[(truth != labels) & (truth != IGNORE)]).tolist():
        numbered, count = ndimage.label((truth == own) & (labels != own))  # type: ignore[misc]
        if count:
            sizes = np.bincount(numbered.ravel())[1:]
            if sizes.max() > size:
                best, size, label = numbered == 1 + sizes.argmax(), sizes.max(), own
    if best is None:
        return None
    depth = ndimage.distance_transform_edt(np.pad(best, 1))[1:-1, 1:-1]  # type: ignore[misc]
    middle = np.unravel_index(depth.argmax(), depth.shape)
    lines = [_line(depth, middle, angle * np.pi / ANGLES) for angle in range(ANGLES)]
    return Stroke(max(lines, key=len), label, float(depth.max()))


def _line(depth: np.ndarray, middle: tuple[np.intp, ...], angle: float) -> np.ndarray:
    """Go both ways from the middle of a region as far as half its depth there reaches."""
    points = [np.asarray(middle)]
    for way in (1, -1):
        step = way * np.array([np.sin(angle), np.cos(angle)])
        for length in range(1, max(depth.shape)):
            place = np.rint(points[0] + length * step).astype(int)
            inside = (place >= 0).all() and (place < depth.shape).all()
            if not inside or depth[tuple(place)] < max(1.0, 0.5 * depth.max()):
                break
            points.append(place)
    return np.array(points)


def drawn(points: np.ndarray, radius: float, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the pixels (h, w) that a round brush covers at these points."""
    away = np.ones(shape, bool)
    away[tuple(points.T)] = False
    return ndimage.distance_transform_edt(away) <= radius  # type: ignore[misc]


def by_scribbles(photo: Image.Image, probabilities: np.ndarray, tags: tuple[int, ...]) -> Mend:
    """Mend by lines that are refined as on the page; what was drawn before stays."""

    def mend(labels: np.ndarray, fixed: np.ndarray, stroke: Stroke) -> np.ndarray:
        marks = np.where(fixed, np.uint8(FIXED), np.uint8(0))
        line = drawn(stroke.points, min(1.5, stroke.radius), labels.shape)
        marks[line] = STROKE
        fixed |= line
        return refine_scribble(
            photo, labels, marks, stroke.label, wanted=True, candidates=(0, *tags), probabilities=probabilities
        )

    return mend


def by_brush(labels: np.ndarray, fixed: np.ndarray, stroke: Stroke) -> np.ndarray:
    """Paint the line as broad as fits everywhere along it."""
    painted = drawn(stroke.points, max(0.5, 0.5 * stroke.radius), labels.shape)
    core = drawn(stroke.points[:1], max(0.5, stroke.radius - 0.5), labels.shape)
    return np.where(painted | core, np.uint8(stroke.label), labels)


def mended(labels: np.ndarray, truth: np.ndarray, num_classes: int, mend: Mend, most: int) -> dict[str, float]:
    """Mend a mask until it is good, and return what that took."""
    fixed = np.zeros(labels.shape, bool)
    strokes, way, seconds = 0, 0, 0.0
    while (found := quality(labels, truth, num_classes)) < GOOD and strokes < most:
        stroke = next_stroke(labels, truth)
        if stroke is None:
            break
        start = time.process_time()
        labels = mend(labels, fixed, stroke)
        seconds += time.process_time() - start
        strokes, way = strokes + 1, way + len(stroke.points)
    return {"strokes": strokes, "way": way, "seconds": seconds, "iou": found}


def main() -> None:
    options = parser_of(__doc__, "mending").parse_args()
    torch.set_num_threads(1)

    model, records = run_and_images(options)
    classes = len(model.classes)
    rows = []
    for record in records:
        photo = open_image(record.image)
        assert record.mask is not None
        truth = record.mask.load(photo.height, photo.width)
        found = model.predict(photo, [model.classes[tag] for tag in record.tags])
        probabilities = torch.from_numpy(found.scores).softmax(dim=0).numpy()
        scribbles = by_scribbles(photo, probabilities, tuple(tag + 1 for tag in record.tags))
        rows.append(
            {
                "image": record.name,
                "rough": quality(found.labels, truth, classes),
                "scribbles": mended(found.labels, truth, classes, scribbles, options.most),
                "brush": mended(found.labels, truth, classes, by_brush, options.most),
            }
        )
        print(rows[-1], flush=True)
    middle = {
        tool: {key: float(np.median([row[tool][key] for row in rows])) for key in rows[0][tool]}
        for tool in ("scribbles", "brush")
    }
    done = {tool: sum(row[tool]["iou"] >= GOOD for row in rows) for tool in middle}
    write_results(options.name, {"medians": middle, "done": done, "rows": rows, **device_facts()})


def parser_of(what: str | None, name: str) -> argparse.ArgumentParser:
    """Make the parser of a bench that mends masks of a run; `run_and_images` reads what it parsed."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder; its evaluated images need ground truth")
    parser.add_argument("data", type=Path, nargs="?", help="by default the run's own")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--most", type=int, default=60, help="strokes")
    parser.add_argument("--name", default=name, help="of the file in results/")
    return parser


def run_and_images(options: argparse.Namespace) -> tuple[Model, list[Record]]:
    """Load the run, and choose images with ground truth and tags, spread over those that it is evaluated on."""
    model = load(options.run, device="cpu")
    config = model.run.recipe.data
    dataset = to_evaluate(open_data(options.data, config, tuple(model.classes)), config, None)
    records = [record for record in dataset.records if record.mask is not None and record.tags]
    return model, records[:: max(1, len(records) // options.images)][: options.images]


if __name__ == "__main__":
    main()
