"""Label Studio's editor in a browser, and its API."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from browser_hand import Hand, ends_of, read_masks
from mending import Stroke

from tagmask.api.export import export_masks
from tagmask.data.codes import BrushCode

SIZES = (18, 25, 35, 50)  # of its brush in screen pixels; 50 is its largest


class Studio:
    """The editor of Label Studio on a task whose prediction it shows."""

    def __init__(self, page: Any, address: str, classes: tuple[str, ...]) -> None:
        self.page, self.hand, self.classes, self.size, self.tool = page, Hand(page), classes, 0, ""
        page.goto(address)
        page.wait_for_selector(".konvajs-content canvas")
        page.wait_for_function("window.Htx?.annotationStore?.selected?.regions.length > 0")
        page.wait_for_timeout(2000)
        for _ in range(2):  # else the slider of the brush's size lies over the image, and takes what begins there
            self.hand.click(page.locator("[aria-label='zoom-out']").first)
        page.wait_for_timeout(500)
        self.chosen: int | None = None
        self.least = 0

    def layers(self, shape: tuple[int, ...]) -> list[tuple[int, np.ndarray]]:
        """Read the regions, lowest first: label id, and (h, w) bool."""
        said = self.page.evaluate("Htx.annotationStore.selected.serializeAnnotation().map(r => r.value)")
        return [
            (self.classes.index(value["brushlabels"][0]) + 1, BrushCode(bytes(value["rle"])).inside(*shape))
            for value in said
        ]

    def labels(self, shape: tuple[int, ...]) -> np.ndarray:
        found = np.zeros(shape, np.uint8)
        for own, inside in self.layers(shape):
            found[inside] = own
        return found

    def draw(self, stroke: Stroke, labels: np.ndarray) -> np.ndarray:
        """Draw one line: erase what lies above or should not be there, then paint; return what the editor holds."""
        layers = self.layers(labels.shape)
        order = [own for own, _ in layers]
        level = order.index(stroke.label) if stroke.label in order else len(order)
        shown = {int(own) for own in labels[tuple(stroke.points.T)]} - {0, stroke.label}
        for own in shown:
            if not stroke.label or order.index(own) > level:
                self.choose(own, order)
                self.line(stroke, "e")
        if stroke.label:
            self.choose(stroke.label, order)
            self.line(stroke, "b")
        found = self.labels(labels.shape)
        # The rim of its strokes is soft: a thin one may change nothing, and a hand then takes a broader brush.
        self.least = min(self.least + 1, len(SIZES) - 1) if np.array_equal(found, labels) else 0
        return found

    def choose(self, own: int, order: list[int]) -> None:
        """Select a class's region, or its label for a new one."""
        if self.chosen == own:
            return
        if own in order:
            self.hand.click(self.page.locator(".lsf-outliner-item__title").nth(order.index(own)))
        else:
            if self.chosen is not None:
                self.hand.press("u")
            self.tool_is("b")
            self.hand.press(str(own))
        self.chosen = own

    def tool_is(self, key: str) -> None:
        if self.tool != key:
            self.hand.press(key)
            self.tool, self.size = key, 0

    def line(self, stroke: Stroke, key: str) -> None:
        self.tool_is(key)
        shown = self.page.locator(".konvajs-content").first.bounding_box()
        scale, left, top = self.page.evaluate(
            """(() => {
              const image = Htx.annotationStore.selected.names.get("image");
              return [image.stageZoom * image.zoomScale, image.zoomingPositionX, image.zoomingPositionY];
            })()"""
        )
        size = max([each for each in SIZES if each <= stroke.radius * scale] or SIZES[:1])
        size = max(size, SIZES[self.least])
        if size != self.size:  # a person drags its slider: one press, which flatters
            self.page.evaluate(
                """([name, size]) => Htx.annotationStore.selected.names.get('image').getToolsManager().allTools()
                .filter((tool) => tool.toolName === name).forEach((tool) => tool.setStroke(size))""",
                ["EraserTool" if key == "e" else "BrushTool", size],
            )
            self.hand.effort.presses += 1
            self.size = size
        ends = [
            (shown["x"] + left + (column + 0.5) * scale, shown["y"] + top + (row + 0.5) * scale)
            for row, column in ends_of(stroke)
        ]
        if ends[0] == ends[1]:  # its brush paints nothing at a click that does not move
            ends[1] = (ends[1][0] + 2, ends[1][1])
        self.hand.draw(ends[0], ends[1])
        start = time.perf_counter()
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.hand.effort.waited += time.perf_counter() - start

    def save(self) -> None:
        start = time.perf_counter()
        with self.page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            self.hand.click(self.page.get_by_role("button", name="Submit"))
        self.hand.effort.waited += time.perf_counter() - start


class Project:
    """A project of Label Studio with the rough masks of a folder as predictions, and the server's API.

    Args:
        address, token: of the server, and a legacy token of its user.
        place: a folder in its document root.
        masks, images: the rough masks and their photographs, below `place`.
    """

    def __init__(self, address: str, token: str, place: Path, masks: Path, images: Path) -> None:
        self.address, self.token, self.place, self.images = address.rstrip("/"), token, place, images
        shown = f"/data/local-files/?d={place.name}/{images.relative_to(place).as_posix()}/"
        export_masks(masks, images, place / "studio", format="label-studio", image_url=shown)
        config = (place / "studio" / "label_config.xml").read_text()
        self.number = self.ask("/api/projects/", {"title": place.name, "label_config": config})["id"]
        self.ask("/api/storages/localfiles", {"project": self.number, "path": str(images), "use_blob_urls": True})
        tasks = json.loads((place / "studio" / "tasks.json").read_text())
        numbers = self.ask(f"/api/projects/{self.number}/import?return_task_ids=true", tasks)["task_ids"]
        self._tasks = {Path(task["data"]["image"]).stem: own for task, own in zip(tasks, numbers, strict=True)}

    def ask(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, body, headers), timeout=120) as answer:
            return json.loads(answer.read())

    def log_in(self, page: Any, user: str, password: str) -> None:
        page.goto(f"{self.address}/user/login/")
        page.fill("input[name=email]", user)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")

    def task(self, name: str) -> str:
        """Return the address of the editor on one image."""
        return f"{self.address}/projects/{self.number}/data?task={self._tasks[name]}"

    def masks(self, truths: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Export the project as JSON, and return what our reader makes of it."""
        file = self.place / "export.json"
        file.write_text(json.dumps(self.ask(f"/api/projects/{self.number}/export?exportType=JSON")))
        keys = [f"data.classes={json.dumps(classes)}", f"data.image_folder={self.images}"]
        return read_masks(file, keys, truths)
