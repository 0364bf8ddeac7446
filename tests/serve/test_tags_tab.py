"""What the page of proposed tags stores, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tagmask.data.tag_table import ProposedTags, read_proposed, write_proposed
from tagmask.errors import TagmaskError

gradio = pytest.importorskip("gradio", reason="the extra `web` is not installed")

from tagmask.serve.tags_tab import TagsPage  # noqa: E402

SCORES = {"cow": 0.91, "boat": 0.4, "<b>tree": 0.02}


def proposed(tmp_path: Path) -> Path:
    """Write a table of three photographs."""
    for name, colour in (("a.jpg", "red"), ("b.jpg", "green"), ("c.jpg", "blue")):
        Image.new("RGB", (80, 60), colour).save(tmp_path / name)
    rows = [ProposedTags(name, ("cow",), SCORES) for name in ("a.jpg", "b.jpg", "c.jpg")]
    write_proposed(tmp_path / "tags.csv", rows)
    return tmp_path / "tags.csv"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return proposed(tmp_path)


def tags(table: Path) -> list[tuple[tuple[str, ...], bool]]:
    return [(row.tags, row.confirmed) for row in read_proposed(table)]


def test_confirmed_tags_are_stored_at_once_for_the_photograph_shown(table: Path) -> None:
    page = TagsPage(table)
    assert page.start()[0] == 0
    shown = page.confirm(1, ["boat", "cow", "unheard of"])
    assert tags(table) == [(("cow",), False), (("cow", "boat"), True), (("cow",), False)]
    assert shown[0] == 2, "the next that nobody confirmed"
    assert page.confirm(1, ["boat", "cow"])[0] == 2, "the same answer twice stores the same"
    assert page.confirm(2, [])[0] == 0, "round to what was left out"
    assert "All are confirmed" in page.confirm(0, ["cow"])[-1]
    assert tags(table) == [(("cow",), True), (("cow", "boat"), True), ((), True)]


def test_a_table_that_is_continued_begins_where_it_ended(table: Path) -> None:
    TagsPage(table).confirm(0, ["cow"])
    assert TagsPage(table).start()[0] == 1


def test_photographs_outside_and_broken_ones_are_said_on_the_page(table: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "b.jpg").symlink_to("/etc/passwd")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    page = TagsPage(table)
    assert "leads out of" in page.show(1)[1]
    assert "tm-alert" in page.show(2)[1]


def test_a_table_that_something_else_changed_is_not_written(table: Path) -> None:
    page, second = TagsPage(table), TagsPage(table)
    page.confirm(0, ["boat"])
    answer = second.confirm(1, ["boat"])
    assert "tm-alert" in answer[-1]
    assert "changed by something else since the page read it" in answer[-1]
    assert (answer[0], second.rows[1].confirmed) == (1, False)
    assert tags(table) == [(("boat",), True), (("cow",), False), (("cow",), False)]
    assert TagsPage(table).confirm(1, ["boat"])[0] == 2, "a page that was started again takes it up"
    table.unlink()
    assert "changed by something else" in page.confirm(2, [])[-1]
    assert not table.exists()


def test_a_table_that_cannot_be_written_is_said_and_nothing_counts_as_confirmed(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = TagsPage(table)

    def full(*_: Any) -> None:
        raise TagmaskError("tags.csv: cannot be written (No space left on device); make room")

    monkeypatch.setattr("tagmask.serve.tags_tab.write_proposed", full)
    answer = page.confirm(0, ["boat"])
    assert "No space left" in answer[-1]
    assert answer[0] == 0
    assert not page.rows[0].confirmed
