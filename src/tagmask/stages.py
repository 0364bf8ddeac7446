"""What the stages of a recipe do: classifiers, CAMs, masks, segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tagmask.cam.files import SUFFIX
from tagmask.data.dataset import Dataset
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method
from tagmask.methods.build import build_method, without_weights
from tagmask.methods.rca_training import Rca, Schedule
from tagmask.methods.sccam import Sccam
from tagmask.methods.staged import Staged
from tagmask.models.backbone import Backbone
from tagmask.pipeline import Stage
from tagmask.recipe import Recipe
from tagmask.recipe_stages import RcaConfig, RefineConfig, SccamConfig, StageTraining
from tagmask.refinement import refine_folder, write_affinity_labels, write_cam_folder, write_gathered
from tagmask.run import write_classes
from tagmask.subcategories import CLUSTERS, read_clusters, write_clusters
from tagmask.training.checkpoint import MODEL_FILE, STATE_FILE, load_model
from tagmask.training.loop import Evaluate
from tagmask.training.loop import train as run_training

CAMS, LABELS, AFFINITY, MASKS, SEGMENTER = "cams", "affinity-labels", "affinity", "refine", "segmenter"
MethodT = TypeVar("MethodT", bound=Method)


def stages_of(recipe: Recipe, dataset: Dataset, folder: Path, evaluate: Evaluate | None = None) -> list[Stage]:
    """The stages of a recipe on a training set.

    Args:
        recipe: `staged`.
        dataset: the training records.
        folder: of the run.
        evaluate: scores of a method with a decoder, logged by the segmenter's training.

    Raises:
        TagmaskError: what no training could begin with.
    """
    check_stages(recipe)
    work = _Work(recipe, dataset, folder, evaluate)
    stages = work.classifiers()
    if recipe.refine is None and recipe.segmenter is None:
        return stages
    names = [record.name for record in dataset.records]
    refine = recipe.refine or RefineConfig()
    stages.append(Stage(CAMS, work.write_cams, _named(names, SUFFIX)))
    if refine.name == "affinity":
        stages.append(Stage(LABELS, work.write_labels, _named(names, ".png")))
        stages.append(Stage(AFFINITY, work.train_affinity, _trained))
    stages.append(Stage(MASKS, work.refine, _named(names, ".png")))
    if recipe.segmenter is not None:
        stages.append(Stage(SEGMENTER, work.train_segmenter, _trained))
    return stages


def changeable(recipe: Recipe, start: str | None) -> tuple[str, ...]:
    """The keys and sections that a run may have otherwise than before when it starts anew from a stage."""
    later: dict[str, tuple[str, ...]] = {SEGMENTER: ("segmenter",)}
    walk = [f"refine.affinity.{name}" for name in ("beta", "logt", "border")]
    masks = [f"refine.{name}" for name in RefineConfig.model_fields if name not in ("affinity", "crf", "longest")]
    affinity = recipe.refine is not None and recipe.refine.name == "affinity"
    later[MASKS] = (*later[SEGMENTER], *((*masks, *walk) if affinity else ("refine",)))
    later[AFFINITY] = (*later[MASKS], *(f"refine.affinity.{name}" for name in StageTraining.model_fields))
    later[LABELS] = ("segmenter", "refine")
    later[CAMS] = (*later[LABELS], "inference")
    if start == _classifier_name(recipe, 0):
        return tuple(Recipe.model_fields)
    return later.get(start or "", ())


def load_classifier(recipe: Recipe, classes: int, folder: Path, number: int | None = None) -> Method:
    """The trained classifier of a run, in eval mode.

    Args:
        recipe: `staged`.
        classes: K; those of the surroundings come on top.
        folder: of the run.
        number: of a round of SC-CAM, 0 for the first classifier; by default the last.

    Raises:
        TagmaskError: that stage is not finished.
    """
    method = recipe.method
    classes += len(recipe.data.context)
    if isinstance(method, SccamConfig) and number == 0:
        backbone = Backbone(without_weights(recipe.backbone))
        fresh: Method = Sccam(backbone, classes, recipe.data.background, method, first=True)
    else:
        fresh = build_method(recipe, classes, pretrained=False)
    return _load(fresh, folder / (_last_classifier(recipe) if number is None else _classifier_name(recipe, number)))


def load_staged(recipe: Recipe, classes: int, folder: Path) -> Method:
    """The trained methods of a run as one: with a segmenter both, else the classifier.

    Raises:
        TagmaskError: the run is not finished.
    """
    classifier = load_classifier(recipe, classes, folder)
    if recipe.segmenter is None:
        return classifier
    own = _with(recipe, recipe.segmenter).model_copy(update={"method": recipe.segmenter.method})
    return Staged(classifier, _load(build_method(own, classes, pretrained=False), folder / SEGMENTER))


def load_affinity(recipe: Recipe, classes: int, folder: Path) -> Affinity:
    """The AffinityNet of a run that trained one.

    Raises:
        TagmaskError: it did not, or has not finished.
    """
    if recipe.refine is None or recipe.refine.name != "affinity":
        raise TagmaskError(f"{folder}: its recipe trains no AffinityNet; set refine.name=affinity and train")
    own = _with(recipe, recipe.refine.affinity).backbone
    return _load(Affinity(Backbone(without_weights(own)), classes), folder / AFFINITY)


class _Work:
    """The stages' common ground."""

    def __init__(self, recipe: Recipe, dataset: Dataset, folder: Path, evaluate: Evaluate | None) -> None:
        self.recipe, self.folder, self.evaluate = recipe, folder, evaluate
        self.things, self.dataset = dataset, dataset.with_context()
        self.classes = len(dataset.classes)

    def classifiers(self) -> list[Stage]:
        method = self.recipe.method
        if not isinstance(method, SccamConfig):
            return [Stage(_classifier_name(self.recipe, 0), self.train_classifier, _trained)]
        stages: list[Stage] = []
        for number in range(method.rounds + 1):
            if number:
                stages.append(Stage(f"clusters{number}", self._cluster(number), lambda place: [place / CLUSTERS]))
            stages.append(Stage(_classifier_name(self.recipe, number), self._round(number), _trained))
        return stages

    def train_classifier(self, place: Path) -> None:
        recipe, method = self.recipe, self.recipe.method
        if not isinstance(method, RcaConfig):
            run_training(recipe, self.dataset, place)
            return
        training = recipe.training
        steps = min(training.stop or training.steps, training.steps)
        tags = torch.from_numpy(self.dataset.tag_matrix()).float()
        schedule = Schedule(tags, training.batch, steps, recipe.views.crop)
        background = recipe.data.background

        def build() -> Method:
            return Rca(Backbone(recipe.backbone), len(self.dataset.classes), background, method, schedule=schedule)

        run_training(recipe, self.dataset, place, build=build)

    def _round(self, number: int) -> Callable[[Path], None]:
        def make(place: Path) -> None:
            recipe, method = self.recipe, self.recipe.method
            assert isinstance(method, SccamConfig)
            training = recipe.training
            if number == 0:
                training = training.model_copy(update={"steps": method.first_steps or training.steps, "stop": None})
            else:
                share = method.stop_at[min(number, len(method.stop_at)) - 1]
                training = training.model_copy(update={"stop": max(1, round(share * training.steps))})
            clusters = read_clusters(self.folder / f"clusters{number}", self.dataset) if number else None

            def build() -> Method:
                backbone, classes = Backbone(recipe.backbone), len(self.dataset.classes)
                background = recipe.data.background
                return Sccam(backbone, classes, background, method, clusters=clusters, first=number == 0)

            run_training(recipe.model_copy(update={"training": training}), self.dataset, place, build=build)

        return make

    def _cluster(self, number: int) -> Callable[[Path], None]:
        def make(place: Path) -> None:
            method = self.recipe.method
            assert isinstance(method, SccamConfig)
            former = self._trained_classifier(number - 1)
            assert isinstance(former, Sccam)
            write_clusters(place, former, self.dataset, self.recipe.inference)

        return make

    def _trained_classifier(self, number: int | None = None) -> Method:
        """Of a round, by default the last, on the device where there is one."""
        return load_classifier(self.recipe, self.classes, self.folder, number).to(_device())

    def write_cams(self, place: Path) -> None:
        recipe, method = self.recipe, self.recipe.method
        write_classes(place, self.things.classes)
        if isinstance(method, RcaConfig) and method.cam_source == "gathered":
            write_gathered(place, self.dataset.records, self._gathered(method))
            return
        scales = recipe.inference.cam_scales or getattr(method, "scales", recipe.inference.scales)
        inference = recipe.inference.model_copy(update={"scales": scales})
        _say(write_cam_folder(self._trained_classifier(), self.dataset.records, inference, place))

    def _gathered(self, method: RcaConfig) -> Callable[[int], tuple[Tensor, Tensor]]:
        from tagmask.methods.rca_attention import AttentionStore

        path = self.folder / _last_classifier(self.recipe) / STATE_FILE
        state = torch.load(path, map_location="cpu", weights_only=True)["method"]
        maps = state["gathered.maps"]
        store = AttentionStore(torch.from_numpy(self.dataset.tag_matrix()), maps.shape[1:], method.precision)
        if store.maps.shape != maps.shape:
            raise TagmaskError(f"{path}: of other training data; train anew with --from classifier")
        store.maps.copy_(maps)
        return store.of_image

    def write_labels(self, place: Path) -> None:
        refine = self.recipe.refine or RefineConfig()
        records, cams = self.dataset.records, self.folder / CAMS
        _say(write_affinity_labels(cams, records, place, refine, refine.affinity, self.classes))

    def train_affinity(self, place: Path) -> None:
        refine = self.recipe.refine or RefineConfig()
        own = _with(self.recipe, refine.affinity)
        labelled = _masked(self.dataset, self.folder / LABELS)
        run_training(own, labelled, place, build=lambda: Affinity(Backbone(own.backbone), self.classes))

    def refine(self, place: Path) -> None:
        refine = self.recipe.refine or RefineConfig()
        affinity = None
        if refine.name == "affinity":
            affinity = load_affinity(self.recipe, self.classes, self.folder).to(_device())
        background = self.recipe.data.background
        records = self.dataset.records
        _say(
            refine_folder(
                self.folder / CAMS,
                records,
                place,
                refine,
                background=background,
                affinity=affinity,
                classes=self.classes,
            )
        )

    def train_segmenter(self, place: Path) -> None:
        section = self.recipe.segmenter
        assert section is not None
        own = _with(self.recipe, section).model_copy(update={"method": section.method})
        masked = _masked(self.things, self.folder / MASKS)

        def build() -> Method:
            if section.start == "weights":
                return build_method(own, self.classes)
            method = build_method(own, self.classes, pretrained=False)
            trained = self._trained_classifier().cpu()
            method.network.backbone.load_state_dict(trained.network.backbone.state_dict())
            return method

        run_training(own, masked, place, evaluate=self.evaluate, build=build)


