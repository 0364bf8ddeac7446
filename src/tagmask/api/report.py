"""The verb `report`: one HTML page on a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask import api
from tagmask.data.files import write_text
from tagmask.data.mended import doubt_own_masks
from tagmask.errors import TagmaskError
from tagmask.evaluation.report.page import Group, render_page
from tagmask.evaluation.report.panels import panels
from tagmask.evaluation.report.words import Step
from tagmask.evaluation.study import by_quality, least_certain, of_each_class, study
from tagmask.recipes.load import load_recipe

EACH = "One of each class that is not above"
MOST_CLASSES = 24
"""Images of single classes on a page, at most: each takes some 100 kB."""

MARKS = (b"tagmask report</title>", b'<footer class="muted">Written by tagmask ')
"""What every report has near its beginning and near its end, and hardly another page both."""


def report(
    run: api.PathLike,
    data: api.PathLike | None = None,
    *,
    output: api.PathLike | None = None,
    split: Sequence[str] | None = None,
    protocol: str = "seco",
    shown: int = 3,
    overrides: Iterable[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write one HTML file on a run: scores, confusions, pictures, curves, costs and recipe.

    It predicts every image without telling its tags; only a run of SC-CAM or RCA without a segmenter, which has
    nothing but CAMs, is told them. Images with ground truth are scored; tags and confidence are looked at in any case.

    Args:
        run: a run folder, or `hf-hub:OWNER/NAME` of a pushed one; then data and output must be given.
        data: tagged images, in any format that `train` reads; by default the run's own.
        output: the file; by default `report.html` in the run folder.
        split: only these splits; by default the recipe's evaluated ones, else all.
        protocol: of the scores: `seco`, `sccam`, `seam`, `eps` or `irn`.
        shown: images in each group of pictures.
        overrides: of the recipe's `inference` and `data`.
        overwrite: replace a file that is there, whoever wrote it.

    Returns:
        the file.

    Raises:
        TagmaskError: whatever is wrong with run, data or output.
    """
    if output is None and api.is_on_hub(run):
        raise TagmaskError(f"{run}: a run on the hub has no folder to write to; give the report's file with --output")
    model = api.load(run)
    target = Path(output) if output else model.run.folder / "report.html"
    if target.is_dir():
        raise TagmaskError(f"{target}: a folder; give the name of the HTML file to write")
    if target.exists() and not overwrite and not _is_report(target.read_bytes()):
        raise TagmaskError(f"{target}: is there already and is no report; give another name, or add --overwrite")
    recipe = load_recipe(model.run.recipe.model_dump(mode="json"), overrides)
    dataset = api.to_evaluate(api.open_data(data, recipe.data, model.classes), recipe.data, split)
    doubt_own_masks(dataset, recipe.data.review)
    source = "decoder" if model.has_decoder else "cam"
    found = study(model.method, dataset, recipe.inference, source=source, protocol=protocol)
    groups = by_quality(found.images, shown)
    if found.result:
        groups["Least certain"] = least_certain(found.images, shown)
    above = {facts.record.name for group in groups.values() for facts in group}
    others = [facts for facts in found.images if facts.record.name not in above]
    groups[EACH] = of_each_class(others, len(model.classes))[:MOST_CLASSES]
    chosen = {facts.record.name: facts for group in groups.values() for facts in group}
    pictures = panels(model.method, dataset, list(chosen.values()), recipe.inference, source)
    page = render_page(
        model.run,
        found,
        [
            Group(title, tuple(pictures[facts.record.name] for facts in group), folded=title == EACH)
            for title, group in groups.items()
            if group
        ],
        name=str(run),
        further=_further(str(run), data or recipe.data.path, "" if model.has_decoder else " --source cam"),
    )
    write_text(target, page)
    return target


def _further(run: str, data: api.PathLike | None, option: str) -> list[Step]:
    """Say what can be done with any run: mend its masks, and label new photographs where it can."""
    own, images = shlex.quote(run), shlex.quote(str(data or "DATA"))
    steps = [
        Step(
            "Go through masks of the tagged images, the least certain first, and mend them on a page:",
            f"tagmask label {own} {images}{option} -o masks\n"
            f"tagmask serve {own} --images {images} --masks masks --review reviews/first.csv",
        )
    ]
    if not option:
        command = f"tagmask predict {own} NEW_PHOTOS -o new_masks"
        steps.append(Step("Label photographs that nobody has tagged:", command))
    return steps


def _is_report(content: bytes) -> bool:
    return MARKS[0] in content[:4096] and MARKS[1] in content[-1024:]
