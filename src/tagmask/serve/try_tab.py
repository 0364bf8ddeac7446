"""The tab that tries a run on a photograph, or two runs on the same one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tagmask.api import Model
from tagmask.data.label_maps import write_label_map
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE, IGNORED_CLASS, count_classes
from tagmask.serve import pictures
from tagmask.serve.photos import inside, open_photo

if TYPE_CHECKING:
    import gradio as gr

OPACITY = 0.6
SET_OPACITY = "(value) => {{ document.documentElement.style.setProperty('--{}', value); }}"


@dataclass(frozen=True)
class View:
    """What the page shows of one run and one photograph.

    Attributes:
        stage, uncertainty, legend, cams: HTML.
        mask: the file to download, a PNG.
        labels: (H, W) label map.
    """

    stage: str
    uncertainty: str
    legend: str
    cams: str
    mask: Path
    labels: np.ndarray


def all_classes(models: Sequence[Model]) -> list[str]:
    """List the classes of all runs, each once, those of the first run first."""
    return list(dict.fromkeys(name for model in models for name in model.classes if name != IGNORED_CLASS))


def view(model: Model, path: Path, tags: Sequence[str], order: Sequence[str], downloads: Path) -> View:
    """Label a photograph by one run, and make what the page shows of it.

    Args:
        model: the run.
        path: the photograph's file.
        tags: names of classes of any of the runs; none: all classes can win.
        order: the classes of all runs, which the colours follow.
        downloads: folder for the mask.

    Raises:
        TagmaskError: no image, damaged or too large; or none of the tags is a class of the run.
    """
    known = [tag for tag in tags if tag in model.classes]
    if tags and not known:
        raise TagmaskError(f"{model.run.folder.name} knows none of these tags; its classes: {', '.join(model.classes)}")
    photo = open_photo(path)
    result = model.predict(photo, known or None)
    uncertainty = result.uncertainty
    palette = pictures.class_palette(model.classes, order)
    mask = downloads / secrets.token_hex(8) / f"{path.stem}_mask.png"
    write_label_map(mask, result.labels)
    background = model.run.recipe.data.background
    return View(
        stage=pictures.stage(photo, result.labels, palette, describe=pictures.describe(result.labels, model.classes)),
        uncertainty=pictures.uncertainty_picture(photo, uncertainty),
        legend=pictures.legend(result.labels, model.classes, palette, tags=known, background=background)
        + f'<p class="tm-note">confidence {1 - uncertainty.mean():.2f}: mean probability of the winning class</p>',
        cams=pictures.cam_gallery(photo, result.cams, result.tag_scores, model.classes, known),
        mask=mask,
        labels=result.labels,
    )


def agreement(first: np.ndarray, second: np.ndarray, models: Sequence[Model]) -> float:
    """Return the fraction of the pixels to which two runs give the same class, by name, in 0..1."""
    places = {name: place for place, name in enumerate(all_classes(models), start=1)}
    tables = []
    for model in models:
        table = np.zeros(max(256, len(model.classes) + 1), np.int64)
        table[1 : len(model.classes) + 1] = [places.get(name, 0) for name in model.classes]
        table[IGNORE] = -1
        tables.append(table)
    return float((tables[0][first] == tables[1][second]).mean())


def remark(tags: Sequence[str], models: Sequence[Model], views: Sequence[View]) -> str:
    """Say which tags a run does not know, and how far two runs agree."""
    parts = [
        f"{model.run.folder.name} does not know {', '.join(missing)}."
        for model in models
        if (missing := [tag for tag in tags if tag not in model.classes])
    ]
    if len(views) == 2:
        same = agreement(views[0].labels, views[1].labels, models)
        parts.append(f"The runs agree on {same:.1%} of the pixels.")
    return pictures.note(" ".join(parts)) if parts else ""


def build(models: Sequence[Model], examples: Sequence[Path], downloads: Path) -> None:
    """Lay the tab out; to be called inside a `gradio.Blocks`."""
    import gradio as gr

    order = all_classes(models)
    with gr.Row(equal_height=False, elem_id="try-panel"):
        with gr.Column(scale=1, min_width=280):
            photo = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                label="Photograph",
                height=260,
                buttons=[],
                placeholder="Drop a photograph here, click to choose one, or paste it",
                elem_id="try-photo",
            )
            tags = gr.Dropdown(
                order,
                multiselect=True,
                label="Tags of the photograph",
                info="With tags, only they and background can win. Without, every class can.",
                elem_id="try-tags",
            )
            opacity_slider("try-opacity")
            if examples:
                gr.Examples([[str(path)] for path in examples], photo, label="Examples", elem_id="try-examples")
        with gr.Column(scale=3):
            message = gr.HTML(_invitation(), elem_id="try-message")
            with gr.Row(equal_height=False):
                panels = [_panel(model) for model in models]
    outputs = [message, *(component for panel in panels for component in panel)]

    def run(given: Any, chosen: list[str] | None) -> list[Any]:
        if given is None:
            return [_invitation(), *_nothing(len(models))]
        path = Path(given["path"])
        try:
            # Uploads and examples lie beside the downloads, in the page's temporary folder.
            path = inside(path, downloads.parent)
            views = [view(model, path, chosen or [], order, downloads) for model in models]
        except TagmaskError as error:
            return [pictures.alert(str(error).replace(str(path), path.name)), *_nothing(len(models))]
        shown = [
            part
            for own in views
            for part in (
                own.stage,
                own.uncertainty,
                own.legend,
                own.cams,
                gr.DownloadButton(value=str(own.mask), visible=True),
            )
        ]
        return [remark(chosen or [], models, views), *shown]

    gr.on(
        [photo.change, tags.change],
        run,
        [photo, tags],
        outputs,
        preprocess=False,  # the component would open the file itself, before the limits and with messages of its own
        trigger_mode="always_last",
        concurrency_id="model",
        show_progress="minimal",
        show_progress_on=message,
        api_visibility="private",
    )


def opacity_slider(name: str) -> None:
    """Add a slider for the opacity of a tab's masks; it sets the style variable `--NAME` in the browser."""
    import gradio as gr

    slider = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the mask", elem_id=name, buttons=[])
    slider.input(None, slider, None, js=SET_OPACITY.format(name), api_visibility="private")


def _panel(model: Model) -> tuple[gr.HTML, gr.HTML, gr.HTML, gr.HTML, gr.DownloadButton]:
    import gradio as gr

    recipe = model.run.recipe
    with gr.Column(min_width=300, elem_classes="tm-panel"):
        gr.HTML(
            pictures.heading(model.run.folder.name, f"{recipe.method.name} · {count_classes(model.classes)} classes"),
            padding=False,
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                stage = gr.HTML()
                download = gr.DownloadButton("Download the mask (PNG)", size="sm", visible=False)
            with gr.Column(scale=2, min_width=220):
                legend = gr.HTML()
                uncertainty = gr.HTML()
        cams = gr.HTML()
    return stage, uncertainty, legend, cams, download


def _nothing(panels: int) -> list[Any]:
    import gradio as gr

    return ["", "", "", "", gr.DownloadButton(value=None, visible=False)] * panels


def _invitation() -> str:
    return pictures.note("Drop a photograph on the left. It stays on this machine.")
