"""The page that goes through proposed tags: a photograph, its classes by score, and what a person says of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from tagmask.data.tag_table import photo_folder, read_proposed, write_proposed
from tagmask.errors import TagmaskError
from tagmask.serve import pictures
from tagmask.serve.photos import inside, open_photo

KEYS = "Enter confirms · 1 to 9 tick the first nine classes · ← → back and forth, nothing confirmed"


class TagsPage:
    """What the page shows, and what it does with the tags that come back.

    The browser sends the number of the photograph with its tags, so that they are stored for the photograph that was on
    the screen; the same answer twice stores the same.

    Args:
        table: what `tagmask tags` wrote. After each confirmation it is written anew, whole.

    Raises:
        TagmaskError: it is another table.
    """

    def __init__(self, table: Path) -> None:
        self.table, self.photos = table, photo_folder(table)
        self._written = _content(table)  # read first: a change in between is then noticed, and not written over
        self.rows = read_proposed(table)
        self._lock = threading.Lock()

    def start(self) -> list[Any]:
        """Show the first photograph that nobody has confirmed, else the first."""
        return self.show(self._following(-1) or 0)

    def show(self, number: int, message: str = "") -> list[Any]:
        """Return the values of the components for one photograph: number, stage, facts, tags, progress and message."""
        import gradio as gr

        row = self.rows[number]
        try:
            stage = pictures.photograph(open_photo(inside(self.photos / row.image, self.photos)))
        except TagmaskError as error:
            stage = pictures.alert(str(error))
        said = "confirmed" if row.confirmed else "not confirmed"
        facts = (
            f'<p class="tm-facts" data-number="{number}"><b>{escape(row.image)}</b> · '
            f"{number + 1} of {len(self.rows)} · "
            f'<span class="tm-verdict tm-{"keep" if row.confirmed else "none"}">{said}</span></p>'
        )
        choices = [(f"{name} · {score:.2f}", name) for name, score in row.scores.items()]
        tags = gr.CheckboxGroup(choices=choices, value=list(row.tags))
        return [number, stage, facts, tags, self._progress(), message]

    def confirm(self, number: float, tags: Sequence[str]) -> list[Any]:
        """Store the tags of a photograph, and show the next that nobody has confirmed."""
        place = int(number)
        with self._lock:
            before = self.rows[place]
            chosen = tuple(name for name in before.scores if name in tags)
            self.rows[place] = replace(before, tags=chosen, confirmed=True)
            try:
                self._write()
            except TagmaskError as error:
                self.rows[place] = before
                return self.show(place, pictures.alert(str(error)))
        following = self._following(place)
        if following is None:
            done = f"All are confirmed. `tagmask train {self.table.parent}` takes the table as it is."
            return self.show(place, pictures.note(done))
        return self.show(following, pictures.note(f"{before.image}: {', '.join(chosen) or 'no tag'}, saved."))

    def step(self, number: float, by: int) -> list[Any]:
        """Show the photograph `by` places on, without storing anything."""
        return self.show((int(number) + by) % len(self.rows))

    def _write(self) -> None:
        if _content(self.table) != self._written:
            raise TagmaskError(
                f"{self.table}: changed by something else since the page read it, so it was not written; start the "
                "page again to take up the file as it is"
            )
        write_proposed(self.table, self.rows)
        self._written = _content(self.table)

    def _following(self, place: int) -> int | None:
        order = [*range(place + 1, len(self.rows)), *range(max(0, place + 1))]
        return next((number for number in order if not self.rows[number].confirmed), None)

    def _progress(self) -> str:
        done, total = sum(row.confirmed for row in self.rows), len(self.rows)
        return (
            f'<div class="tm-progress" role="progressbar" aria-valuemax="{total}" aria-valuenow="{done}">'
            f'<span style="width: {done / total:.1%}"></span></div>'
            f'<p class="tm-note">{done} of {total} confirmed · saved to {escape(self.table.name)}</p>'
        )


def _content(table: Path) -> bytes | None:
    """Return what stands in the file; None where it cannot be read."""
    try:
        return table.read_bytes()
    except OSError:
        return None


def build(page: TagsPage, blocks: Any) -> None:
    """Lay the page out; to be called inside a `gradio.Blocks`, which is given for its load event."""
    import gradio as gr

    with gr.Row(equal_height=False, elem_id="tags-panel"):
        with gr.Column(scale=3, min_width=320):
            stage = gr.HTML(elem_id="tags-stage")
        with gr.Column(scale=2, min_width=300):
            progress = gr.HTML(elem_id="tags-progress")
            facts = gr.HTML(elem_id="tags-facts")
            tags = gr.CheckboxGroup([], label="What it shows, by score", elem_id="tags-choice")
            confirm = gr.Button("Confirm (Enter)", variant="primary", elem_id="tags-confirm")
            with gr.Row():
                back = gr.Button("← Back", elem_id="tags-back", size="sm", min_width=90)
                forth = gr.Button("Next →", elem_id="tags-forth", size="sm", min_width=90)
            message = gr.HTML(elem_id="tags-message")
            gr.HTML(pictures.note(KEYS))
    number = gr.Number(0, visible=False)
    outputs = [number, stage, facts, tags, progress, message]
    quiet: dict[str, Any] = {"concurrency_id": "tags", "show_progress": "hidden", "api_visibility": "private"}
    confirm.click(lambda at, chosen: page.confirm(at, chosen or []), [number, tags], outputs, **quiet)
    back.click(lambda at: page.step(at, -1), number, outputs, **quiet)
    forth.click(lambda at: page.step(at, 1), number, outputs, **quiet)
    blocks.load(page.start, None, outputs, **quiet)