def check_stages(recipe: Recipe) -> None:
    """Raise a TagmaskError where sections of the recipe cannot go together."""
    if recipe.training.devices > 1:
        raise TagmaskError("training.devices: a recipe of several stages runs on one device; set it to 1")
    gathers = isinstance(recipe.method, RcaConfig) and recipe.method.cam_source == "gathered"
    if gathers and not (recipe.views.squash and recipe.views.flip == 0):
        raise TagmaskError(
            "method.cam_source gathered: maps are gathered over whole, unmirrored images; set views.squash=true and "
            "views.flip=0, or method.cam_source=final"
        )
    if gathers and recipe.inference.cam_scales is not None:
        raise TagmaskError(
            "inference.cam_scales: gathered maps have the scale they were trained at; remove it, or set "
            "method.cam_source=final"
        )
    if isinstance(recipe.method, SccamConfig) and recipe.training.stop is not None:
        raise TagmaskError("training.stop: a round of SC-CAM ends by method.stop_at; remove training.stop")
    segmenter = recipe.segmenter
    if segmenter is not None and segmenter.start == "classifier" and segmenter.backbone is not None:
        raise TagmaskError("segmenter.start classifier: the backbone is the classifier's; remove segmenter.backbone")


def _classifier_name(recipe: Recipe, number: int) -> str:
    return f"round{number}" if isinstance(recipe.method, SccamConfig) else "classifier"


