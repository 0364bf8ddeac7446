"""Keys that come faster than the page answers, in a real Chromium: each is stored, for the image it was for."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tagmask.api import Model
from tagmask.serve.review_tab import ReviewPage
from tests.serve.test_page import PATIENCE, expect
from tests.serve.test_server import free_port


@contextmanager
def _reviewing(browser: Any, run: Path, cooccur: Path, masks: Path, review: Path) -> Iterator[Any]:
    """The browser's page, with the review of the masks open."""
    from tagmask.serve.server import serving

    with serving(run, images=cooccur, masks=masks, review=review, port=free_port()) as (address, _):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.get_by_role("tab", name="Review").click()
        expect(page.locator("#review-stage .tm-mask")).to_have_count(1)
        yield page
        page.close()


def _verdicts(review: Path) -> dict[str, str]:
    return {Path(row["image"]).stem: row["verdict"] for row in csv.DictReader(review.open(encoding="utf-8"))}


@pytest.fixture
def order(masks: Path) -> list[str]:
    """The names of the masks as they come: the least confident first."""
    rows = list(csv.DictReader((masks / "confidence.csv").open(encoding="utf-8")))
    return [row["image"] for row in sorted(rows, key=lambda row: (float(row["confidence"]), row["image"]))]


def _slow_down(monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    decide = ReviewPage.decide

    def slowly(*arguments: Any) -> list[Any]:
        time.sleep(delay)
        return decide(*arguments)

    monkeypatch.setattr(ReviewPage, "decide", slowly)


@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_keys_at_ten_a_second_decide_one_image_each(
    browser: Any,
    run: Path,
    cooccur: Path,
    masks: Path,
    order: list[str],
    delay: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _slow_down(monkeypatch, delay)
    review, keys = tmp_path / "review.csv", "krkkrrkr"
    with _reviewing(browser, run, cooccur, masks, review) as page:
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(100)
        expect(page.locator("#review-progress")).to_contain_text(f"{len(keys)} of {len(order)} decided")
        expect(page.locator("#review-facts b")).to_have_text(order[len(keys)])
    expected = {Path(name).stem: {"k": "keep", "r": "redo"}[key] for name, key in zip(order, keys, strict=False)}
    assert {name: verdict for name, verdict in _verdicts(review).items() if verdict} == expected


def test_clicks_wait_in_the_same_line_and_a_refusal_ends_it(
    browser: Any, run: Path, cooccur: Path, masks: Path, order: list[str], model: Model, tmp_path: Path
) -> None:
    review = tmp_path / "review.csv"
    with _reviewing(browser, run, cooccur, masks, review) as page:
        page.evaluate("['keep', 'redo', 'keep'].forEach((name) => document.getElementById(`review-${name}`).click())")
        expect(page.locator("#review-facts b")).to_have_text(order[3])
        given = {own.strip() for own in page.locator("#review-tags .token").all_inner_texts()}
        page.keyboard.press("t")
        page.keyboard.type(next(name for name in model.classes if name not in given))
        page.keyboard.press("Enter")
        expect(page.locator("#review-tags .token")).to_have_count(len(given) + 1)
        page.keyboard.press("Escape")
        for key in "krr":  # the first is refused, since the tags were changed: the others were for images to come
            page.keyboard.press(key)
        expect(page.get_by_role("alert")).to_contain_text("tags were changed")
        page.wait_for_timeout(1000)
        expect(page.locator("#review-facts b")).to_have_text(order[3])
    names = [Path(name).stem for name in order[:4]]
    assert [_verdicts(review)[name] for name in names] == ["keep", "redo", "keep", ""]


def test_keys_beyond_the_last_image_change_no_decision(
    browser: Any, run: Path, cooccur: Path, masks: Path, order: list[str], tmp_path: Path
) -> None:
    review = tmp_path / "review.csv"
    with _reviewing(browser, run, cooccur, masks, review) as page:
        for _ in order:
            page.keyboard.press("k")
        for _ in range(3):
            page.keyboard.press("r")
        expect(page.locator("#review-message")).to_contain_text("All are decided")
        page.wait_for_timeout(1000)
    assert [_verdicts(review)[Path(name).stem] for name in order] == ["keep"] * len(order)


def test_what_is_typed_after_t_is_no_decision(
    browser: Any,
    run: Path,
    cooccur: Path,
    masks: Path,
    order: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _slow_down(monkeypatch, 0.7)
    review = tmp_path / "review.csv"
    with _reviewing(browser, run, cooccur, masks, review) as page:
        for key in "ktrk":
            page.keyboard.press(key)
        expect(page.locator("#review-tags input")).to_be_focused()
        expect(page.locator("#review-facts b")).to_have_text(order[1])
        page.wait_for_timeout(1500)
        expect(page.locator("#review-progress")).to_contain_text(f"1 of {len(order)} decided")
    assert [_verdicts(review)[Path(name).stem] for name in order[:3]] == ["keep", "", ""]
