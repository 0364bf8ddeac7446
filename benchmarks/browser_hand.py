"""A hand that mends masks in editors: what it did, and its pointer in a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mending import Stroke

from tagmask.api import open_data
from tagmask.recipes.load import load_recipe

SPEED, PRESS = 600.0, 0.3  # screen pixels a second; seconds a press


@dataclass
class Effort:
    """What mending a mask took.

    Attributes:
        strokes: lines drawn, or corners clicked.
        presses: of keys and buttons beside.
        way: of the pointer on the screen, in pixels.
        waited: seconds that the editor let wait.
        iou: the mean IoU that was reached.
    """

    strokes: int = 0
    presses: int = 0
    way: float = 0.0
    waited: float = 0.0
    iou: float = 0.0

    @property
    def seconds(self) -> float:
        """What a hand takes for it, each stroke being a press, too."""
        return self.way / SPEED + (self.strokes + self.presses) * PRESS + self.waited


class Hand:
    """A pointer on a page that keeps count of what it does."""

    def __init__(self, page: Any) -> None:
        self.page, self.effort, self.place = page, Effort(), (0.0, 0.0)

    def to(self, x: float, y: float) -> None:
        self.effort.way += float(np.hypot(x - self.place[0], y - self.place[1]))
        self.place = (x, y)
        self.page.mouse.move(x, y, steps=8)

    def draw(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.to(*start)
        self.page.mouse.down()
        self.to(*end)
        self.page.mouse.up()
        self.effort.strokes += 1

    def click(self, found: Any) -> None:
        box = found.bounding_box()
        self.to(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.up()
        self.effort.presses += 1

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.effort.presses += 1


def ends_of(stroke: Stroke) -> np.ndarray:
    """Return the two ends (2, 2), row and column, of a line whose points begin in its middle."""
    return stroke.points[np.argsort(stroke.points @ (stroke.points[-1] - stroke.points[1]))][[0, -1]]


def read_masks(path: Path, keys: Sequence[str], truths: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read what an editor saved, by our reader; an image that it left out is all background."""
    masks = {
        record.image.stem: record.mask for record in open_data(path, load_recipe({"method": "cam"}, keys).data).records
    }
    found = {name: masks.get(name) for name in truths}
    return {
        name: np.zeros_like(truths[name]) if mask is None else mask.load(*truths[name].shape)
        for name, mask in found.items()
    }
