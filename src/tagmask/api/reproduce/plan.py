"""What `tagmask reproduce` is going to do: the data checked, weights found, and a command for every step and row."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagmask.api.reproduce.rows import EXPERIMENTS, TEST, TRAIN, Experiment, Row
from tagmask.api.reproduce.trees import CHECKS, Tree
from tagmask.data.dataset import PathLike
from tagmask.data.readers.voc import AUGMENTED, LISTS
from tagmask.errors import TagmaskError, no_such
from tagmask.models.weights import MissingWeights, backbone_sections, is_on_hub, missing_weights, same_weights
from tagmask.recipes.load import Recipe, load_recipe

RUN, PATCHES, PATCH_RUN, WHOLE, MASK_STAGE = "run", "patches", "patch-run", "whole", "refine"
SERVER_FOLDER = Path("results/VOC2012/Segmentation/comp6_test_cls")
GLAS_SEGMENTER = "full/glas"


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first step.

    Attributes:
        experiment: with its rows, those of `--only`.
        tree: the data set.
        recipe: with weights, settings of the tree and the user's own.
        overrides: by which it differs from the package's.
        segmenter: of GlaS: the recipe of the second run, and its overrides.
        output: the folder of runs, rows and the table.
        stage_files: published files that replace stages, with the importer of each.
        checkpoint: the authors' trained network, which replaces all training.
        missing: weight files that have to be downloaded first.
        lacking: what keeps the data from being read, as an error says it; empty where it is whole.
    """

    experiment: Experiment
    tree: Tree
    recipe: Recipe
    overrides: tuple[str, ...]
    segmenter: tuple[Recipe, tuple[str, ...]] | None
    output: Path
    stage_files: tuple[tuple[Path, str], ...]
    checkpoint: Path | None
    missing: tuple[MissingWeights, ...]
    lacking: str = ""

    @property
    def run(self) -> Path:
        """The run folder that the rows are measured on."""
        return self.output / RUN

    @property
    def data(self) -> Path:
        """The data set that the rows are measured on."""
        return self.output / WHOLE if self.segmenter else self.tree.root

    def split(self, row: Row) -> str:
        """The split that a row is measured on: train_aug for train where the tree has no list of the latter."""
        assert row.measure is not None
        if (
            row.measure.split == TRAIN
            and self.experiment.tree == "voc"
            and not self.lacking
            and not self._list(TRAIN).is_file()
        ):
            return AUGMENTED
        return row.measure.split

    def left_out(self, row: Row) -> str:
        """Say why a row is not measured; empty where it is."""
        if row.measure is None:
            return row.note
        if row.measure.kind == "archive" and not self._list(TEST).is_file() and not self.lacking:
            return f"no {self._list(TEST)}"
        if row.measure.kind == "masks" and self.checkpoint is not None and not self.recipe.staged:
            return "an imported network has no masks"
        return ""

    def steps(self) -> list[str]:
        """The commands that come before the rows; of GlaS also what is done between them."""
        if self.checkpoint is not None:
            kind = self.experiment.importer
            first = _command("import", kind, self.checkpoint, "-o", self.run)
            return [first] if not self.recipe.staged else [first, self._train("--from", "cams")]
        imports = [_command("import", kind, file, "-o", self.run) for file, kind in self.stage_files]
        if self.segmenter is None:
            return [*imports, self._train()]
        patch_run = self.output / PATCH_RUN
        return [
            f"cut {self.tree.root} into patches: {self.output / PATCHES}",
            _command(
                "train", self.output / PATCHES, "-r", self.experiment.recipe, "-o", patch_run, *_set(self.overrides)
            ),
            f"join the masks of {patch_run / MASK_STAGE} to those of whole images: {self.output / WHOLE}",
            _command("train", self.output / WHOLE, "-r", GLAS_SEGMENTER, "-o", self.run, *_set(self.segmenter[1])),
        ]

    def command(self, row: Row) -> str:
        """The command that measures a row."""
        measure = row.measure
        assert measure is not None
        if measure.kind == "archive":
            images, names = self.tree.root / "JPEGImages", self._list(TEST)
            return _command("predict", self.run, images, "--list", names, "-o", self.output / SERVER_FOLDER)
        split = ("--split", self.split(row), "--protocol", measure.protocol)
        if measure.kind == "masks":
            recipe = self.run / "recipe.yaml"
            return _command("evaluate", self.run / MASK_STAGE, self.data, "-r", recipe, *split)
        source = ("--source", measure.source) if measure.source != "decoder" else ()
        return _command("evaluate", self.run, self.data, *split, *source, *_set(measure.settings))

    def _train(self, *more: str) -> str:
        return _command(
            "train", self.tree.root, "-r", self.experiment.recipe, "-o", self.run, *more, *_set(self.overrides)
        )

    def _list(self, split: str) -> Path:
        return self.tree.root / LISTS / f"{split}.txt"


