"""The verb `push`: a run with a model card onto the Hugging Face hub. Only text and safetensors travel."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from tagmask.data.files import write_text
from tagmask.engine.checkpoint import MODEL_FILE
from tagmask.engine.fetch import CARD, PREFIX, TEXTS, check_name, hub_reason
from tagmask.engine.run import SEGMENTER, Run, open_run, rounds_of
from tagmask.errors import TagmaskError
from tagmask.evaluation.method import while_training
from tagmask.evaluation.report.citations import citations
from tagmask.evaluation.report.costs import read_logs, recorded_scores
from tagmask.evaluation.result import Conditions
from tagmask.evaluation.tables import describe
from tagmask.methods.registry import without_weights
from tagmask.models.weight_files import hub_answers
from tagmask.models.weights import find_weights, is_on_hub
from tagmask.ops.label_ids import IGNORED_CLASS, count_classes, label_dtype
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import BackboneConfig, Section


def push(
    run: Path | str, repository: str, *, private: bool = True, license: str | None = None, token: str | None = None
) -> str:
    """Upload what prediction needs of a run, with a model card; make the repository where there is none.

    Paths of this machine are taken out of the recipe. Training state, masks and logs stay here.

    Args:
        run: a run folder.
        repository: `OWNER/NAME`.
        private: of a new repository; one that is there keeps its visibility.
        license: of the model, by its name on the hub (`apache-2.0`, `cc-by-4.0`, ...); None leaves it unstated.
        token: by default that of `hf auth login` or the variable HF_TOKEN.

    Returns:
        the address of the repository.

    Raises:
        TagmaskError: no finished run, no such name, no permission, or the hub cannot be reached.
    """
    import huggingface_hub

    check_name(repository)
    opened = open_run(Path(run))
    models = model_files(opened.recipe)
    missing = [name for name in models if not (opened.folder / name).is_file()]
    if missing:
        raise TagmaskError(f"{opened.folder / missing[0]}: missing; is the training of this run finished?")
    if not hub_answers(repository, CARD):
        raise TagmaskError(f"{repository}: the hub cannot be reached, so nothing was uploaded; check the network")
    with tempfile.TemporaryDirectory(prefix="tagmask-") as name:
        folder = Path(name)
        for file in (*TEXTS, *models):
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(opened.folder / file, folder / file)
        write_text(folder / "recipe.yaml", without_paths(opened.recipe).dump())
        write_text(folder / CARD, model_card(opened, repository, license))
        try:
            address = huggingface_hub.create_repo(repository, private=private, exist_ok=True, token=token)
            huggingface_hub.upload_folder(
                repo_id=repository, folder_path=folder, token=token, commit_message="Upload a tagmask run"
            )
        except Exception as error:  # whatever network and hub come up with
            raise TagmaskError(
                f"{repository}: the hub did not take the run ({hub_reason(error)}); log in with `hf auth login` or set "
                "HF_TOKEN to a token that may write, and check the name"
            ) from error
    return str(address)


def model_files(recipe: Recipe) -> tuple[str, ...]:
    """Return the files of a run that its prediction reads, relative to its folder."""
    if not recipe.staged:
        return (MODEL_FILE,)
    classifier = rounds_of(recipe)[-1].name
    stages = (classifier, SEGMENTER) if recipe.segmenter is not None else (classifier,)
    return tuple(f"{stage}/{MODEL_FILE}" for stage in stages)


def without_paths(recipe: Recipe) -> Recipe:
    """Return the recipe without names of local folders and files; it builds the same networks."""
    return _cleaned(recipe)


SectionT = TypeVar("SectionT", bound=Section)


def _cleaned(section: SectionT) -> SectionT:
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            field = type(section).model_fields[name]
            # Not None for all: that of a key which holds a path or something else may be no value of it.
            changes[name] = None if field.is_required() else field.get_default(call_default_factory=True)
        elif isinstance(value, Section):
            changes[name] = _cleaned(value)
    if isinstance(section, BackboneConfig) and section.weights and not is_on_hub(section.weights):
        return without_weights(section)
    return section.model_copy(update=changes)


def started_from(section: Section) -> list[str]:
    """Return the weights of all backbones in a recipe or a part of it, each once, in order."""
    found = [section.weights] if isinstance(section, BackboneConfig) and section.weights else []
    for name in type(section).model_fields:
        value = getattr(section, name)
        found += started_from(value) if isinstance(value, Section) else []
    return list(dict.fromkeys(found))


def model_card(run: Run, repository: str, license: str | None = None) -> str:
    """Write the model card: front matter for the hub, use, classes, scores with conditions, licences, recipe."""
    from huggingface_hub import ModelCardData

    recipe = without_paths(run.recipe)
    method = recipe.method.name
    base = [weights.split(":", 1)[-1] for weights in started_from(recipe)]
    about = ModelCardData(
        library_name="tagmask",
        pipeline_tag="image-segmentation",
        license=license,
        base_model=base or None,
        tags=["tagmask", "semantic-segmentation", "weakly-supervised-semantic-segmentation", "wsss", method],
    )
    names = ["| id | class |", "| --- | --- |", *(["| 0 | background |"] if recipe.data.background else [])]
    names += [f"| {label} | {_cell(name)} |" for label, name in enumerate(run.classes, 1) if name != IGNORED_CLASS]
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {repository.split('/')[1]}",
        f"A semantic segmentation model of {count_classes(run.classes)} classes, trained by tagmask's method "
        f"`{method}` on images with tags{_masks(run.recipe)}.",
        "## Use",
        f'```python\nimport tagmask\n\nmodel = tagmask.load("{PREFIX}{repository}")\n'
        f'mask = model.predict("photo.jpg")  # (H, W) {label_dtype(len(run.classes))}\n```',
        f"```sh\ntagmask predict {PREFIX}{repository} photos/ -o masks/\n```",
        "## Classes",
        "\n".join(names) + "\n\nIn the masks of training data 255 means ignored; the model does not predict it.",
        "## Scores",
        _scores(run),
        "## Licences",
        _licences(recipe, license),
        "## Recipe",
        f"Files and folders of its author's machine are left out.\n\n```yaml\n{recipe.dump()}```",
        "## Citing",
        "\n\n".join(f"```bibtex\n{work.bibtex}\n```" for work in citations(method)),
    ]
    return "\n\n".join(parts) + "\n"


def _masks(recipe: Recipe) -> str:
    """Say which masks of people a run learnt from; asked of the whole recipe, for without paths it lacks some."""
    if recipe.method.method_class.needs_masks:
        return ", and on ground-truth masks"
    return (
        ", and on masks that people drew or mended of some of them" if recipe.data.use_masks else ", without any mask"
    )


def _scores(run: Run) -> str:
    recorded = recorded_scores(run.folder)
    if recorded:
        rows = ["| what | mIoU % | FP/TP | images | protocol and conditions |", "| --- | ---: | ---: | ---: | --- |"]
        for each in recorded:
            miou = "–" if each.miou is None else f"{100 * each.miou:.2f}"
            ratio = "–" if each.ratio is None else f"{each.ratio:.2f}"
            held = f"{each.protocol}; {describe(each.conditions)}"
            rows.append(f"| {_cell(each.name)} | {miou} | {ratio} | {each.images} | {_cell(held)} |")
        return "\n".join(rows)
    logged = [line for lines in read_logs(run.folder).values() for line in lines]
    evaluations = [line for line in logged if "eval/decoder_miou" in line]
    if evaluations:
        last, data = evaluations[-1], run.recipe.data
        inference = while_training(run.recipe.inference)
        quick = Conditions(
            split=", ".join(data.evaluate or ()) or "the data's val or test",
            source="decoder",
            tags_given=False,
            scales=inference.scales,
            flips=inference.flip,
            refinement=inference.refine,
            averaged=data.averaged or None,
        )
        miou, step = last["eval/decoder_miou"], last["step"]
        return f"mIoU {miou:.2f} % at step {step:.0f}: protocol seco; {describe(quick)}."
    return "None recorded. `tagmask evaluate` measures them."


def _licences(recipe: Recipe, license: str | None) -> str:
    weights = [f"`{name}`, {_licence(name)}" for name in started_from(recipe)]
    return "\n".join(
        [
            f"- this model: {license or 'not stated by its author'}",
            f"- weights the training started from: {'; '.join(weights) or 'none from the hub'}",
            "- training images: not known to tagmask; their terms may bind the model's use",
            "- tagmask, the program: Apache-2.0",
        ]
    )


def _licence(weights: str) -> str:
    """Say the licence of weights: as our registry has it, else as timm does, which knew that of few in earlier days."""
    if (known := find_weights(weights)) is not None:
        return f"licence {known.licence}" if known.licence else "licence: not stated by its author"
    from timm.models import get_pretrained_cfg

    configuration = get_pretrained_cfg(weights.split("/")[-1], allow_unregistered=True)
    licence = configuration.license if configuration else None
    return f"licence {licence} as timm names it" if licence else "licence: see there"


def _cell(text: str) -> str:
    """Escape text so that it stays inside a cell of a Markdown table."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text)
