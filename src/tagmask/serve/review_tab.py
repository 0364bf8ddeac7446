"""The tab that goes through a folder of masks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tagmask.api import Model
from tagmask.data.masks import PngMask
from tagmask.data.mended import Verdict, write_mended
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORED_CLASS
from tagmask.serve import pictures
from tagmask.serve.photos import inside, open_photo
from tagmask.serve.review import Review
from tagmask.serve.try_tab import opacity_slider

KEYS = "K keep · R redo · E mend the mask · T to the tags, Ctrl+Enter saves them · ← → back and forth, nothing decided"
SAID = {"keep": "kept", "redo": "to redo", "tags": "tags fixed", "edited": "mended"}
CHOICES: dict[str, Verdict | Literal["", "none"]] = {
    "any": "",
    "not decided": "none",
    "kept": "keep",
    "to redo": "redo",
    "tags fixed": "tags",
    "mended": "edited",
}
OUT_OF_STEP = "This decision came after another one on the same image, so it was not stored. Look, and decide again."
TAGS_FIRST = "The tags were changed: save them with “Fix the tags”, or put them back, before you mend the mask."
MOVED_ON = "the page shows another image by now, so nothing was stored; close the editor and open it again"


class ReviewPage:
    """What the review tab shows, and what it does with the decisions that come back.

    Each answer is a *showing*: a number, a space and the name of the image, unique while the page is served. The
    browser sends it back with the next button. A showing can be answered once, so that a decision is stored for the
    image that was on the screen, and a second press that overtook the page is refused instead of changing the first.

    Args:
        review: the decisions.
        model: gives the classes.
        folders: the folders of the photographs and of the masks; nothing outside of them is opened.
    """

    def __init__(self, review: Review, model: Model, folders: tuple[Path, Path]) -> None:
        self.review, self.model = review, model
        self.photo_folder, self.mask_folder = folders
        self._numbers = itertools.count(1)
        self._unanswered: set[str] = set()
        self._lock = threading.Lock()  # of answers: the editor saves in a thread of its own
        self._painter = ThreadPoolExecutor(max_workers=1)
        self._ahead: dict[str, Future[tuple[str, np.ndarray]]] = {}

    def show(self, name: str, message: str = "", tags: Sequence[str] | None = None, *, mend: bool = False) -> list[Any]:
        """Return the values of the tab's components for one image.

        Args:
            name: of the candidate.
            message: HTML to show below.
            tags: what the tags' field holds; None: the tags as they stand.
            mend: whether the browser is to open the editor.

        Returns:
            showing, stage, facts, legend, tags, progress and message.
        """
        try:
            stage, legend = self._pictures(name)
        except TagmaskError as error:
            stage, legend = pictures.alert(str(error)), ""
        self._paint_ahead(name)
        showing = f"{next(self._numbers)} {name}"
        self._unanswered.add(showing)
        shown_tags = list(self.review.tags(name) if tags is None else tags)
        return [showing, stage, self._facts(name, showing, mend), legend, shown_tags, self._progress(), message]

    def start(self) -> list[Any]:
        """Show the first candidate without a decision, else the first; all are chosen again."""
        self.review.choose()
        name = self.review.undecided()
        if name is None:
            return self.show(next(iter(self.review.candidates)), self._all_done())
        return self.show(name)

    def decide(self, showing: str, verdict: Verdict, tags: Sequence[str]) -> list[Any]:
        """Store a decision on the image of a showing, and show what comes next.

        Where the decision cannot be stored, the same image is shown again with the reason. That is so for a showing
        that was answered before, too.
        """
        name = _name(showing)
        with self._lock:
            if showing not in self._unanswered:
                return self.show(name, pictures.alert(OUT_OF_STEP))
            self._unanswered.remove(showing)
        try:
            self.review.decide(name, verdict, tags)
        except TagmaskError as error:
            return self.show(name, pictures.alert(str(error)), tags)
        return self.after(showing, verdict)

    def after(self, showing: str, verdict: Verdict) -> list[Any]:
        """Show what comes after a decision that is stored."""
        name = _name(showing)
        following = self.review.undecided(after=name)
        said = pictures.note(f"{name}: {SAID[verdict]}, saved.")
        return self.show(name, said + self._all_done()) if following is None else self.show(following, said)

    def mend(self, showing: str, tags: Sequence[str]) -> list[Any]:
        """Show an image again, with its editor open; tags that were changed have to be saved first."""
        name = _name(showing)
        self._unanswered.discard(showing)
        if set(tags) != set(self.review.tags(name)):
            return self.show(name, pictures.alert(TAGS_FIRST), tags)
        return self.show(name, mend=True)

    def check_open(self, showing: str) -> None:
        """Refuse a showing that was answered, or never was.

        Raises:
            TagmaskError: it is none that waits for an answer.
        """
        if showing not in self._unanswered:
            raise TagmaskError(MOVED_ON)

    def save_edit(self, showing: str, labels: np.ndarray) -> None:
        """Write a mask that was mended, and store the decision `edited`.

        The tags are those as they stand, and every class that the mask shows; where nobody gave any, the classes of
        the mask alone.

        Args:
            showing: of the image; it is answered then.
            labels: (H, W) uint8 label map, checked.

        Raises:
            TagmaskError: the showing was answered before, or the mask or the table cannot be written.
        """
        with self._lock:
            self.check_open(showing)
            name = _name(showing)
            candidate = self.review.candidates[name]
            shown = tuple(own for label, own in enumerate(self.model.classes, start=1) if (labels == label).any())
            inside(candidate.mask, self.mask_folder)  # a link must not lead the writing elsewhere
            write_mended(self.mask_folder, name, labels, shown)
            self._ahead.pop(name, None)
            self.review.decide(name, "edited", (*self.review.tags(name), *shown) if candidate.tagged else shown)
            self._unanswered.discard(showing)

    @staticmethod
    def name_of(showing: str) -> str:
        """Return the name of the image that a showing shows."""
        return _name(showing)

    def choose(self, showing: str, tag: str, verdict: str, most: float) -> list[Any]:
        """Go through some of the candidates only (see `Review.choose`), and show the first of them."""
        self._unanswered.discard(showing)
        found = self.review.choose(tag, CHOICES[verdict], most)
        said = "" if found else pictures.alert("No image is like that, so all are shown.")
        return self.show(self.review.undecided() or self.review.chosen[0], said)

    def step(self, showing: str, by: int) -> list[Any]:
        """Show the candidate `by` places from the one of a showing, without a decision."""
        self._unanswered.discard(showing)
        return self.show(self.review.beside(_name(showing), by))

    def jump(self, showing: str, name: str) -> list[Any]:
        """Show a candidate by its name, without a decision on the one of a showing."""
        self._unanswered.discard(showing)
        return self.show(name if name in self.review.candidates else _name(showing))

    def _pictures(self, name: str) -> tuple[str, str]:
        ahead, classes = self._ahead.pop(name, None), self.model.classes
        stage, labels = ahead.result() if ahead else self._paint(name)
        background = self.model.run.recipe.data.background
        palette = pictures.class_palette(classes, classes)
        return stage, pictures.legend(labels, classes, palette, tags=self.review.tags(name), background=background)

    def _paint(self, name: str) -> tuple[str, np.ndarray]:
        """Return the photograph under its mask as HTML, and the label map, (H, W)."""
        candidate, classes = self.review.candidates[name], self.model.classes
        photo = open_photo(inside(candidate.image, self.photo_folder))
        labels = PngMask(inside(candidate.mask, self.mask_folder)).load(photo.height, photo.width)
        words, palette = pictures.describe(labels, classes), pictures.class_palette(classes, classes)
        return pictures.stage(photo, labels, palette, describe=words), labels

    def _paint_ahead(self, name: str) -> None:
        """Begin to paint what comes after a decision on this candidate, so that it is there when it is asked for."""
        following = self.review.undecided(after=name)
        if following is not None and following != name and following not in self._ahead:
            self._ahead = {following: self._painter.submit(self._paint, following)}

    def _facts(self, name: str, showing: str, mend: bool) -> str:
        candidate, decision = self.review.candidates[name], self.review.decisions.get(name)
        chosen = self.review.chosen
        of_all = "" if len(chosen) == len(self.review) else f" chosen, {len(self.review)} in all"
        confidence = "unknown" if candidate.confidence is None else f"{candidate.confidence:.2f}"
        source = "given" if candidate.tagged else "read off the mask: nobody has given any"
        kind, said = (decision.verdict, SAID[decision.verdict]) if decision else ("none", "not decided")
        return (
            f'<p class="tm-facts" data-showing="{escape(showing)}" data-place="{self.review.position(name)}" '
            f'data-of="{len(chosen)}"'
            f"{' data-mend' if mend else ''}><b>{escape(name)}</b> · "
            f"{self.review.position(name) + 1} of {len(chosen)}{of_all}<br>"
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
            f"{counts['tags']} with fixed tags, {counts['edited']} mended · "
            f"saved to {escape(self.review.file.name)}</p>"
        )

    def _all_done(self) -> str:
        return pictures.note(f"All are decided. `tagmask train {self.review.file}` takes the table as it is.")


def build(page: ReviewPage, blocks: Any) -> None:
    """Lay the tab out; to be called inside a `gradio.Blocks`, which is given for its load event."""
    import gradio as gr

    classes = [name for name in page.model.classes if name != IGNORED_CLASS]
    gr.HTML('<div class="tm-strip" role="group" aria-label="Masks under review"></div>', elem_id="review-strip")
    with gr.Row(equal_height=False, elem_id="review-panel"):
        with gr.Column(scale=3, min_width=320):
            stage = gr.HTML(elem_id="review-stage")
            opacity_slider("review-opacity")
        with gr.Column(scale=2, min_width=300):
            progress = gr.HTML(elem_id="review-progress")
            facts = gr.HTML(elem_id="review-facts")
            legend = gr.HTML()
            with gr.Row(elem_id="review-decide"):
                keep = gr.Button("Keep (K)", variant="primary", elem_id="review-keep", min_width=90)
                redo = gr.Button("Redo (R)", elem_id="review-redo", min_width=90)
                edit = gr.Button("Mend (E)", elem_id="review-edit", min_width=90)
            tags = gr.Dropdown(classes, multiselect=True, label="Tags (T)", elem_id="review-tags")
            fix = gr.Button("Fix the tags (Ctrl+Enter)", elem_id="review-fix")
            with gr.Row():
                back = gr.Button("← Back", elem_id="review-back", size="sm", min_width=90)
                forth = gr.Button("Next →", elem_id="review-forth", size="sm", min_width=90)
            message = gr.HTML(elem_id="review-message")
            with gr.Accordion("Only some of them", open=False, elem_id="review-choice"):
                tag = gr.Dropdown([("any", ""), *classes], value="", label="Tag")
                verdict = gr.Dropdown(list(CHOICES), value="any", label="Decision")
                most = gr.Slider(0, 1, 1, step=0.01, label="Confidence at most")
            gr.HTML(pictures.note(KEYS))
            mended = gr.Button(elem_id="review-mended", visible="hidden")  # pressed by the editor once it has saved
            jump = gr.Button(elem_id="review-jump", visible="hidden")  # pressed by the strip of small pictures
    showing, target = gr.Textbox(visible=False), gr.Textbox(visible=False)
    outputs = [showing, stage, facts, legend, tags, progress, message]
    quiet: dict[str, Any] = {
        "concurrency_id": "review",
        "show_progress": "hidden",
        "trigger_mode": "multiple",  # page.js sends one press at a time; gradio would drop what comes too early
        "api_visibility": "private",
    }
    verdicts: tuple[Verdict, ...] = ("keep", "redo", "tags")
    for button, said in zip((keep, redo, fix), verdicts, strict=True):
        button.click(_deciding(page, said), [showing, tags], outputs, **quiet)
    edit.click(lambda shown, own: page.mend(shown, own or []), [showing, tags], outputs, **quiet)
    mended.click(lambda shown: page.after(shown, "edited"), showing, outputs, **quiet)
    jump.click(page.jump, [showing, target], outputs, js="(shown) => [shown, window.tagmaskJump]", **quiet)
    back.click(lambda shown: page.step(shown, -1), showing, outputs, **quiet)
    forth.click(lambda shown: page.step(shown, 1), showing, outputs, **quiet)
    choice = [showing, tag, verdict, most]
    for own in (tag.input, verdict.input, most.release):
        own(page.choose, choice, outputs, **quiet)
    blocks.load(page.start, None, outputs, **quiet)


def _deciding(page: ReviewPage, verdict: Verdict) -> Any:
    return lambda showing, tags: page.decide(showing, verdict, tags or [])


def _name(showing: str) -> str:
    return showing.partition(" ")[2]
