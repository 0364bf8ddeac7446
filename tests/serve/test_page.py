"""The page in a real Chromium: what a person does on it, and that it asks nothing of anyone but this machine.

Screenshots are left in pytest's temporary folder (`--basetemp` chooses it).
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tagmask.api import Model, train
from tagmask.data.masks import PngMask
from tagmask.data.readers import read_dataset
from tests.conftest import tiny_recipe
from tests.serve.test_server import free_port

pytest.importorskip("gradio", reason="the page needs the extra `web`")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None or not os.environ.get("TAGMASK_BROWSER"):
    # A browser beside two other test processes on two cores is too slow to be told from one that hangs.
    pytest.skip("needs Chromium, and TAGMASK_BROWSER=1 to ask for it", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 300_000  # milliseconds; for machines that have other things to do
expect = playwright.expect
expect.set_options(timeout=PATIENCE)


@dataclass
class Visit:
    """A browser's page with what it did not like and whom it asked."""

    page: Any
    address: str
    review: Path
    pictures: Path
    problems: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def hear(self, kind: str, text: str) -> None:
        # What gradio's own client says when an upload is done, and when the page is left with a stream open.
        of_gradio = text == "Method not implemented." or text.startswith("AbortError")
        if kind in ("error", "warning") and not of_gradio:
            self.problems.append(text)

    def shoot(self, name: str) -> None:
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def visit(
    run: Path, other: Path, cooccur: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visit]:
    from tagmask.serve.server import serving

    folder = tmp_path_factory.mktemp("page")
    review = folder / "review.csv"
    with (
        serving(run, other, images=cooccur, masks=masks, review=review, port=free_port()) as (address, _),
        playwright.sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        own = Visit(page, address, review, folder)
        page.on("console", lambda line: own.hear(line.type, line.text))
        page.on("pageerror", lambda error: own.problems.append(str(error)))
        page.on("request", lambda request: own.asked.add(urlsplit(request.url).netloc))
        page.goto(address)
        expect(page.get_by_role("tab", name="Try")).to_be_visible()
        yield own
        browser.close()


@pytest.fixture(autouse=True)
def _clean_console(visit: Visit) -> Iterator[None]:
    visit.problems.clear()
    yield
    assert visit.problems == []
    assert visit.asked - {""} == {urlsplit(visit.address).netloc}


def _clear(visit: Visit) -> None:
    """An empty Try tab, whatever was on it."""
    page = visit.page
    page.get_by_role("tab", name="Try").click()
    expect(page.locator("#try-photo")).to_be_visible()
    remove = page.locator("#try-photo [aria-label='Remove Image']")
    if remove.count():
        remove.click()
    expect(page.locator("#try-message")).to_contain_text("It stays on this machine")
    expect(page.locator(".tm-panel .tm-mask")).to_have_count(0)


def _choose_photo(visit: Visit, path: Path) -> None:
    _clear(visit)
    visit.page.locator("#try-photo input[type=file]").set_input_files(path)


def test_photograph_becomes_masks_of_both_runs(visit: Visit, model: Model, photo: Path, tmp_path: Path) -> None:
    page = visit.page
    _choose_photo(visit, photo)
    panels = page.locator(".tm-panel")
    expect(panels).to_have_count(2)
    for panel in (panels.first, panels.last):
        expect(panel.locator(".tm-mask")).to_have_count(1)
        expect(panel.locator(".tm-uncertainty img")).to_have_count(1)
        expect(panel.locator(".tm-cams figure")).to_have_count(len(model.classes))
        expect(panel.locator(".tm-legend li").last).to_contain_text("background")
    expect(page.locator("#try-message")).to_contain_text("The runs agree on")
    assert sorted(panels.first.locator(".tm-cams b").all_inner_texts()) == sorted(model.classes)
    with page.expect_download() as download:
        panels.first.get_by_text("Download the mask").click()
    download.value.save_as(tmp_path / "mask.png")
    assert download.value.suggested_filename == f"{photo.stem}_mask.png"
    np.testing.assert_array_equal(PngMask(tmp_path / "mask.png").ids(), model.predict(photo))
    visit.shoot("compare")


def test_tags_restrict_the_mask(visit: Visit, model: Model, photo: Path) -> None:
    page = visit.page
    _choose_photo(visit, photo)
    tag = model.classes[-1]
    expect(page.locator(".tm-panel").first.locator(".tm-cams figure")).to_have_count(len(model.classes))
    page.locator("#try-tags input").fill(tag)
    page.locator("#try-tags input").press("Enter")
    given = page.locator(".tm-panel").first.locator("figcaption", has_text="· given")
    expect(given).to_have_count(1)
    expect(page.locator(".tm-panel").first.locator(".tm-legend .tm-name")).to_have_text([tag, "background"])
    visit.shoot("tags")
    page.locator("#try-tags input").press("Backspace")
    expect(given).to_have_count(0)


def test_opacity_moves_without_the_server_and_in_its_own_tab(visit: Visit, photo: Path) -> None:
    page = visit.page
    _choose_photo(visit, photo)
    mask = page.locator(".tm-panel .tm-mask").first
    expect(mask).to_have_css("opacity", "0.6")
    slider = page.locator("#try-opacity input[type=range]")
    slider.fill("0.25")
    expect(mask).to_have_css("opacity", "0.25")
    page.get_by_role("tab", name="Review").click()
    expect(page.locator("#review-stage .tm-mask")).to_have_css("opacity", "0.6")
    page.get_by_role("tab", name="Try").click()
    expect(mask).to_have_css("opacity", "0.25")
    slider.fill("0.6")


def test_example_is_tried_by_a_click(visit: Visit) -> None:
    _clear(visit)
    visit.page.locator("#try-examples .gallery-item").first.click()
    expect(visit.page.locator(".tm-panel .tm-mask")).to_have_count(2)


def test_bad_image_is_said_on_the_page(visit: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n no image")
    _choose_photo(visit, broken)
    expect(visit.page.get_by_role("alert").filter(has_text="broken.png")).to_have_text(re.compile(r"^broken\.png: "))
    expect(visit.page.locator(".tm-panel .tm-mask")).to_have_count(0)
    visit.shoot("error")
    visit.problems.clear()  # the browser itself says that it cannot show the picture


def test_nothing_outside_is_served(visit: Visit, cooccur: Path, run: Path, photo: Path) -> None:
    ask = visit.page.request
    api = visit.address + "gradio_api/"
    for path in ("/etc/passwd", cooccur / "tags.csv", run / "recipe.yaml", photo, "../../../../etc/passwd"):
        assert ask.get(f"{api}file={path}").status in (403, 404), path
    assert ask.get(f"{api}file={visit.address}config").status == 403
    assert ask.get(visit.address, headers={"Host": "evil.example"}).status == 403
    assert ask.get(visit.address, headers={"Origin": "http://evil.example"}).status == 403
    data = {"path": "/etc/hostname", "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
    config = ask.get(visit.address + "config").json()
    event = next(own["id"] for own in config["dependencies"] if any(name == "change" for _, name in own["targets"]))
    joined = ask.post(
        api + "queue/join", data={"data": [data, []], "fn_index": event, "session_hash": "s", "trigger_id": None}
    )
    assert joined.ok
    answer = ask.get(api + "queue/data?session_hash=s").text()
    assert '"success":false' in answer
    assert "was not uploaded" in answer
    assert "tm-mask" not in answer


def test_too_large_an_upload_is_refused(visit: Visit) -> None:
    upload = {"files": {"name": "x.png", "mimeType": "image/png", "buffer": b"\0" * (33 * 1024 * 1024)}}
    assert visit.page.request.post(visit.address + "gradio_api/upload", multipart=upload).status == 413


def test_review_is_done_by_keys_and_saved(visit: Visit, model: Model, tmp_path: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Review").click()
    expect(page.locator("#review-stage .tm-mask")).to_have_count(1)
    shown, message = page.locator("#review-facts b"), page.locator("#review-message")
    first = shown.inner_text()
    visit.shoot("review")
    page.keyboard.press("k")
    expect(message).to_contain_text(f"{first}: kept, saved")
    expect(shown).not_to_have_text(first)
    second = shown.inner_text()
    tokens = page.locator("#review-tags .token")
    tags = {own.strip() for own in tokens.all_inner_texts()}
    added = next(name for name in model.classes if name not in tags)
    page.keyboard.press("t")
    expect(page.locator("#review-tags input")).to_be_focused()
    page.keyboard.type(added)
    expect(page.locator("#review-tags input")).to_have_value(added)
    page.keyboard.press("Enter")
    expect(tokens.filter(has_text=added)).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#review-tags input")).not_to_be_focused()
    page.keyboard.press("k")
    expect(page.get_by_role("alert")).to_contain_text("tags were changed")
    visit.shoot("review-refused")
    page.keyboard.press("Control+Enter")
    expect(message).to_contain_text(f"{second}: tags fixed, saved")
    expect(shown).not_to_have_text(second)
    third = shown.inner_text()
    page.locator("#review-redo").click()
    expect(message).to_contain_text(f"{third}: to redo, saved")
    rows = {Path(row["image"]).stem: row for row in csv.DictReader(visit.review.open(encoding="utf-8"))}
    verdicts = {name: rows[Path(name).stem]["verdict"] for name in (first, second, third)}
    assert verdicts == {first: "keep", second: "tags", third: "redo"}
    assert added in rows[Path(second).stem]["tags"].split(";")
    assert len(read_dataset(visit.review, classes=model.classes)) == len(rows)
    again = train(
        visit.review, recipe=tiny_recipe("cam", "training.steps=1", "method.decoder_from=0"), output=tmp_path / "again"
    )
    assert (again / "model.safetensors").is_file()
    expect(shown).not_to_have_text(third)
    page.keyboard.press("ArrowLeft")
    expect(shown).to_have_text(third)
    page.reload()
    page.get_by_role("tab", name="Review").click()
    expect(page.locator("#review-progress")).to_contain_text("3 of")
    expect(shown).not_to_have_text(re.compile("|".join(map(re.escape, (first, second, third)))))
    visit.shoot("review-resumed")
