"""The page of proposed tags in a real Chromium: its keys and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serve.test_page import PATIENCE, expect
from tests.serve.test_server import free_port
from tests.serve.test_tags_tab import proposed, tags


def test_keys_tick_confirm_and_go_back(browser: Any, tmp_path: Path, shots: Path) -> None:
    from tagmask.serve.server import confirming

    table = proposed(tmp_path)
    with confirming(table, port=free_port()) as address:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        expect(page.locator("#tags-facts")).to_contain_text("a.jpg · 1 of 3")
        expect(page.locator("#tags-choice")).to_contain_text("<b>tree · 0.02")
        page.keyboard.press("2")
        expect(page.locator("#tags-choice input").nth(1)).to_be_checked()
        page.screenshot(path=shots / "tags.png")
        page.keyboard.press("Enter")
        expect(page.locator("#tags-facts")).to_contain_text("b.jpg · 2 of 3")
        expect(page.locator("#tags-choice input").nth(1)).not_to_be_checked()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator("#tags-facts")).to_contain_text("c.jpg · 3 of 3")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#tags-facts")).to_contain_text("b.jpg · 2 of 3 · confirmed")
        page.close()
    assert tags(table) == [(("cow", "boat"), True), ((), True), (("cow",), False)]
