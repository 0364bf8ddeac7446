"""A mask is mended on the page, in a real Chromium: strokes, regions, scribbles, undo, save."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagmask.api import Model, label, train
from tagmask.data.confidence import read_confidence
from tagmask.data.dataset import Dataset
from tagmask.data.masks import PngMask
from tagmask.serve.edit import change_region
from tests.conftest import staged_recipe
from tests.serve.test_page import PATIENCE, expect
from tests.serve.test_server import free_port


@contextmanager
def _reviewing(browser: Any, run: Path, cooccur: Path, labelled: Path, review: Path, **options: Any) -> Iterator[Any]:
    """The browser's page with the review open; nothing may be said on its console."""
    from tagmask.serve.server import serving

    problems: list[str] = []
    with serving(run, images=cooccur, masks=labelled, review=review, port=free_port()) as (address, _):
        context = browser.new_context(**({"viewport": {"width": 1300, "height": 900}} | options))
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(address)
        page.get_by_role("tab", name="Review").click()
        expect(page.locator("#review-stage .tm-mask")).to_have_count(1)
        yield page
        assert [text for text in problems if "409" not in text and not text.startswith("AbortError")] == []
        context.close()


def _edit(page: Any) -> str:
    """Open the editor by its key; return the name of the image."""
    name = page.locator("#review-facts b").inner_text()
    page.keyboard.press("e")
    expect(page.locator("#tm-editor canvas[data-ready]")).to_have_count(1)
    return name


def _at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where the middle of a pixel of the image is on the screen."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    canvas = page.locator("#tm-editor canvas")
    view = canvas.evaluate("own => ({ ...own.dataset })")
    box = canvas.bounding_box()
    scale = float(view["scale"])
    return box["x"] + float(view["left"]) + (x + 0.5) * scale, box["y"] + float(view["top"]) + (y + 0.5) * scale


def _drag(page: Any, *points: tuple[int, int], button: str = "left") -> None:
    page.mouse.move(*_at(page, *points[0]))
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*_at(page, *point), steps=4)
    page.mouse.up(button=button)


def _click(page: Any, x: int, y: int) -> None:
    page.mouse.click(*_at(page, x, y))
    _settle(page)


def _settle(page: Any) -> None:
    """Wait until the server has answered what was asked."""
    expect(page.locator("#tm-editor canvas:not([aria-busy=true])")).to_have_count(1)


def _save(page: Any, name: str) -> None:
    page.keyboard.press("s")
    expect(page.locator("#review-message")).to_contain_text(f"{name}: mended, saved")
    expect(page.locator("#tm-editor")).to_have_count(0)


def _set_size(page: Any, size: int) -> None:
    page.locator("#tm-editor .tm-size input").first.fill(str(size))


def _ids(folder: Path, name: str) -> np.ndarray:
    return PngMask(folder / f"{name}.png").ids()


def _verdicts(review: Path) -> dict[str, str]:
    return {Path(row["image"]).stem: row["verdict"] for row in csv.DictReader(review.open(encoding="utf-8"))}