def _last_classifier(recipe: Recipe) -> str:
    return _classifier_name(recipe, recipe.method.rounds if isinstance(recipe.method, SccamConfig) else 0)


def _with(recipe: Recipe, section: StageTraining) -> Recipe:
    """The recipe with the sections that a stage has of its own."""
    own = {name: getattr(section, name) for name in StageTraining.model_fields}
    return recipe.model_copy(update={name: value for name, value in own.items() if value is not None})


def _masked(dataset: Dataset, masks: Path) -> Dataset:
    """The records that a stage wrote a mask of, with it."""
    paths = [masks / f"{record.name}.png" for record in dataset.records]
    pairs = [(record, path) for record, path in zip(dataset.records, paths, strict=True) if path.exists()]
    return replace(dataset, records=tuple(replace(record, mask=PngMask(path)) for record, path in pairs))


def _load(method: MethodT, place: Path) -> MethodT:
    load_model(place, method.network)
    method.eval()
    return method


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _trained(place: Path) -> list[Path]:
    return [place / STATE_FILE, place / MODEL_FILE, place / "metrics.jsonl"]


def _named(names: Sequence[str], suffix: str) -> Callable[[Path], list[Path]]:
    return lambda place: [place / f"{name}{suffix}" for name in names]


def _say(skipped: Sequence[str]) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    for reason in skipped[:10]:
        console.print(f"skipped: {reason}", highlight=False)
    if len(skipped) > 10:
        console.print(f"skipped: {len(skipped)} images in all", highlight=False)
