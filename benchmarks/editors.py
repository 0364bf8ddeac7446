"""From rough masks to good ones in two editors, driven by the same script in Chromium: our page, and Label Studio.

    make bench NAME=editors ARGS="demo/seco --studio http://127.0.0.1:8080 --token … --user … --password … --root …"

The hand of benchmarks/mending.py, which knows the ground truth, mends the masks of a run until their mean IoU is 0.9.
It draws by a real pointer on what the editor shows, and after each stroke reads from the editor what its masks are now.
On the page it draws with *Is* (refined) and with *Brush* and *Erase*; in Label Studio with its brush and eraser.

Counted are strokes, the pointer's way on the screen and presses of keys and buttons. A hand's seconds are reckoned from
them, the same for all: `SPEED` pixels a second, `PRESS` seconds a press. To them come the seconds that the editor let
wait. What a person needs to look and to think is not in them.

Label Studio runs already, with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`; `--root` is its document root, to which
photographs are copied, and `--token` a legacy token of the user.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, device_facts, write_results
from mending import GOOD, Stroke, next_stroke, parser_of, quality, run_and_images
from PIL import Image

from tagmask.api import label, open_data
from tagmask.api.export import export_masks
from tagmask.data.codes import BrushCode
from tagmask.data.masks import PngMask
from tagmask.recipes.load import load_recipe
from tagmask.serve.server import serving

SPEED, PRESS = 600.0, 0.3  # screen pixels a second; seconds a press
SIZES = (18, 25, 35, 50)  # of Label Studio's brush in screen pixels; 50 is its largest
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TOOLS = ("scribbles", "brush", "label-studio")
PATIENCE, PORT = 120_000, 7872


@dataclass
class Effort:
    """What mending a mask took."""

    strokes: int = 0
    presses: int = 0
    way: float = 0.0
    waited: float = 0.0
    iou: float = 0.0

    @property
    def seconds(self) -> float:
        return self.way / SPEED + self.presses * PRESS + self.waited


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


class OurPage:
    """The editor of `tagmask serve`; `refined` draws with *Is*, else with *Brush* and *Erase*."""

    def __init__(self, page: Any, name: str, classes: int, refined: bool) -> None:
        self.page, self.hand, self.refined, self.tool, self.size = page, Hand(page), refined, "", 0
        shown = f"#review-facts [data-showing$=' {name}']"
        page.wait_for_timeout(1000)  # saving shows the next image
        if not page.locator(shown).count():
            page.locator(f".tm-strip [data-name='{name}']").click()
        page.wait_for_selector(shown)
        page.keyboard.press("e")
        page.wait_for_selector("#tm-editor canvas[data-ready]")

    def draw(self, stroke: Stroke, labels: np.ndarray) -> np.ndarray:
        """Draw one line, and return what the editor holds then."""
        tool = "i" if self.refined else "b" if stroke.label else "x"
        if tool != self.tool:
            self.hand.press(tool)
            self.tool = tool
        size = 3 if self.refined else max(1, round(stroke.radius))
        if size != self.size:  # by [ or ]: one press, which flatters where a size is far
            self.page.locator("#tm-editor .tm-size input").first.fill(str(size))
            self.hand.effort.presses += 1
            self.size = size
        button = self.page.locator(f"#tm-editor button[data-label='{stroke.label}']")
        if tool != "x" and button.get_attribute("aria-pressed") != "true":
            self.hand.click(button)
        first, last = (self.at(*end) for end in ends_of(stroke))
        if self.refined:
            with self.page.expect_response("**/mend/scribble*") as answer:
                self.hand.draw(first, last)
                start = time.perf_counter()
            found = np.frombuffer(answer.value.body(), np.uint8).reshape(labels.shape)
            self.page.wait_for_selector("#tm-editor canvas:not([aria-busy=true])")
            self.hand.effort.waited += time.perf_counter() - start
            return found
        self.hand.draw(first, last)
        # Reckoned, as the page keeps it to itself; a line's rim may differ by a pixel. The score is of what is saved.
        rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
        begin, finish = ends_of(stroke)
        line = np.linspace(begin, finish, 200)
        away = np.min([(rows - y) ** 2 + (columns - x) ** 2 for y, x in line], axis=0)
        return np.where(away <= (size / 2) ** 2, np.uint8(stroke.label), labels)

    def at(self, row: float, column: float) -> tuple[float, float]:
        canvas = self.page.locator("#tm-editor canvas")
        view, box = canvas.evaluate("own => ({ ...own.dataset })"), canvas.bounding_box()
        scale = float(view["scale"])
        return box["x"] + float(view["left"]) + (column + 0.5) * scale, box["y"] + float(view["top"]) + (
            row + 0.5
        ) * scale

    def save(self) -> None:
        start = time.perf_counter()
        self.hand.press("s")
        self.page.wait_for_selector("#tm-editor", state="detached")
        self.hand.effort.waited += time.perf_counter() - start


class Studio:
    """The editor of Label Studio on a task whose prediction it shows."""

    def __init__(self, page: Any, address: str, classes: tuple[str, ...]) -> None:
        self.page, self.hand, self.classes, self.size, self.tool = page, Hand(page), classes, 0, ""
        page.goto(address)
        page.wait_for_selector(".konvajs-content canvas")
        page.wait_for_function("window.Htx?.annotationStore?.selected?.regions.length > 0")
        page.wait_for_timeout(2000)
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


def mended(editor: OurPage | Studio, labels: np.ndarray, truth: np.ndarray, classes: int, most: int) -> np.ndarray:
    """Mend the mask that an editor shows, save it, and return it as the editor held it."""
    effort = editor.hand.effort
    while quality(labels, truth, classes) < GOOD and effort.strokes < most:
        stroke = next_stroke(labels, truth)
        if stroke is None:
            break
        if len(stroke.points) == 1:
            stroke = Stroke(np.repeat(stroke.points, 2, axis=0), stroke.label, stroke.radius)
        labels = editor.draw(stroke, labels)
    effort.iou = quality(labels, truth, classes)
    editor.save()
    return labels


class Server:
    """Label Studio's API."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address.rstrip("/"), token

    def __call__(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.address + path, body, headers), timeout=120) as answer:
            return json.loads(answer.read())


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = parser_of(__doc__, "editors")
    for name in ("--studio", "--token", "--user", "--password"):
        parser.add_argument(name, required=True)
    parser.add_argument("--root", type=Path, required=True, help="Label Studio's document root")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="rows of others are kept")
    options = parser.parse_args()

    model, records = run_and_images(options)
    classes = tuple(model.classes)
    place = Path(tempfile.mkdtemp(prefix="editors-", dir=options.root.resolve()))
    photos, truths, rows = place / "photos", {}, ["image,tags"]
    (photos / "images").mkdir(parents=True)
    for record in records:
        shutil.copy(record.image, photos / "images" / record.image.name)
        rows.append(f"{record.image.name},{';'.join(classes[tag] for tag in record.tags)}")
        with Image.open(record.image) as photo:
            assert record.mask is not None
            truths[record.image.stem] = record.mask.load(photo.height, photo.width)
    (photos / "tags.csv").write_text("\n".join(rows) + "\n")
    (photos / "classes.txt").write_text("\n".join(classes) + "\n")
    folders = {tool: label(options.run, photos, output=place / tool).folder for tool in ("scribbles", "brush")}
    rough = {name: PngMask(folders["brush"] / f"{name}.png").ids() for name in truths}

    export_masks(
        folders["brush"],
        photos / "images",
        place / "studio",
        format="label-studio",
        image_url=f"/data/local-files/?d={place.name}/photos/images/",
    )
    ask = Server(options.studio, options.token)
    config_text = (place / "studio" / "label_config.xml").read_text()
    project = ask("/api/projects/", {"title": place.name, "label_config": config_text})["id"]
    ask("/api/storages/localfiles", {"project": project, "path": str(photos / "images"), "use_blob_urls": True})
    tasks = json.loads((place / "studio" / "tasks.json").read_text())
    numbers = ask(f"/api/projects/{project}/import?return_task_ids=true", tasks)["task_ids"]
    number_of = {Path(task["data"]["image"]).stem: number for task, number in zip(tasks, numbers, strict=True)}

    efforts: dict[str, dict[str, Effort]] = {tool: {} for tool in options.tools}
    held: dict[str, dict[str, np.ndarray]] = {tool: {} for tool in efforts}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS, timeout=PATIENCE)
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(PATIENCE)
        for tool in [each for each in folders if each in efforts]:
            folder = folders[tool]
            review = place / "reviews" / f"{tool}.csv"
            with serving(options.run, images=photos, masks=folder, review=review, port=PORT) as (address, _):
                page.goto(address)
                page.get_by_role("tab", name="Review").click()
                for name, truth in truths.items():
                    ours = OurPage(page, name, len(classes), tool == "scribbles")
                    held[tool][name] = mended(ours, rough[name], truth, len(classes), options.most)
                    efforts[tool][name] = ours.hand.effort
                    print(tool, name, ours.hand.effort, flush=True)
                page.goto("about:blank")
        page.goto(f"{options.studio}/user/login/")
        page.fill("input[name=email]", options.user)
        page.fill("input[name=password]", options.password)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        for name, truth in truths.items() if "label-studio" in efforts else ():
            studio = Studio(page, f"{options.studio}/projects/{project}/data?task={number_of[name]}", classes)
            held["label-studio"][name] = mended(studio, studio.labels(truth.shape), truth, len(classes), options.most)
            efforts["label-studio"][name] = studio.hand.effort
            print("label-studio", name, studio.hand.effort, flush=True)
        browser.close()

    folders = {tool: folder for tool, folder in folders.items() if tool in efforts}
    for tool, folder in folders.items():
        for name, truth in truths.items():
            efforts[tool][name].iou = quality(PngMask(folder / f"{name}.png").ids(), truth, len(classes))
    differ = {
        tool: sum(int((PngMask(folder / f"{name}.png").ids() != held[tool][name]).sum()) for name in truths)
        for tool, folder in folders.items()
    }
    if "label-studio" in efforts:
        file = place / "export.json"
        file.write_text(json.dumps(ask(f"/api/projects/{project}/export?exportType=JSON")))
        recipe = load_recipe(
            {"method": "cam"}, [f"data.classes={json.dumps(classes)}", f"data.image_folder={photos / 'images'}"]
        )
        back = {Path(record.name).stem: record.mask for record in open_data(file, recipe.data).records}
        differ["label-studio"] = 0
        for name, labels in held["label-studio"].items():
            mask = back.get(name)
            read = np.zeros_like(labels) if mask is None else mask.load(*labels.shape)
            differ["label-studio"] += int((read != labels).sum())

    path = RESULTS / f"{options.name}.json"
    rows_of = json.loads(path.read_text())["rows"] if path.exists() else {}
    differ = {**(json.loads(path.read_text())["read back, pixels that differ"] if path.exists() else {}), **differ}
    kept = {tool: {name: Effort(**each) for name, each in own.items()} for tool, own in rows_of.items()}
    efforts = {**kept, **efforts}

    def median(tool: str, key: str) -> float:
        return float(np.median([getattr(effort, key) for effort in efforts[tool].values()]))

    keys = ("strokes", "presses", "way", "waited", "seconds", "iou")
    write_results(
        options.name,
        {
            "studio": ask("/api/version")["release"],
            "medians": {tool: {key: round(median(tool, key), 3) for key in keys} for tool in efforts},
            "seconds of all": {tool: sum(each.seconds for each in own.values()) for tool, own in efforts.items()},
            "done": {tool: sum(each.iou >= GOOD for each in own.values()) for tool, own in efforts.items()},
            "read back, pixels that differ": differ,
            "pixels": sum(truth.size for truth in truths.values()),
            "rows": {tool: {name: asdict(each) for name, each in own.items()} for tool, own in efforts.items()},
            **device_facts(),
        },
    )


if __name__ == "__main__":
    main()
