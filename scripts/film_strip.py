"""Mend a mask on the page by script, and lay the screenshots side by side: docs/images/mending.png.

    python scripts/film_strip.py demo/seco -o docs/images/mending.png

It opens `tagmask serve` in Chromium, on masks that it lets the run make of some evaluated images, chooses the roughest
one, draws the lines that benchmarks/mending.py would draw, and keeps a picture of the editor before and after each.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]
from mending import GOOD, next_stroke, quality  # noqa: E402

from tagmask.api import label, load, open_data, to_evaluate  # noqa: E402
from tagmask.data.masks import PngMask  # noqa: E402
from tagmask.serve.server import serving  # noqa: E402

SIDE = 250  # pixels of a frame
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 300_000
PORT = 7871
SIZE = 3  # of the scribble's brush


def at(page: Any, row: float, column: float) -> tuple[float, float]:
    """Find where the middle of a pixel of the image is on the screen."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    canvas = page.locator("#tm-editor canvas")
    view, box = canvas.evaluate("own => ({ ...own.dataset })"), canvas.bounding_box()
    scale = float(view["scale"])
    return (
        box["x"] + float(view["left"]) + (column + 0.5) * scale,
        box["y"] + float(view["top"]) + (row + 0.5) * scale,
    )


def frame(page: Any, height: int, width: int) -> Image.Image:
    """Cut the picture out of the editor's canvas."""
    page.wait_for_timeout(400)
    (left, top), (right, bottom) = at(page, -0.5, -0.5), at(page, height - 0.5, width - 0.5)
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    shot = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    return shot.resize((round(SIDE * shot.width / shot.height), SIDE), Image.Resampling.LANCZOS)


def film(page: Any, labels: np.ndarray, truth: np.ndarray, classes: int, most: int) -> list[tuple[Image.Image, str]]:
    """Mend the mask that is shown, and return the frames with a caption each."""
    page.keyboard.press("e")
    page.wait_for_selector("#tm-editor canvas[data-ready]")
    frames = [(frame(page, *truth.shape), f"rough: IoU {quality(labels, truth, classes):.0%}")]
    page.locator("#tm-editor input[type=range]").first.fill(str(SIZE))
    page.keyboard.press("i")

    for number in range(1, most + 1):
        stroke = next_stroke(labels, truth)
        if stroke is None or quality(labels, truth, classes) >= GOOD:
            break
        page.locator(f"#tm-editor button[data-label='{stroke.label}']").click()
        ends = stroke.points[np.argsort(stroke.points @ (stroke.points[-1] - stroke.points[1]))][[0, -1]]
        page.mouse.move(*at(page, *ends[0]))
        page.mouse.down()
        page.mouse.move(*at(page, *ends[1]), steps=8)
        drawn = frame(page, *truth.shape)
        said = page.locator("#tm-editor button[aria-pressed=true][data-label]").inner_text().split("\n")[0]
        with page.expect_response("**/mend/scribble*") as answer:
            page.mouse.up()
        labels = np.frombuffer(answer.value.body(), np.uint8).reshape(truth.shape)
        page.wait_for_selector("#tm-editor canvas:not([aria-busy=true])")
        frames += [(drawn, f"{number}: “this is {said}”"), (frame(page, *truth.shape), score(labels, truth, classes))]
    page.keyboard.press("s")
    page.wait_for_selector("#tm-editor", state="detached")
    return frames


def score(labels: np.ndarray, truth: np.ndarray, classes: int) -> str:
    """Say how good the map is now."""
    return f"refined: IoU {quality(labels, truth, classes):.0%}"


def laid_out(frames: list[tuple[Image.Image, str]]) -> Image.Image:
    """Put the frames side by side, each above its caption."""
    widths = [picture.width for picture, _ in frames]
    sheet = Image.new("RGB", (sum(widths) + 8 * (len(frames) - 1), SIDE + 26), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    font = ImageFont.load_default(15)
    for picture, caption in frames:
        sheet.paste(picture, (left, 0))
        draw.text((left + 2, SIDE + 4), caption, "black", font)
        left += picture.width + 8
    return sheet


def main() -> None:
    """Mend one mask of a run, and write the strip."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "docs" / "images" / "mending.png")
    parser.add_argument("--images", type=int, default=20, help="how many to choose the roughest of")
    parser.add_argument("--strokes", type=int, default=2)
    options = parser.parse_args()

    model = load(options.run, device="cpu")
    config, classes = model.run.recipe.data, len(model.classes)
    dataset = to_evaluate(open_data(None, config, model.classes), config, None)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        chosen = [record for record in dataset.records if record.mask is not None and record.tags][: options.images]
        photos = place / "photos"
        photos.mkdir()
        rows = ["image,tags"]
        for record in chosen:
            shutil.copy(record.image, photos / record.image.name)
            rows.append(f"{record.image.name},{';'.join(dataset.classes[tag] for tag in record.tags)}")
        (photos / "tags.csv").write_text("\n".join(rows) + "\n")
        (photos / "classes.txt").write_text("\n".join(dataset.classes) + "\n")
        masks = label(options.run, photos, output=place / "masks").folder
        truths = {}
        for record in chosen:
            ids = PngMask(masks / f"{record.image.stem}.png").ids()
            assert record.mask is not None
            truths[record.image.stem] = record.mask.load(*ids.shape)
        rough = {name: quality(PngMask(masks / f"{name}.png").ids(), truth, classes) for name, truth in truths.items()}
        name = sorted(rough, key=rough.__getitem__)[len(rough) // 4]  # rough, and not hopeless
        review = place / "reviews" / "first.csv"
        with (
            serving(options.run, images=photos, masks=masks, review=review, port=PORT) as (address, _),
            sync_playwright() as driver,
        ):
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS, timeout=PATIENCE)
            page = browser.new_page(viewport={"width": 1300, "height": 900})
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.get_by_role("tab", name="Review").click()
            page.locator(f".tm-strip [data-name='{name}']").click()
            page.wait_for_selector(f"#review-facts [data-showing$=' {name}']")
            frames = film(page, PngMask(masks / f"{name}.png").ids(), truths[name], classes, options.strokes)
            browser.close()
        final = PngMask(masks / f"{name}.png").ids()
        print(f"{name}: {rough[name]:.3f} -> {quality(final, truths[name], classes):.3f}")
        laid_out(frames).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
