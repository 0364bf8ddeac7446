"""The strip of small pictures, in a real Chromium: it jumps, follows decisions and choices, and stays small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagmask.data.confidence import read_confidence
from tagmask.serve import thumbs
from tests.serve.test_mend_page import _drag, _edit, _reviewing, _save, _verdicts
from tests.serve.test_page import expect


def test_strip_jumps_and_follows_decisions(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, shots: Path
) -> None:
    rows = read_confidence(labelled / "confidence.csv")
    order = [row.name for row in sorted(rows, key=lambda row: (row.confidence or 0, row.name))]
    review = tmp_path / "reviews.csv"
    with _reviewing(browser, run, cooccur, labelled, review) as page:
        shown, buttons = page.locator("#review-facts b"), page.locator(".tm-strip button")
        expect(buttons.first).to_be_visible()
        names = buttons.evaluate_all("all => all.map(own => own.dataset.name)")
        assert names == order[: len(names)]
        expect(page.locator(".tm-strip [aria-current]")).to_have_attribute("data-name", order[0])
        page.wait_for_function("[...document.querySelectorAll('.tm-strip img')].slice(0, 5).every(own => own.complete)")
        loaded = buttons.locator("img").first.evaluate("own => [own.naturalWidth, own.naturalHeight]")
        assert loaded == [48, 48]

        # A click jumps and decides nothing; the key after it is for the image that was jumped to.
        buttons.nth(3).click()
        expect(shown).to_have_text(order[3])
        expect(page.locator(".tm-strip [aria-current]")).to_have_attribute("data-name", order[3])
        assert not review.exists()
        page.keyboard.press("k")
        expect(page.locator("#review-message")).to_contain_text(f"{order[3]}: kept")
        expect(page.locator(f".tm-strip [data-name='{order[3]}']")).to_have_attribute("data-verdict", "keep")
        assert {name: said for name, said in _verdicts(review).items() if said} == {Path(order[3]).name: "keep"}

        # Clicks faster than the page answers: the last one counts.
        buttons.nth(1).click()
        buttons.nth(2).click()
        expect(shown).to_have_text(order[2])

        # A mask that was mended has another picture.
        before = page.locator(f".tm-strip [data-name='{order[2]}'] img").get_attribute("src")
        name = _edit(page)
        page.keyboard.press("2")
        _drag(page, (8, 8), (40, 40))
        _save(page, name)
        expect(page.locator(f".tm-strip [data-name='{name}']")).to_have_attribute("data-verdict", "edited")
        assert page.locator(f".tm-strip [data-name='{name}'] img").get_attribute("src") != before
        page.screenshot(path=shots / "strip.png", full_page=True)

        # The strip shows what was chosen.
        page.locator("#review-choice").get_by_text("Only some of them").click()
        page.get_by_label("Decision").click()
        page.get_by_role("option", name="mended").click()
        expect(page.locator(".tm-strip")).to_have_attribute("data-total", "1")
        expect(buttons).to_have_count(1)
        expect(shown).to_have_text(name)
        page.screenshot(path=shots / "chosen.png", full_page=True)


@pytest.mark.parametrize("move", ["document.querySelector('.tm-strip [aria-current]').click()", "press('arrowleft')"])
def test_a_key_right_after_a_move_to_the_shown_image_is_not_lost(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, move: str
) -> None:
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        expect(page.locator(".tm-strip [aria-current]")).to_be_visible()
        # Without a pause between them, as a hand on the mouse and one on the keys do it.
        page.evaluate(
            """move => {
                const event = (key) => new KeyboardEvent("keydown", { key, bubbles: true });
                const press = (key) => document.body.dispatchEvent(event(key));
                eval(move);
                press("e");
            }""",
            move,
        )
        expect(page.locator("dialog")).to_be_visible()


def test_no_more_than_what_is_in_sight_is_in_the_page(
    browser: Any, run: Path, cooccur: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, many = thumbs.Thumbs.part, 20_000

    def listed(self: thumbs.Thumbs, start: int, count: int) -> dict[str, Any]:
        found = part(self, 0, 1)
        name = found["items"][0]
        return {"start": start, "total": many, "items": [name | {"stamp": str(start + i)} for i in range(count)]}

    monkeypatch.setattr(thumbs.Thumbs, "part", listed)
    with _reviewing(browser, run, cooccur, labelled, tmp_path / "reviews.csv") as page:
        strip = page.locator(".tm-strip")
        expect(strip).to_have_attribute("data-total", str(many))
        for place in (0.5, 1.0, 0.2):
            strip.evaluate("(own, place) => { own.scrollLeft = place * own.scrollWidth; }", place)
            page.wait_for_function(
                "() => { const strip = document.querySelector('.tm-strip').getBoundingClientRect();"
                " return [...document.querySelectorAll('.tm-strip button')].some(own => {"
                " const { left, right } = own.getBoundingClientRect();"
                " return left >= strip.left && right <= strip.right; }); }"
            )
            assert strip.locator("button").count() < 60
