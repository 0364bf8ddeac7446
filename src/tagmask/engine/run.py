"""The run folder: what a training leaves behind and everything later starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from tagmask.data.dataset import listed_classes
from tagmask.data.files import check_folder, check_writable, classes_text, is_temporary, write_classes, write_text
from tagmask.data.limits import parse_json
from tagmask.data.lock import LOCK
from tagmask.errors import TagmaskError, no_such
from tagmask.methods.base import Round
from tagmask.models.weights import with_normalisation
from tagmask.recipes.load import Recipe, load_recipe
from tagmask.recipes.sections import Section
from tagmask.recipes.stages import StageTraining

FORMAT = 1
NAMED = 5  # keys named in a message
STAGES = CAMS, ALIKE, LABELS, AFFINITY, MASKS, SEGMENTER = (
    "cams",
    "alike",
    "affinity-labels",
    "affinity",
    "refine",
    "segmenter",
)
"""Folders of the stages that follow the classifiers."""
NOTES = "notes.json"
"""What a training has to say of its data and masks: a list of sentences, for the report."""


SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Run:
    """A run folder's description.

    Attributes:
        folder: where it lies.
        recipe: fully resolved.
        classes: K names in id order.
        training: digest of the training set; empty where nothing was trained yet.
    """

    folder: Path
    recipe: Recipe
    classes: tuple[str, ...]
    training: str = ""

    @property
    def has_decoder(self) -> bool:
        """Whether its method has a decoder, or a segmenter was trained."""
        return self.recipe.segmenter is not None or self.recipe.method.method_class.has_decoder

    @property
    def decoder_learnt(self) -> bool:
        """Whether images can be labelled without tags: training went beyond the step from which a decoder learns."""
        method, training = self.recipe.method, self.recipe.training
        begins, steps = method.method_class.decoder_begins(method), min(training.stop or training.steps, training.steps)
        return self.has_decoder and (self.recipe.segmenter is not None or begins < steps)


def create_run(
    folder: Path,
    recipe: Recipe,
    classes: tuple[str, ...],
    *,
    training: str = "",
    masks: str = "",
    free: Sequence[str] = (),
    forget: Callable[[], None] = lambda: None,
) -> Run:
    """Make a run folder, or take up the one that is there if it is of the same recipe, classes and training images.

    Args:
        folder: of the run, which should be locked.
        recipe: of the run.
        classes: K names in id order.
        training: digest of the training set, where there is one.
        masks: digest of the drawn masks, where they are learnt from.
        free: keys of the recipe, or sections of them, that may have changed: what follows from them is made anew.
        forget: removes what follows from them. It is called before the recipe changes, so that no kill leaves the new
            recipe beside products of the old one.

    Raises:
        TagmaskError: the folder holds something else; nothing in it is touched.
    """
    recipe = with_normalisation(recipe)
    run = Run(folder, recipe, classes)
    check_folder(folder)
    if (folder / "run.json").exists():
        old = open_run(folder)
        if changed := _what_changed(old, run, free):
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            raise TagmaskError(
                f"{folder}: holds a run with other {', '.join(changed[:NAMED])}{more}; choose another output, or "
                "remove the folder" + (_anew(recipe, changed, bool(free)) if recipe.staged else "")
            )
        described = _description(folder / "run.json")
        before = described.get("training", training)
        anew = "data" in free
        if before != training and not anew:
            raise TagmaskError(
                f"{folder}: its training images or their tags were others; choose another output, or remove the folder"
                + (f", or add --from {rounds_of(recipe)[0].name} to train all anew" if recipe.staged else "")
            )
        redrawn = masks != described.get("masks", masks)
        if redrawn and "data.use_masks" not in free and not anew:
            mend = (
                "add --from refine to learn from them" if recipe.staged else "choose another output to learn from them"
            )
            raise TagmaskError(f"{folder}: the masks to learn from were others; {mend}")
        forget()
        if free:
            write_text(folder / "recipe.yaml", recipe.dump())
        if anew or (redrawn or ("masks" not in described and masks)):
            _describe(folder, training, masks)
        return run
    if folder.exists() and not _is_begun(folder, classes):
        raise TagmaskError(f"{folder}: not empty and no run folder; choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", recipe.dump())
    write_classes(folder, classes)
    _describe(folder, training, masks)  # the last: with it the folder is a run
    return run


def _anew(recipe: Recipe, changed: Sequence[str], started: bool) -> str:
    """Say how a run takes up other values of keys: from which stage on, or by a key of the segmenter's own."""
    own = [key for key in changed if key.split(".")[0] in StageTraining.model_fields] if recipe.segmenter else []
    for_segmenter = f"; for the segmenter alone: segmenter.{own[0]}, with --from segmenter" if own else ""
    if started:
        first = rounds_of(recipe)[0].name
        return f"; or, as they change what comes before that stage, --from {first} to train all anew{for_segmenter}"
    return f"; where nothing but a later stage changes, --from STAGE makes it anew{for_segmenter}"


def check_output(folder: Path) -> None:
    """Refuse an output in which no run can be made or taken up, before any long work begins.

    Raises:
        TagmaskError: it holds something else, a file stands in the way, or nobody may write there.
    """
    check_folder(folder)
    if not (folder / "run.json").exists() and folder.exists() and _names(folder) - {"recipe.yaml", "classes.txt"}:
        raise TagmaskError(f"{folder}: not empty and no run folder; choose another output")
    check_writable(folder)


