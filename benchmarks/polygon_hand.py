# pyright: reportMissingImports=false
"""The hand that draws polygons in X-AnyLabeling, in its own process: `benchmarks/editors.py` starts it.

    PYTHON_OF_X-ANYLABELING benchmarks/polygon_hand.py JOB.json

The job names the images, each with the JSON of its rough shapes beside it, and for each what to draw: a class's number
and the corners of its outline. The hand works through Qt's own events on the canvas, as a mouse and a keyboard do: it
clicks on each rough shape and deletes it, presses the class's digit, clicks the corners, closes by Return, and saves. A
practised user has set such digits up (`digit_shortcuts`). What it did is printed as JSON, an object an image.

It imports nothing of tagmask, which need not be installed beside X-AnyLabeling.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import yaml
from PyQt6.QtCore import QPointF, Qt, QTimer
from PyQt6.QtGui import QKeySequence
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QApplication

Job = dict[str, Any]


class Hand:
    """A mouse and a keyboard over the canvas that keep count of what they do."""

    def __init__(self, view: Any) -> None:
        self.view, self.canvas = view, view.canvas
        self.place = (0.0, 0.0)
        self.presses, self.way, self.waited = 0, 0.0, 0.0

    def click(self, x: float, y: float) -> None:
        """Go to a place of the image, in its pixels, and click."""
        place = (QPointF(x, y) + self.canvas.offset_to_center()) * self.canvas.scale
        self.way += ((place.x() - self.place[0]) ** 2 + (place.y() - self.place[1]) ** 2) ** 0.5
        self.place = (place.x(), place.y())
        start = time.perf_counter()
        QTest.mouseMove(self.canvas, place.toPoint())
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place.toPoint())
        self._count(start)

    def press(self, key: str, where: Any = None) -> None:
        """Press a key as a shortcut of the window, or in a widget."""
        start = time.perf_counter()
        QTest.keySequence(where or self.view, QKeySequence(key))
        self._count(start)

    def _count(self, start: float) -> None:
        QApplication.processEvents()
        self.waited += time.perf_counter() - start
        self.presses += 1


def mend(view: Any, image: Job) -> Job:
    """Delete the rough shapes of one image, draw the outlines, and save."""
    view.load_file(image["file"])
    view.set_fit_window()
    QTest.qWait(1000)  # to open an image counts in none of the editors
    hand = Hand(view)
    if view.canvas.drawing():
        hand.press("Ctrl+J")  # from drawing back to editing
    for x, y in image["rough"]:
        before = len(view.canvas.shapes)
        hand.click(x, y)
        hand.press("Delete")
        if len(view.canvas.shapes) != before - 1:
            raise RuntimeError(f"{image['file']}: the shape at ({x}, {y}) was not deleted")
    for each in image["draw"]:
        before = len(view.canvas.shapes)
        hand.press(str(each["digit"]))
        for x, y in each["points"]:
            hand.click(x, y)
        hand.press("Return", view.canvas)
        if len(view.canvas.shapes) != before + 1:
            raise RuntimeError(f"{image['file']}: a polygon of {len(each['points'])} corners was not drawn")
    hand.press("Ctrl+S")
    corners = sum(len(each["points"]) for each in image["draw"])
    return {"strokes": corners, "presses": hand.presses - corners, "way": hand.way, "waited": hand.waited}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    home = Path(sys.argv[1]).parent / "home"  # its settings, not the user's
    home.mkdir(exist_ok=True)
    settings = {
        "auto_save": False,
        "store_data": False,
        "labels": job["classes"],
        "digit_shortcuts": {
            digit: {"mode": "polygon", "label": name} for digit, name in enumerate(job["classes"], start=1)
        },
    }
    (home / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    os.environ.update(HOME=str(home), QT_QPA_PLATFORM=os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    sys.argv = ["xanylabeling", "--no-auto-update-check", "--logger-level", "error"]
    sys.argv += ["--work-dir", str(home), "--config", str(home / "settings.yaml")]

    from anylabeling import app  # reads its settings, so not before they are there

    def work() -> None:
        try:
            window = next(each for each in QApplication.topLevelWidgets() if hasattr(each, "labeling_widget"))
            window.resize(1300, 900)
            view = window.labeling_widget.view
            for image in job["images"]:
                print(json.dumps({"name": image["name"], **mend(view, image)}), flush=True)
        except Exception:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)  # without its question whether to save

    started = QApplication.exec
    QApplication.exec = lambda *told: (QTimer.singleShot(3000, work), started())[1]  # type: ignore[method-assign]
    app.main()


if __name__ == "__main__":
    main()
