"""The page in a real Chromium: what a person does on it, and that it asks nothing of anyone but this machine.

Screenshots are left in pytest's temporary folder (`--basetemp` chooses it).
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tagmask.api import Model
from tagmask.data.masks import PngMask
from tagmask.data.readers import read_dataset
from tests.serve.test_server import free_port

pytest.importorskip("gradio", reason="the page needs the extra `web`")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None or not os.environ.get("TAGMASK_BROWSER"):
    # A browser beside two other test processes on two cores is too slow to be told from one that hangs.
    pytest.skip("needs Chromium, and TAGMASK_BROWSER=1 to ask for it", allow_module_level=True)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 120_000  # milliseconds; for machines that have other things to do


@dataclass
class Visit:
    """A browser's page with what it did not like and whom it asked."""

    page: Any
    address: str
    review: Path
    pictures: Path
    problems: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

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
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE)
        own = Visit(page, address, review, folder)
        page.on("console", lambda line: own.problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: own.problems.append(str(error)))
        page.on("request", lambda request: own.asked.add(urlsplit(request.url).netloc))
        page.goto(address)
        page.get_by_role("tab", name="Try").wait_for()
        yield own
        browser.close()


@pytest.fixture(autouse=True)
def _clean_console(visit: Visit) -> Iterator[None]:
    visit.problems.clear()
    yield
    assert visit.problems == []
    assert visit.asked - {""} == {urlsplit(visit.address).netloc}


def _choose_photo(visit: Visit, path: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Try").click()
    if page.locator("#try-photo [aria-label='Clear']").count():
        page.locator("#try-photo [aria-label='Clear']").click()
    page.locator("#try-photo input[type=file]").set_input_files(path)


def test_photograph_becomes_masks_of_both_runs(visit: Visit, model: Model, photo: Path, tmp_path: Path) -> None:
    page = visit.page
    _choose_photo(visit, photo)
    panels = page.locator(".tm-panel")
    panels.first.locator(".tm-mask").wait_for()
    assert panels.count() == 2
    assert panels.nth(1).locator(".tm-mask").count() == 1
    assert panels.first.locator(".tm-legend li").last.inner_text().startswith("background")
    assert "The runs agree on" in page.locator("#try-message").inner_text()
    captions = panels.first.locator(".caption-label").all_inner_texts()
    assert sorted(caption.split(" · ")[0] for caption in captions) == sorted(model.classes)
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
    page.locator("#try-tags input").fill(tag)
    page.locator("#try-tags input").press("Enter")
    page.locator(".tm-panel").first.get_by_text("· given").wait_for()
    names = page.locator(".tm-panel").first.locator(".tm-legend .tm-name").all_inner_texts()
    assert names == [tag, "background"]
    visit.shoot("tags")
    page.locator("#try-tags input").press("Backspace")
    page.locator(".tm-panel").first.get_by_text("· given").wait_for(state="detached")


def test_opacity_moves_without_the_server(visit: Visit, photo: Path) -> None:
    page = visit.page
    _choose_photo(visit, photo)
    mask = page.locator(".tm-panel .tm-mask").first
    mask.wait_for()
    page.locator("#try-opacity input[type=range]").fill("0.25")
    assert mask.evaluate("own => getComputedStyle(own).opacity") == "0.25"
    page.locator("#try-opacity input[type=range]").fill("0.6")


def test_example_is_tried_by_a_click(visit: Visit, photo: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Try").click()
    page.locator("#try-photo [aria-label='Clear']").click()
    page.get_by_text("It stays on this machine").wait_for()
    page.locator(".gallery-item").first.click()
    page.locator(".tm-panel .tm-mask").first.wait_for()


def test_bad_image_is_said_on_the_page(visit: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n no image")
    _choose_photo(visit, broken)
    alert = visit.page.get_by_role("alert").filter(has_text="broken.png")
    alert.wait_for()
    assert alert.inner_text().startswith("broken.png: ")
    assert visit.page.locator(".tm-panel .tm-mask").count() == 0
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
    if joined.ok:
        answer = ask.get(api + "queue/data?session_hash=s").text()
        assert '"success":false' in answer.replace(" ", "")
        assert "tm-mask" not in answer


def test_too_large_an_upload_is_refused(visit: Visit) -> None:
    upload = {"files": {"name": "x.png", "mimeType": "image/png", "buffer": b"\0" * (33 * 1024 * 1024)}}
    assert visit.page.request.post(visit.address + "gradio_api/upload", multipart=upload).status == 413


def test_review_is_done_by_keys_and_saved(visit: Visit, model: Model) -> None:
    page = visit.page
    page.get_by_role("tab", name="Review").click()
    page.locator("#review-stage .tm-mask").wait_for()
    shown = page.locator("#review-facts b")
    first = shown.inner_text()
    visit.shoot("review")
    page.keyboard.press("k")
    page.locator("#review-message").get_by_text(f"{first}: kept, saved").wait_for()
    second = shown.inner_text()
    assert second != first
    page.keyboard.press("t")
    given = page.locator("#review-tags .token").all_inner_texts()
    added = next(name for name in model.classes if name not in {own.strip() for own in given})
    page.keyboard.type(added)
    page.keyboard.press("Enter")
    page.locator("#review-tags .token", has_text=added).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    page.get_by_role("alert").filter(has_text="tags were changed").wait_for()
    visit.shoot("review-refused")
    page.keyboard.press("Control+Enter")
    page.locator("#review-message").get_by_text(f"{second}: tags fixed, saved").wait_for()
    rows = {Path(row["image"]).stem: row for row in csv.DictReader(visit.review.open(encoding="utf-8"))}
    assert rows[Path(first).stem]["verdict"] == "keep"
    assert rows[Path(second).stem]["verdict"] == "tags"
    assert added in rows[Path(second).stem]["tags"].split(";")
    assert len(read_dataset(visit.review, classes=model.classes)) == len(rows)
    page.keyboard.press("ArrowLeft")
    page.locator("#review-facts b", has_text=second).wait_for()
    page.reload()
    page.get_by_role("tab", name="Review").click()
    page.locator("#review-progress").get_by_text("2 of").wait_for()
    assert shown.inner_text() not in (first, second)
    visit.shoot("review-resumed")
