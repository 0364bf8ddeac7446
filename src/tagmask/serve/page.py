"""Build the page as a whole: a heading and the tabs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tagmask.api import Model
from tagmask.serve import review_tab, tags_tab, try_tab
from tagmask.serve.review_tab import ReviewPage
from tagmask.serve.tags_tab import TagsPage

if TYPE_CHECKING:
    import gradio as gr

HERE = Path(__file__).parent
STYLE = HERE / "page.css"
SCRIPTS = "page.js", "thumbs.js", "edit_view.js", "edit_bars.js", "edit.js", "tags.js"


def build_page(
    models: Sequence[Model], examples: Sequence[Path], downloads: Path, review: ReviewPage | None
) -> gr.Blocks:
    """Build the page, without serving it.

    Args:
        models: one run, or two to compare.
        examples: photographs to offer.
        downloads: folder for the masks that are made.
        review: the review to show in a tab of its own; None: no such tab.
    """
    import gradio as gr

    names = " and ".join(model.run.folder.name for model in models)
    with gr.Blocks(title=f"tagmask · {names}", analytics_enabled=False) as blocks:
        gr.HTML(_heading(names), padding=False)
        with gr.Tabs():
            with gr.Tab("Try"):
                try_tab.build(models, examples, downloads)
            if review is not None:
                with gr.Tab("Review"):
                    review_tab.build(review, blocks)
    return blocks


def build_tags_page(page: TagsPage) -> gr.Blocks:
    """Build the page that goes through proposed tags, without serving it."""
    import gradio as gr

    name = page.table.name
    with gr.Blocks(title=f"tagmask · {name}", analytics_enabled=False) as blocks:
        gr.HTML(_heading(name), padding=False)
        tags_tab.build(page, blocks)
    return blocks


def _heading(what: str) -> str:
    return f'<div class="tm-head"><h1>tagmask</h1><p>{escape(what)} · image tags in, pixel masks out</p></div>'


def scripts() -> str:
    """Return the page's scripts, a function a file, as one function that the interface calls once it is there."""
    own = ((HERE / name).read_text(encoding="utf-8").strip().rstrip(";") for name in SCRIPTS)
    return "() => {" + "".join(f"({text})();" for text in own) + "}"
