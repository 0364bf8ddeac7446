"""What the stages of a recipe do: classifiers, CAMs, masks, segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from tagmask.data.cam_files import SUFFIX
from tagmask.data.dataset import Dataset
from tagmask.data.files import write_classes
from tagmask.data.masks import PngMask
from tagmask.data.splits import last_ids
from tagmask.data.untaught import companions
from tagmask.engine.alike import write_alike
from tagmask.engine.band import with_band
from tagmask.engine.checkpoint import MODEL_FILE, STATE_FILE, read_training_state
from tagmask.engine.clusters import CLUSTERS, read_clusters, write_clusters
from tagmask.engine.device import default_device, is_first_process
from tagmask.engine.loop import Evaluate, OnLog, check_method, training_set
from tagmask.engine.loop import train as run_training
from tagmask.engine.model import load_affinity, load_classifier, segmenter_recipe, stage_recipe
from tagmask.engine.pairs import Pairs, fit_pairs
from tagmask.engine.pixels import Pixels, fit_pixels, lost_labels
from tagmask.engine.pretrained import LONG_SIDE, network_features
from tagmask.engine.progress import report_skipped
from tagmask.engine.refine_folder import refine_folder, write_affinity_labels, write_cam_folder, write_gathered
from tagmask.engine.run import AFFINITY, ALIKE, CAMS, LABELS, MASKS, SEGMENTER, STAGES, rounds_of
from tagmask.engine.stage import Products, Stage
from tagmask.engine.stage_rules import check_stages, joins_alike
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method, Round
from tagmask.methods.registry import build_method
from tagmask.models.backbone import Backbone
from tagmask.ops.distributed import from_first, gather_lists, share
from tagmask.recipes.load import Recipe
from tagmask.recipes.stages import RefineConfig


def stages_of(
    recipe: Recipe, dataset: Dataset, folder: Path, evaluate: Evaluate | None = None, on_log: OnLog | None = None
) -> list[Stage]:
    """The stages of a recipe on a training set.

    Args:
        recipe: `staged`.
        dataset: the training records.
        folder: of the run.
        evaluate: scores of a method with a decoder, logged by the segmenter's training.
        on_log: see `loop.OnLog`; what it is told has the stage's name as `stage`.

    Raises:
        TagmaskError: what no training could begin with.
    """
    check_stages(recipe)
    check_method(recipe, dataset)
    work = _Work(recipe, dataset, folder, evaluate, on_log)
    stages = work.classifiers()
    if recipe.refine is None and recipe.segmenter is None:
        return stages
    names = [record.name for record in dataset.records]
    refine = recipe.refine or RefineConfig()
    stages.append(Stage(CAMS, _named(names, SUFFIX), work.write_cams))
    if joins_alike(recipe):
        stages.append(Stage(ALIKE, _named(names, SUFFIX), work.join_alike))
    if refine.name == "affinity":
        stages.append(Stage(LABELS, _named(names, ".png"), work.write_labels))
        stages.append(Stage(AFFINITY, _trained, work.train_affinity))
    stages.append(Stage(MASKS, _named(names, ".png"), work.refine))
    if recipe.segmenter is not None:
        stages.append(Stage(SEGMENTER, _trained, work.train_segmenter))
    return stages


def left_out(stages: Sequence[Stage], dataset: Dataset, start: str | None) -> list[Products]:
    """Say what stages from `start` on left that an earlier recipe of a run had, and this one has not.

    It is to be forgotten with the rest: a later recipe would take it for its own.

    Args:
        stages: of the recipe.
        dataset: the training records.
        start: name of the first stage that runs anew.
    """
    names, own = [record.name for record in dataset.records], {stage.name for stage in stages}
    later = STAGES[STAGES.index(start) :] if start in STAGES else STAGES
    of_cams, of_masks = _named(names, SUFFIX), _named(names, ".png")
    products = {CAMS: of_cams, ALIKE: of_cams, LABELS: of_masks, MASKS: of_masks}
    return [Products(name, products.get(name, _trained)) for name in later if name not in own]


class _Work:
    """The stages' common ground."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, folder: Path, evaluate: Evaluate | None, on_log: OnLog | None
    ) -> None:
        self.recipe, self.folder, self.evaluate, self.on_log = recipe, folder, evaluate, on_log
        self.things, self.dataset = dataset, dataset.with_context()
        self.num_classes = len(dataset.classes)

    def _tell(self, stage: str) -> OnLog | None:
        """What a stage's training calls whenever it logs."""
        told = self.on_log
        return None if told is None else lambda step, values: told(step, {"stage": stage, **values})

    def classifiers(self) -> list[Stage]:
        """The trainings of the classifier, and before each that needs it the clustering of the images."""
        stages: list[Stage] = []
        for number, planned in enumerate(rounds_of(self.recipe)):
            if planned.clusters:
                stages.append(Stage(planned.clusters, lambda place: [place / CLUSTERS], self._cluster(number)))
            stages.append(Stage(planned.name, _trained, self._train_round(number, planned)))
        return stages

    def _train_round(self, number: int, planned: Round) -> Callable[[Path], None]:
        def make(place: Path) -> None:
            own = self._recipe_of(planned)
            clusters = read_clusters(self.folder / planned.clusters, self.dataset) if planned.clusters else None

            def build() -> Method:
                return build_method(own, len(self.dataset.classes), number=number)

            run_training(own, self.dataset, place, build=build, clusters=clusters, on_log=self._tell(planned.name))

        return make

    def _recipe_of(self, planned: Round) -> Recipe:
        """The recipe with the length that a round has of its own."""
        own = {"steps": planned.steps, "stop": planned.stop}
        changes = {key: value for key, value in own.items() if value is not None}
        return self.recipe.model_copy(update={"training": self.recipe.training.model_copy(update=changes)})

    def _cluster(self, number: int) -> Callable[[Path], None]:
        def make(place: Path) -> None:
            write_clusters(place, self._trained_classifier(number - 1), self.dataset, self.recipe.inference)

        return make

    def _trained_classifier(self, number: int = -1) -> Method:
        """The classifier of a round, by default the last, on the device where there is one."""
        return load_classifier(self.recipe, self.num_classes, self.folder, number).to(default_device())

    def write_cams(self, place: Path) -> None:
        recipe, method = self.recipe, self.recipe.method
        if is_first_process():
            write_classes(place, self.things.classes)
        classifier = self._trained_classifier()
        if classifier.gathers_cams:
            of_image = self._with_gathered(classifier.cpu()).gathered_cams
            write_gathered(place, share(list(enumerate(self.dataset.records))), of_image)
            return
        own = recipe.inference
        inference = own.model_copy(update={"cam_scales": own.cam_scales or getattr(method, "scales", own.scales)})
        _report(write_cam_folder(classifier, share(self.dataset.records), inference, place))

    def _with_gathered(self, classifier: Method) -> Method:
        """The classifier with all that its training knew, the gathered maps among it."""
        planned = rounds_of(self.recipe)[-1]
        classifier.start_training(training_set(self._recipe_of(planned), self.dataset))
        path = self.folder / planned.name / STATE_FILE
        if not path.exists():
            raise TagmaskError(
                f"{path}: is missing, and holds the maps that were gathered; train anew with --from {planned.name}"
            )
        state = read_training_state(path)["method"]
        try:
            classifier.load_state_dict(state)
        except (RuntimeError, TypeError):
            raise TagmaskError(f"{path}: of other training data; train anew with --from {planned.name}") from None
        return classifier

    def join_alike(self, place: Path) -> None:
        """Join the CAMs by those of places that look alike."""
        recipe, last = self.recipe, last_ids(self.things, self.recipe.data)
        long_side = max(LONG_SIDE, recipe.inference.long_side or 0)
        counted = {*range(1, self.num_classes + 1)} - {*last}
        features = network_features(recipe.backbone, long_side)
        _report(write_alike(self.folder / CAMS, self.dataset.records, place, features, counted=counted))

    @property
    def _cams(self) -> Path:
        """The folder of the CAMs that masks are made of."""
        return self.folder / (ALIKE if joins_alike(self.recipe) else CAMS)

    def write_labels(self, place: Path) -> None:
        refine = self._refine
        records, cams = share(self.dataset.records), self._cams
        args = cams, records, place, refine, refine.affinity, self.num_classes, self._pixels, self._pairs
        _report(write_affinity_labels(*args))

    def train_affinity(self, place: Path) -> None:
        refine = self.recipe.refine or RefineConfig()
        own = stage_recipe(self.recipe, refine.affinity)
        labelled = self._masked(self.dataset, self.folder / LABELS)

        def build() -> Affinity:
            return Affinity(Backbone(own.backbone), self.num_classes)

        run_training(own, labelled, place, build=build, on_log=self._tell(AFFINITY))

    def refine(self, place: Path) -> None:
        affinity = None
        if self._refine.name == "affinity":
            affinity = load_affinity(self.recipe, self.num_classes, self.folder).to(default_device())
        _report(
            refine_folder(
                self._cams,
                share(self.dataset.records),
                place,
                self._refine,
                background=self.recipe.data.background,
                affinity=affinity,
                num_classes=self.num_classes,
                last=last_ids(self.things, self.recipe.data),
                pixels=self._pixels,
                pairs=self._pairs,
                companions=self._companions,
            )
        )

    @cached_property
    def _refine(self) -> RefineConfig:
        """The recipe's refinement, with two powers in place of a band that is to be chosen."""
        given = self.recipe.refine or RefineConfig()
        if given.band != "auto":
            return given
        classifier, inference = self._trained_classifier(), self.recipe.inference
        args = given, self._cams, self.dataset.records, classifier, inference
        last = last_ids(self.things, self.recipe.data)
        return from_first(lambda: with_band(*args, num_classes=self.num_classes, last=last))

    @cached_property
    def _pixels(self) -> Pixels | None:
        """What drawn masks teach about the masks of the other images, where there are some to be used."""
        # The records of the classes alone: those with context classes have no masks, which do not know them.
        refine, records = self._refine, self.things.records
        if not (self.recipe.data.use_masks and refine.pixel_classifier):
            return None
        fitted = fit_pixels(self._trained_classifier(), records, self.recipe.inference)
        if fitted is None:
            return None
        cams, classes = self._cams, self.things.classes
        lost = from_first(lambda: lost_labels(fitted, records, cams, refine, classes))
        return fitted.without(lost)

    @cached_property
    def _pairs(self) -> Pairs | None:
        """What tells classes apart that come together, where drawn masks do not."""
        if not self._refine.tell_apart:
            return None
        known = () if self._pixels is None else self._pixels.classifier.labels.tolist()
        classifier, inference = self._trained_classifier(), self.recipe.inference
        # Which pixels show the pair, this image's own CAMs know best: joined ones light up more.
        return fit_pairs(classifier, self.things, self.folder / CAMS, inference, known=known)

    @property
    def _companions(self) -> dict[int, tuple[int, ...]] | None:
        """By label ids, the classes that come along with others."""
        if not self._refine.tell_apart:
            return None
        found = companions(self.things)
        return {own + 1: tuple(other + 1 for other in others) for own, others in found.items()}

    def train_segmenter(self, place: Path) -> None:
        section = self.recipe.segmenter
        assert section is not None
        own = segmenter_recipe(self.recipe)
        masked = self._masked(self.things, self.folder / MASKS)

        def build() -> Method:
            if section.start == "weights":
                return build_method(own, self.num_classes)
            method = build_method(own, self.num_classes, pretrained=False)
            trained = self._trained_classifier().cpu()
            method.network.backbone.load_state_dict(trained.network.backbone.state_dict())
            return method

        run_training(own, masked, place, evaluate=self.evaluate, build=build, on_log=self._tell(SEGMENTER))

    def _masked(self, dataset: Dataset, masks: Path) -> Dataset:
        """The records that a stage wrote a mask of, with it; or with their ground truth, where that is to be used."""
        records, ids = [], {each: each for each in range(not dataset.background, len(dataset.classes) + 1)}
        for record in dataset.records:
            path = masks / f"{record.name}.png"
            if self.recipe.data.use_masks and record.mask is not None:
                records.append(record)
            elif path.exists():
                records.append(replace(record, mask=PngMask(path, ids)))
        return replace(dataset, records=tuple(records))


def _report(skipped: Sequence[str]) -> None:
    """Name what the processes left out of their shares."""
    reasons = gather_lists(skipped)
    if is_first_process():
        report_skipped(reasons)


def _trained(place: Path) -> list[Path]:
    return [place / STATE_FILE, place / MODEL_FILE, place / "metrics.jsonl"]


def _named(names: Sequence[str], suffix: str) -> Callable[[Path], list[Path]]:
    return lambda place: [place / f"{name}{suffix}" for name in names]
