"""The tab to go through a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tagmask.api import Model
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.serve import pictures
from tagmask.serve.photos import inside, open_photo
from tagmask.serve.review import VERDICTS, Review, Verdict
from tagmask.serve.try_tab import opacity_slider

KEYS = "K keep · R redo · T to the tags, Ctrl+Enter saves them · ← → back and forth without a decision"
SAID = {"keep": "kept", "redo": "to redo", "tags": "tags fixed"}


class ReviewPage:
    """What the review tab shows of a review.

    Args:
        review: the decisions.
        model: gives the classes.
        folders: the folders of the photographs and of the masks; nothing outside of them is opened.
    """

    def __init__(self, review: Review, model: Model, folders: tuple[Path, Path]) -> None:
        self.review, self.model = review, model
        self.photo_folder, self.mask_folder = folders

    def show(self, name: str, message: str = "") -> list[Any]:
        """The candidate's name, stage, facts, legend, tags, progress and message."""
        try:
            stage, legend = self._pictures(name)
        except TagmaskError as error:
            stage, legend = pictures.alert(str(error)), ""
        return [name, stage, self._facts(name), legend, list(self.review.tags(name)), self._progress(), message]

    def start(self) -> list[Any]:
        """The first candidate without a decision, else the first."""
        name = self.review.undecided()
        if name is None:
            return self.show(self.review.beside(next(iter(self.review.candidates)), 0), self._all_done())
        return self.show(name)

    def decide(self, name: str, verdict: Verdict, tags: Sequence[str]) -> list[Any]:
        """Note a decision and show what comes next; where it cannot be noted, stay and say why."""
        try:
            self.review.decide(name, verdict, tags)
        except TagmaskError as error:
            stay = self.show(name, pictures.alert(str(error)))
            stay[4] = list(tags)
            return stay
        following = self.review.undecided(after=name)
        said = pictures.note(f"{name}: {SAID[verdict]}, saved.")
        return self.show(name, said + self._all_done()) if following is None else self.show(following, said)

    def step(self, name: str, by: int) -> list[Any]:
        """The candidate before or after this one."""
        return self.show(self.review.beside(name, by))

    def _pictures(self, name: str) -> tuple[str, str]:
        candidate, classes = self.review.candidates[name], self.model.classes
        photo = open_photo(inside(candidate.image, self.photo_folder))
        labels = PngMask(inside(candidate.mask, self.mask_folder)).load(photo.height, photo.width)
        palette = pictures.class_palette(classes, classes)
        words = pictures.describe(labels, classes)
        background = self.model.run.recipe.data.background
        return (
            pictures.stage(photo, labels, palette, describe=words),
            pictures.legend(labels, classes, palette, tags=self.review.tags(name), background=background),
        )

    def _facts(self, name: str) -> str:
        candidate, decision = self.review.candidates[name], self.review.decisions.get(name)
        confidence = "unknown" if candidate.confidence is None else f"{candidate.confidence:.2f}"
        source = "given" if candidate.tagged else "read off the mask: nobody has given any"
        kind, said = (decision.verdict, SAID[decision.verdict]) if decision else ("none", "not decided")
        return (
            f'<p class="tm-facts"><b>{escape(name)}</b> · {self.review.position(name) + 1} of {len(self.review)}<br>'
            f"confidence {confidence} · tags {source} · "
            f'<span class="tm-verdict tm-{kind}">{said}</span></p>'
        )

    def _progress(self) -> str:
        counts, total = self.review.counts(), len(self.review)
        done = sum(counts.values())
        return (
            f'<div class="tm-progress" role="progressbar" aria-valuemax="{total}" aria-valuenow="{done}">'
            f'<span style="width: {done / total:.1%}"></span></div>'
            f'<p class="tm-note">{done} of {total} decided: {counts["keep"]} kept, {counts["redo"]} to redo, '
            f"{counts['tags']} with fixed tags · saved to {escape(self.review.file.name)}</p>"
        )

    def _all_done(self) -> str:
        return pictures.note(f"All are decided. `tagmask train {self.review.file}` takes the table as it is.")


def build(page: ReviewPage, blocks: Any) -> None:
    """Lay the tab out; called inside a `gradio.Blocks`, which is given for its load event."""
    import gradio as gr

    with gr.Row(equal_height=False, elem_id="review-panel"):
        with gr.Column(scale=3, min_width=320):
            stage = gr.HTML(elem_id="review-stage")
            opacity_slider("review-opacity")
        with gr.Column(scale=2, min_width=300):
            progress = gr.HTML(elem_id="review-progress")
            facts = gr.HTML(elem_id="review-facts")
            legend = gr.HTML()
            with gr.Row():
                keep = gr.Button("Keep (K)", variant="primary", elem_id="review-keep", min_width=90)
                redo = gr.Button("Redo (R)", elem_id="review-redo", min_width=90)
            tags = gr.Dropdown(list(page.model.classes), multiselect=True, label="Tags (T)", elem_id="review-tags")
            fix = gr.Button("Fix the tags (Ctrl+Enter)", elem_id="review-fix")
            with gr.Row():
                back = gr.Button("← Back", elem_id="review-back", size="sm", min_width=90)
                forth = gr.Button("Next →", elem_id="review-forth", size="sm", min_width=90)
            message = gr.HTML(elem_id="review-message")
            gr.HTML(pictures.note(KEYS))
    name = gr.Textbox(visible=False, elem_id="review-name")
    outputs = [name, stage, facts, legend, tags, progress, message]
    quiet: dict[str, Any] = {
        "concurrency_id": "review",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    for button, verdict in zip((keep, redo, fix), VERDICTS, strict=True):
        button.click(_deciding(page, verdict), [name, tags], outputs, **quiet)
    back.click(lambda shown: page.step(shown, -1), name, outputs, **quiet)
    forth.click(lambda shown: page.step(shown, 1), name, outputs, **quiet)
    blocks.load(page.start, None, outputs, **quiet)


def _deciding(page: ReviewPage, verdict: Verdict) -> Any:
    return lambda name, tags: page.decide(name, verdict, tags or [])