def _names(folder: Path) -> set[str]:
    """The files and folders in a folder, without those that every process of ours makes and removes."""
    return {path.name for path in folder.iterdir() if path.name != LOCK and not is_temporary(path.name)}


def _is_begun(folder: Path, classes: tuple[str, ...]) -> bool:
    """Whether a folder holds nothing, or nothing but what is left of a run that was killed while it was made.

    A recipe of ours is known by its content: it stays the same when it is read and written again.
    """
    names = _names(folder)
    if not names:
        return True
    if names - {"recipe.yaml", "classes.txt"} or "recipe.yaml" not in names:
        return False
    try:
        written = (folder / "recipe.yaml").read_text(encoding="utf-8")
        listed = (folder / "classes.txt").read_text(encoding="utf-8") if "classes.txt" in names else None
        own = load_recipe(folder / "recipe.yaml").dump() == written
    except (UnicodeDecodeError, TagmaskError):
        return False
    return own and listed in (None, classes_text(classes))


def _describe(folder: Path, training: str, masks: str) -> None:
    digests = {name: digest for name, digest in (("training", training), ("masks", masks)) if digest}
    values = {"format": FORMAT, "tagmask": version("tagmask")} | digests
    write_text(folder / "run.json", json.dumps(values) + "\n")


def open_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        TagmaskError: no run folder, or of another version of the format.
    """
    description = folder / "run.json"
    if not description.is_file():
        mend = "give the --output of a `tagmask train` or `tagmask import`"
        if folder.is_dir():
            near = (each for each in (folder.parent, *sorted(folder.iterdir())) if (each / "run.json").is_file())
            mend = f"did you mean {found}?" if (found := next(near, None)) else mend
            raise TagmaskError(f"{folder}: no run folder (run.json is missing); {mend}")
        raise no_such(folder, "run folder", mend)
    values = _description(description)
    form, writer = values["format"], values.get("tagmask", "?")
    if form != FORMAT:
        raise TagmaskError(
            f"{folder}: a run of format {form}, written by tagmask {writer}; this is tagmask "
            f"{version('tagmask')}, which reads format {FORMAT}: use that version, or train again"
        )
    recipe = load_recipe(folder / "recipe.yaml")
    if not (folder / "classes.txt").is_file():
        raise TagmaskError(
            f"{folder}: classes.txt is missing, the class names in id order; write them again, one a line"
        )
    return Run(folder, recipe, listed_classes(folder / "classes.txt"), str(values.get("training", "")))


def _description(path: Path) -> dict[str, Any]:
    """Read a run's `run.json`."""
    try:
        values = parse_json(path.read_bytes())
    except TagmaskError as error:
        raise TagmaskError(f"{path}: damaged ({error}); copy the run again") from None
    if not isinstance(values, dict) or "format" not in values:
        raise TagmaskError(f"{path}: damaged; expected a JSON object with the key 'format'")
    return values


def _what_changed(old: Run, new: Run, free: Sequence[str]) -> list[str]:
    """The keys that two starts of one run may not differ in, and do."""
    before, now = (_what_matters(run.recipe) for run in (old, new))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    kept = [key for key in keys if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [*(["classes"] if old.classes != new.classes else []), *kept]


def _what_matters(recipe: Recipe) -> dict[str, object]:
    """All that a run's products follow from, by key."""
    values = _by_key(with_whole_paths(with_normalisation(recipe)).model_dump(mode="json"), "")
    idle = [
        "data.path",
        "data.averaged",
        *(
            f"training.{name}"
            for name in ("workers", "log_every", "checkpoint_every", "evaluate_every", "compile", "devices")
        ),
    ]
    # CAMs on disk are made with these; all else of the section only serves to look at what was trained.
    making = ("size", "long_side", "scales", "cam_scales", "cam_head", "scale_from", "precision")
    serving = [f"inference.{name}" for name in making if recipe.staged]
    return {
        key: value
        for key, value in values.items()
        if key not in idle and (not key.startswith("inference.") or key in serving)
    }


def with_whole_paths(section: SectionT) -> SectionT:
    """Return a recipe, or a part of it, whose folders and files are found from everywhere.

    They are named from where the training was started. What takes up the run, such as `suggest`, may start elsewhere.
    """
    inner = {name: getattr(section, name) for name in type(section).model_fields}
    changes: dict[str, object] = {name: value.resolve() for name, value in inner.items() if isinstance(value, Path)}
    changes |= {name: with_whole_paths(value) for name, value in inner.items() if isinstance(value, Section)}
    return section.model_copy(update=changes)


def _by_key(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _by_key(cast("Mapping[str, object]", value), f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def rounds_of(recipe: Recipe) -> tuple[Round, ...]:
    """Name the trainings that make the recipe's classifier, in order; the CAMs of the last become masks."""
    return recipe.method.method_class.rounds(recipe.method, recipe.training)


def write_notes(folder: Path, sentences: Sequence[str]) -> None:
    """Keep what a training has to say of its data and masks."""
    write_text(folder / NOTES, json.dumps(list(sentences), indent=1, ensure_ascii=False) + "\n")


def read_notes(folder: Path) -> list[str]:
    """Read what the training had to say; nothing where it kept no notes.

    Raises:
        TagmaskError: the file is damaged.
    """
    path = folder / NOTES
    if not path.exists():
        return []
    try:
        sentences = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        sentences = None
    if not isinstance(sentences, list):
        raise TagmaskError(f"{path}: damaged; expected a JSON list of sentences; remove it")
    return [str(sentence) for sentence in sentences]