def _painted(points: list[tuple[int, int]], size: int, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels that a round brush covers at these points."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.any([(columns - x) ** 2 + (rows - y) ** 2 <= (size / 2) ** 2 for x, y in points], axis=0)


def test_stroke_is_saved_pixel_by_pixel(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, shots: Path
) -> None:
    review = tmp_path / "reviews.csv"
    with _reviewing(browser, run, cooccur, labelled, review) as page:
        name = _edit(page)
        expected = _ids(labelled, name)
        page.keyboard.press("2")
        label = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _set_size(page, 5)
        _drag(page, (10, 20), (30, 20))
        expected[_painted([(x, 20) for x in range(10, 31)], 5, expected.shape)] = label
        page.keyboard.press("x")
        _set_size(page, 1)
        _drag(page, (15, 5), (15, 40))
        expected[5:41, 15] = 0
        page.screenshot(path=shots / "stroke.png")
        _save(page, name)
        np.testing.assert_array_equal(_ids(labelled, name), expected)
        assert _verdicts(review)[Path(name).stem] == "edited"
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#review-facts b")).to_have_text(name)
        expect(page.locator("#review-facts .tm-edited")).to_have_text("mended")
        page.screenshot(path=shots / "mended.png", full_page=True)
    with _reviewing(browser, run, cooccur, labelled, review) as page:  # a second start knows it
        expect(page.locator("#review-progress")).to_contain_text("1 mended")
        expect(page.locator("#review-facts b")).not_to_have_text(name)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#review-facts .tm-edited")).to_have_text("mended")


def test_undo_regions_and_what_is_not_saved(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path
) -> None:
    review = tmp_path / "reviews.csv"
    with _reviewing(browser, run, cooccur, labelled, review) as page:
        name = _edit(page)
        before = _ids(labelled, name)
        _set_size(page, 9)
        page.keyboard.press("1")
        first = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _drag(page, (8, 8), (12, 8))
        page.keyboard.press("Control+z")
        page.keyboard.press("Escape")
        expect(page.locator("#tm-editor")).to_have_count(0)
        assert (_ids(labelled, name) == before).all()
        assert not review.exists()

        assert _edit(page) == name
        _set_size(page, 9)
        page.keyboard.press("3")
        third = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _drag(page, (10, 10), (14, 10))
        _drag(page, (30, 30), (34, 30))
        expected = before.copy()
        points = [(x, 10) for x in range(10, 15)] + [(x, 30) for x in range(30, 35)]
        expected[_painted(points, 9, before.shape)] = third
        page.keyboard.press("d")
        _click(page, 32, 30)
        after = change_region(expected, 32, 30, "delete", 0)
        page.keyboard.press("1")
        page.keyboard.press("r")
        _click(page, 12, 10)
        page.keyboard.press("Control+z")
        page.keyboard.press("Control+Shift+z")
        page.keyboard.press("Control+z")
        _save(page, name)
        np.testing.assert_array_equal(_ids(labelled, name), after)
        assert (after == third).sum() < (expected == third).sum()
        assert first != third


def test_zoom_pan_hide_and_a_warning_before_changes_are_left(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path
) -> None:
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        name = _edit(page)
        before = _ids(labelled, name)
        canvas = page.locator("#tm-editor canvas")
        seen = canvas.screenshot()
        page.keyboard.press("h")
        page.wait_for_timeout(300)
        assert canvas.screenshot() != seen
        page.keyboard.press("h")
        scale = float(canvas.get_attribute("data-scale"))
        x, y = _at(page, 20, 20)
        page.mouse.move(x, y)
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(300)
        assert float(canvas.get_attribute("data-scale")) > 1.5 * scale
        assert _at(page, 20, 20) == pytest.approx((x, y), abs=2 * scale)  # what is under the pointer stays there
        _drag(page, (20, 20), (24, 20), button="middle")
        assert _at(page, 20, 20)[0] > x
        page.keyboard.press("Space")
        _set_size(page, 1)
        page.keyboard.press("2")
        label = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _drag(page, (19, 21), (23, 21))
        page.keyboard.press("Escape")
        expect(page.locator("#tm-editor .tm-status")).to_contain_text("There are changes")
        _save(page, name)
        before[21, 19:24] = label
        np.testing.assert_array_equal(_ids(labelled, name), before)


def test_scribble_is_refined_by_the_server(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, shots: Path
) -> None:
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        name = _edit(page)
        before = _ids(labelled, name)
        page.keyboard.press("2")
        label = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        page.keyboard.press("i")
        _set_size(page, 2)
        _drag(page, (20, 24), (28, 24))
        _settle(page)
        page.screenshot(path=shots / "scribble.png")
        _save(page, name)
        after = _ids(labelled, name)
        changed = after != before
        assert (after[24, 20:29] == label).all()
        assert set(np.unique(after[changed])) <= {label}
        assert changed.sum() > 9


def test_decision_elsewhere_meanwhile_is_not_overwritten(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path
) -> None:
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        name = _edit(page)
        _drag(page, (8, 8), (12, 8))
        shutil.copy(labelled / f"{name}.png", tmp_path / "aside.png")
        (labelled / f"{name}.png").write_bytes((tmp_path / "aside.png").read_bytes() + b"\0")
        page.keyboard.press("s")
        expect(page.locator("#tm-editor .tm-wrong")).to_contain_text("something else changed the mask")
        expect(page.locator("#tm-editor")).to_have_count(1)


def test_mask_is_labelled_anew_with_more_and_less_background(
    browser: Any, run: Path, model: Model, cooccur: Path, labelled: Path, tmp_path: Path, shots: Path
) -> None:
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        name = _edit(page)
        before = _ids(labelled, name)
        tags = [text.strip() for text in page.locator("#review-tags .token").all_inner_texts()]
        found = model.predict(next((cooccur / "images").rglob(f"{Path(name).name}.*")))
        page.keyboard.press("2")
        label = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _set_size(page, 5)
        _drag(page, (10, 20), (30, 20))  # what was drawn by hand stays
        page.keyboard.press("a")
        page.locator("#tm-editor .tm-anew select").nth(1).select_option("none")
        _settle(page)
        for _ in range(3):
            page.keyboard.press("-")
            _settle(page)
        page.screenshot(path=shots / "anew.png")
        expected = found.relabel(tags, background=-1.5, refine="none").copy()
        painted = _painted([(x, 20) for x in range(10, 31)], 5, expected.shape)
        expected[painted] = label
        _save(page, name)
        np.testing.assert_array_equal(_ids(labelled, name), expected)
        assert (expected == 0).sum() < (before == 0).sum()
    (row,) = (row for row in read_confidence(labelled / "confidence.csv") if row.name == name)
    shown = tuple(own for number, own in enumerate(model.classes, start=1) if (expected == number).any())
    assert row.classes == shown


def test_what_is_painted_and_clicked_is_learnt_by_the_segmenter(
    browser: Any, cooccur: Path, tmp_path: Path, learnt: list[Dataset]
) -> None:
    run = train(cooccur, recipe=staged_recipe("cam"), output=tmp_path / "run")
    masks = label(run, cooccur, output=tmp_path / "labelled", split=["train"]).folder
    before = {row.name: _ids(masks, row.name) for row in read_confidence(masks / "confidence.csv")}
    with _reviewing(browser, run, cooccur, masks, tmp_path / "reviews.csv") as page:
        name = _edit(page)
        page.keyboard.press("2")
        own = int(page.locator(".tm-classes button[aria-pressed=true]").get_attribute("data-label"))
        _set_size(page, 9)
        _drag(page, (12, 12), (30, 12))
        page.keyboard.press("o")
        _click(page, 20, 12)
        _save(page, name)
    mended = _ids(masks, name)
    assert (mended[12, 12:31] == own).all()
    assert (mended != before[name]).any()

    old = (run / "segmenter" / "model.safetensors").read_bytes()
    taken = staged_recipe("cam", data={"untagged": "negative", "use_masks": str(masks)})
    train(cooccur, recipe=taken, output=run, from_stage="segmenter")
    *_, data = learnt
    for record in data.records:
        assert record.mask is not None
        made = mended if record.name == name else _ids(run / "refine", record.name)
        np.testing.assert_array_equal(record.mask.load(*made.shape), made)
    assert name in [record.name for record in data.records]
    assert (run / "segmenter" / "model.safetensors").read_bytes() != old


def test_phone_and_dark(browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, shots: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv", **phone) as page:
        page.screenshot(path=shots / "phone-review.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        keep = page.locator("#review-keep").bounding_box()
        assert keep["y"] + keep["height"] <= 844  # a decision needs no scrolling
        heights = page.evaluate(  # what scrolls below the buttons neither shows through them nor takes their taps
            "['#review-tags span', '#review-decide'].map((own) => Math.max(...[...document.querySelectorAll(own)]"
            ".map((each) => Number(getComputedStyle(each).zIndex) || 0)))"
        )
        assert heights[0] < heights[1]
        for width in (390, 320):  # the three stand side by side, each with its text on one line inside it
            page.set_viewport_size({"width": width, "height": 844})
            buttons = page.locator("#review-decide button")
            assert len({(button.bounding_box()["y"], button.bounding_box()["height"]) for button in buttons.all()}) == 1
            assert buttons.evaluate_all("all => all.every((own) => own.scrollWidth <= own.clientWidth)")
            page.screenshot(path=shots / f"phone-buttons-{width}.png")
        page.set_viewport_size(phone["viewport"])
        page.locator("#review-edit").click()
        canvas = page.locator("#tm-editor canvas[data-ready]")
        expect(canvas).to_have_count(1)
        page.wait_for_timeout(500)
        page.screenshot(path=shots / "phone.png")
        box = canvas.bounding_box()
        assert box["width"] > 350
        assert box["height"] > 400
        save = page.locator("#tm-editor .tm-save").bounding_box()
        assert save["y"] + save["height"] <= 844
        page.locator("#tm-editor button[data-tool=alone]").click()  # every tool can be reached
        page.locator("#tm-editor button", has_text="Label anew").click()
        expect(page.locator("#tm-editor .tm-anew input")).to_be_visible()
        page.screenshot(path=shots / "phone-anew.png")
        assert canvas.bounding_box()["height"] > 300
        assert page.evaluate("document.querySelector('#tm-editor').scrollWidth") <= 390
