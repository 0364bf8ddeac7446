"""From rough masks to good ones in three editors, by one hand: our page, Label Studio, X-AnyLabeling.

    make bench NAME=editors ARGS="demo/seco --tools scribbles brush"
    … ARGS="demo/seco --tools label-studio --studio http://127.0.0.1:8080 --token … --user … --password … --root …"
    … ARGS="demo/seco --tools x-anylabeling --xanylabeling PYTHON"

The hand of benchmarks/mending.py, which knows the ground truth, mends the masks of a run until their mean IoU is 0.9.
In Chromium it draws by a real pointer on what the editor shows, and after each stroke reads from the editor what its
masks are now: on the page with *Is* (refined), and with *Brush* and *Erase*; in Label Studio with its brush and eraser.
In X-AnyLabeling it draws polygons anew (benchmarks/polygon_editor.py).

Counted are strokes, the pointer's way on the screen and presses of keys and buttons. A hand's seconds are reckoned from
them, the same for all: `SPEED` pixels a second, `PRESS` seconds a press or stroke. To them come the seconds that the
editor let wait. What a person needs to look and to think is not in them. Windows are of 1300 x 900 pixels.

Label Studio runs already, with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`; `--root` is its document root, to which
photographs are copied, and `--token` a legacy token of the user. X-AnyLabeling is installed in an environment of its
own, whose Python is named; it needs no screen.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from browser_hand import Effort, Hand, ends_of
from common import RESULTS, device_facts, write_results
from mending import GOOD, Stroke, next_stroke, parser_of, quality, run_and_images
from PIL import Image
from polygon_editor import draw_all
from studio_editor import Project, Studio

from tagmask.api import label
from tagmask.data.masks import PngMask
from tagmask.serve.server import serving

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TOOLS = ("scribbles", "brush", "label-studio", "x-anylabeling")
PATIENCE, PORT = 120_000, 7872


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


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = parser_of(__doc__, "editors")
    for name in ("--studio", "--token", "--user", "--password"):
        parser.add_argument(name, help="of Label Studio")
    parser.add_argument("--root", type=Path, help="Label Studio's document root")
    parser.add_argument("--xanylabeling", type=Path, help="the Python of X-AnyLabeling's environment")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS[:2], help="rows of others are kept")
    options = parser.parse_args()
    studio = (options.studio, options.token, options.user, options.password, options.root)
    if "label-studio" in options.tools and None in studio:
        parser.error("label-studio needs --studio, --token, --user, --password and --root")
    if "x-anylabeling" in options.tools and options.xanylabeling is None:
        parser.error("x-anylabeling needs --xanylabeling")

    model, records = run_and_images(options)
    classes = tuple(model.classes)
    place = Path(tempfile.mkdtemp(prefix="editors-", dir=options.root and options.root.resolve()))
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

    efforts: dict[str, dict[str, Effort]] = {tool: {} for tool in options.tools}
    held: dict[str, dict[str, np.ndarray]] = {tool: {} for tool in efforts}
    read: dict[str, dict[str, np.ndarray]] = {}
    told: dict[str, Any] = {}
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
            read[tool] = {name: PngMask(folder / f"{name}.png").ids() for name in truths}
        if "label-studio" in efforts:
            project = Project(options.studio, options.token, place, folders["brush"], photos / "images")
            project.log_in(page, options.user, options.password)
            for name, truth in truths.items():
                shown = Studio(page, project.task(name), classes)
                held["label-studio"][name] = mended(shown, shown.labels(truth.shape), truth, len(classes), options.most)
                efforts["label-studio"][name] = shown.hand.effort
                print("label-studio", name, shown.hand.effort, flush=True)
            read["label-studio"] = project.masks(truths, classes)
            told["studio"] = project.ask("/api/version")["release"]
        browser.close()
    if "x-anylabeling" in efforts:
        done, read["x-anylabeling"] = draw_all(options.xanylabeling, photos / "images", rough, truths, classes)
        efforts["x-anylabeling"] = {name: Effort(**each) for name, each in done.items()}
        held["x-anylabeling"] = read["x-anylabeling"]  # what it holds are corners
    for tool, masks in read.items():
        for name, truth in truths.items():
            efforts[tool][name].iou = quality(masks[name], truth, len(classes))
    _write(options.name, efforts, held, read, {"pixels": sum(truth.size for truth in truths.values()), **told})


def _write(
    name: str,
    efforts: dict[str, dict[str, Effort]],
    held: dict[str, dict[str, np.ndarray]],
    read: dict[str, dict[str, np.ndarray]],
    told: dict[str, Any],
) -> None:
    """Write what was measured beside what earlier runs measured with other tools."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    differ = {tool: sum(int((read[tool][each] != held[tool][each]).sum()) for each in held[tool]) for tool in held}
    kept = {
        tool: {image: Effort(**each) for image, each in own.items()} for tool, own in before.get("rows", {}).items()
    }
    efforts = {**kept, **efforts}

    def median(tool: str, key: str) -> float:
        return float(np.median([getattr(effort, key) for effort in efforts[tool].values()]))

    keys = ("strokes", "presses", "way", "waited", "seconds", "iou")
    write_results(
        name,
        {
            **({"studio": before["studio"]} if "studio" in before else {}),
            **told,
            "medians": {tool: {key: round(median(tool, key), 3) for key in keys} for tool in efforts},
            "seconds of all": {tool: sum(each.seconds for each in own.values()) for tool, own in efforts.items()},
            "done": {tool: sum(each.iou >= GOOD for each in own.values()) for tool, own in efforts.items()},
            "read back, pixels that differ": {**before.get("read back, pixels that differ", {}), **differ},
            "rows": {tool: {image: asdict(each) for image, each in own.items()} for tool, own in efforts.items()},
            **device_facts(),
        },
    )


if __name__ == "__main__":
    main()