def make_plan(
    name: str,
    data: PathLike,
    *,
    weights: PathLike | None = None,
    output: PathLike | None = None,
    only: Iterable[str] = (),
    checkpoint: PathLike | None = None,
    overrides: Iterable[str] = (),
    dry_run: bool = False,
) -> Plan:
    """Check the data and decide on every step.

    Args:
        name: of the experiment, such as `seco/voc`.
        data: the data set in its official layout.
        weights: a folder with the files of pretrained networks; PSA's released networks in it take the place of stages
            of SC-CAM, as in its release.
        output: folder for everything; by default `reproduce/NAME`.
        only: keys of rows.
        checkpoint: the authors' trained network, in place of training.
        overrides: of the recipe; the run is then not the paper's, and the table says so. Of GlaS those that begin with
            `segmenter.` are the second run's.
        dry_run: whether data and weights that are not there yet are noted in the plan, which can then be looked at
            before the downloads; else it is an error.

    Raises:
        TagmaskError: no such experiment, row, file or data set; names what is missing and where it is to be had.
    """
    if name not in EXPERIMENTS:
        raise TagmaskError(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    wanted = tuple(only)
    keys = [row.key for row in experiment.rows]
    for key in wanted:
        if key not in keys:
            raise TagmaskError(f"--only {key}: no row of {name}; its rows: {', '.join(keys)}")
    if wanted:
        experiment = replace(experiment, rows=tuple(row for row in experiment.rows if row.key in wanted))
    if checkpoint is not None and experiment.importer is None:
        raise TagmaskError(f"--checkpoint: nobody published a network of {name}; leave it out")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise no_such(checkpoint, "file", "name the authors' checkpoint, or leave --checkpoint out")
    folder = None if weights is None else Path(weights)
    notes: tuple[str, ...] = ()
    if folder is not None and not folder.is_dir():
        error = no_such(folder, "folder", "name the one that holds the pretrained weights")
        if not dry_run:
            raise error
        notes = (str(error),)

    # Of GlaS the segmenter is a run of its own, on other images.
    own = tuple(overrides)
    second = None
    if experiment.tree == "glas":
        later = tuple(text.removeprefix("segmenter.") for text in own if text.startswith("segmenter."))
        own = tuple(text for text in own if not text.startswith("segmenter."))
        later = (*_found(load_recipe(GLAS_SEGMENTER), folder), *later)
        second = load_recipe(GLAS_SEGMENTER, later), later
    packaged = load_recipe(experiment.recipe)
    if checkpoint is not None and experiment.importer == "rca":
        own = ("method.cam_source=final", *own)  # maps gathered in its training are not in the file
    settings = (*_found(packaged, folder), *own)
    recipe = load_recipe(experiment.recipe, settings)
    lacking = ""
    try:
        tree = CHECKS[experiment.tree](Path(data), recipe)
    except TagmaskError as error:
        if not dry_run:
            raise
        tree, lacking = Tree(Path(data), ()), str(error)
    tree = replace(tree, notes=(*tree.notes, *notes))
    settings = (*tree.settings, *settings)
    recipe = load_recipe(experiment.recipe, settings)
    missing = missing_weights(recipe)
    if checkpoint is not None:  # the classifier needs no start, but AffinityNet may begin from the same
        refine = recipe.refine
        shared = refine is not None and refine.name == "affinity" and refine.affinity.backbone is None
        missing = [each for each in missing if shared or each.key != "backbone.weights"]
    found = [(folder / file, kind) for file, kind in experiment.stage_files.items()] if folder else []
    return Plan(
        experiment,
        tree,
        recipe,
        settings,
        second,
        Path(output or Path("reproduce") / name),
        tuple((file, kind) for file, kind in found if file.is_file()),
        None if checkpoint is None else Path(checkpoint),
        (*missing, *(missing_weights(second[0]) if second else ())),
        lacking,
    )


def _found(recipe: Recipe, folder: Path | None) -> tuple[str, ...]:
    """The overrides that name the files in a folder of weights; a hub name's own file is taken where it is there."""
    settings = []
    for key, section in backbone_sections(recipe):
        if folder is None or section.weights is None:
            continue
        first, *others = (folder / Path(name).name for name in (section.weights, *same_weights(section.weights)))
        file = next((file for file in (first, *others) if file.is_file()), None)
        if file is None and not is_on_hub(section.weights):
            file = first  # it is missing there, and told so
        if file is not None:
            settings.append(f"{key}={file.resolve()}")
    return tuple(settings)


def _command(*words: object) -> str:
    return shlex.join(["tagmask", *map(str, words)])


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]
