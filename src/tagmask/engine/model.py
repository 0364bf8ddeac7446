"""A trained run, opened for prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from tagmask.data.dataset import PathLike
from tagmask.data.images import ImageLike, limit_pixels, picture_of
from tagmask.engine.checkpoint import load_model
from tagmask.engine.device import default_device
from tagmask.engine.inference import predict_pictures
from tagmask.engine.result import Result
from tagmask.engine.run import AFFINITY, SEGMENTER, Run, open_run, rounds_of
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method
from tagmask.methods.combined import Combined
from tagmask.methods.registry import build_method, without_weights
from tagmask.models.backbone import Backbone
from tagmask.ops.label_ids import count_classes
from tagmask.recipes.load import Recipe, load_recipe
from tagmask.recipes.stages import StageTraining


class Model:
    """A trained run, ready to label images."""

    def __init__(self, run: Run, method: Method) -> None:
        self.run, self.method = run, method

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in id order; label-map id i + 1 is `classes[i]`."""
        return self.run.classes

    def __repr__(self) -> str:
        recipe, size = self.run.recipe, sum(parameter.numel() for parameter in self.method.parameters()) / 1e6
        return (
            f"<tagmask model {self.run.folder}: {recipe.method.name} on {recipe.backbone.name}, {size:.1f} million "
            f"weights, {count_classes(self.classes)} classes: {', '.join(self.classes)}>"
        )

    def predict(self, image: ImageLike, tags: Sequence[str] | None = None) -> Result:
        """Label one image without tags; where tags are given, only they and background can win.

        Args:
            image: a file, its bytes, a binary file object, a Pillow picture, or an array: (H, W), (H, W, 3) or
                (H, W, 4), red first, of uint8, uint16, or float in 0..1.
            tags: names of the classes in it.

        Returns:
            The (H, W) label map, uint8 or, of over 254 classes, uint16; see `Result` for what else it knows.

        Raises:
            TagmaskError: the image does not open or is none, or a tag is no class of the run.
        """
        return self.predict_many([image], tags)[0]

    def predict_many(
        self, images: Iterable[ImageLike], tags: Sequence[str] | None = None, *, batch: int = 8
    ) -> list[Result]:
        """Label several images; those of one size go through the network together.

        Args:
            images: each as `predict` takes it.
            tags: names of the classes that may win in all of them beside background; None: all.
            batch: the most images that go through the network, and are held opened, at a time.

        Returns:
            A result for each image, in their order.

        Raises:
            TagmaskError: an image does not open or is none, or a tag is no class of the run.
        """
        if isinstance(tags, str):
            raise TagmaskError(f"tags: {tags!r} is one text; give a list of class names, as [{tags!r}]")
        if tags is not None and not tags:
            raise TagmaskError("tags: an empty list leaves nothing but background; leave tags out if nobody knows them")
        if isinstance(images, str | Path | bytes | np.ndarray | Image.Image):
            raise TagmaskError("images: is one image; give a list of images, or call predict")
        ids = None if tags is None else tuple(sorted({self._class_index(tag) for tag in tags}))
        config = self.run.recipe.inference
        pictures = iter(images)
        results = []
        while group := [picture_of(image) for image in islice(pictures, batch)]:
            found = predict_pictures(self.method, group, ids, config)
            results += [
                Result(own, picture, self.classes, self.method, config)
                for own, picture in zip(found, group, strict=True)
            ]
        return results

    @property
    def has_decoder(self) -> bool:
        """Whether the run can label images without tags: see `Run.decoder_learnt`."""
        return self.run.decoder_learnt

    def check_decoder(self) -> None:
        """Refuse a run that has nothing but CAMs.

        Raises:
            TagmaskError: it has no decoder, or one that was never trained; names the ways out.
        """
        if not self.run.has_decoder:
            folder = self.run.folder
            raise TagmaskError(
                f"{folder}: a run of {self.run.recipe.method.name} without a segmenter has CAMs alone, and they need "
                "tags. Add --source cam where there is such an option, or a segmenter: `tagmask train "
                f"-r {folder}/recipe.yaml -o {folder} --from cams --set 'segmenter={{start: classifier}}'`"
            )
        if not self.has_decoder:
            method, training = self.run.recipe.method, self.run.recipe.training
            begins = method.method_class.decoder_begins(method)
            steps = min(training.stop or training.steps, training.steps)
            raise TagmaskError(
                f"{self.run.folder}: its decoder never learnt: method.decoder_from is {begins}, and training ended "
                f"after {steps} steps. Add --source cam where there is such an option, or train with a smaller "
                "method.decoder_from"
            )

    def _class_index(self, tag: str) -> int:
        if tag not in self.classes:
            raise TagmaskError(f"tag {tag!r} is no class of {self.run.folder}; its classes: {', '.join(self.classes)}")
        return self.classes.index(tag)


def load(run: PathLike, *, device: str | None = None) -> Model:
    """Open a run folder for prediction.

    Args:
        run: the output of `train` or `import_checkpoint`, or `hf-hub:OWNER/NAME` of a pushed one.
        device: a torch device; by default a GPU where there is one.

    Raises:
        TagmaskError: no run folder, of another version, or without a model; the hub does not give it.
    """
    opened = open_run(_fetch(run) if is_on_hub(run) else Path(run))
    limit_pixels(opened.recipe.data.max_pixels)
    if opened.recipe.staged:
        method = load_staged(opened.recipe, len(opened.classes), opened.folder)
    else:
        method = build_method(opened.recipe, len(opened.classes), pretrained=False)
        load_model(opened.folder, method.network)
    chosen = device or default_device()
    return Model(opened, method.to(chosen).eval())


def is_on_hub(run: PathLike) -> bool:
    """Whether this is the name of a run on the hub, `hf-hub:OWNER/NAME`."""
    return Path(run).as_posix().startswith("hf-hub:")


def is_run(path: PathLike) -> bool:
    """Whether `load` would take this for a run: a folder that says so, or a name on the hub."""
    return is_on_hub(path) or (Path(path) / "run.json").exists()


def overridden(
    recipe: Recipe, overrides: Iterable[str], *, only: Sequence[str] = (), but: Sequence[str] = ()
) -> Recipe:
    """The recipe with `key.path=value` put over it, checked anew.

    Args:
        recipe: of a run.
        overrides: what to put over it.
        only: the sections, or keys of sections, that may be changed; by default all.
        but: keys in them that may not.

    Raises:
        TagmaskError: a key is unknown, its value wrong, or the run's own is all there can be.
    """
    overrides = tuple(overrides)
    changed = load_recipe(recipe.model_dump(mode="json"), overrides)
    for key in (text.partition("=")[0] for text in overrides):
        if (only and key.split(".")[0] not in only and key not in only) or key in but:
            raise TagmaskError(
                f"--set {key}: belongs to the trained run and cannot be changed here; of its recipe there may be set "
                f"{', '.join(name if '.' in name else f'{name}.…' for name in only)}"
                + (f", not {', '.join(but)}" if but else "")
            )
    return changed


def _fetch(run: PathLike) -> Path:
    from tagmask.engine.fetch import fetch

    return fetch(Path(run).as_posix())


MethodT = TypeVar("MethodT", bound=Method)


def load_classifier(recipe: Recipe, num_classes: int, folder: Path, number: int = -1) -> Method:
    """Load a trained classifier of a run, in eval mode.

    Args:
        recipe: of a run of several stages.
        num_classes: K; the context classes come on top.
        folder: of the run.
        number: which of the method's rounds, -1 for the last.

    Raises:
        TagmaskError: that stage is not finished.
    """
    fresh = build_method(recipe, num_classes + len(recipe.data.context), pretrained=False, number=number)
    return _load(fresh, folder / rounds_of(recipe)[number].name)


def load_staged(recipe: Recipe, num_classes: int, folder: Path) -> Method:
    """Load the trained methods of a run as one: with a segmenter both, else the classifier.

    Raises:
        TagmaskError: the run is not finished.
    """
    classifier = load_classifier(recipe, num_classes, folder)
    if recipe.segmenter is None:
        return classifier
    own = segmenter_recipe(recipe)
    return Combined(classifier, _load(build_method(own, num_classes, pretrained=False), folder / SEGMENTER))


def load_affinity(recipe: Recipe, num_classes: int, folder: Path) -> Affinity:
    """The AffinityNet of a run that trained one.

    Raises:
        TagmaskError: it did not, or has not finished.
    """
    if recipe.refine is None or recipe.refine.name != "affinity":
        raise TagmaskError(f"{folder}: its recipe trains no AffinityNet; set refine.name=affinity and train")
    own = stage_recipe(recipe, recipe.refine.affinity).backbone
    return _load(Affinity(Backbone(without_weights(own)), num_classes), folder / AFFINITY)


def segmenter_recipe(recipe: Recipe) -> Recipe:
    """The recipe of a run's segmenter: its own method and sections, all others the run's."""
    assert recipe.segmenter is not None
    return stage_recipe(recipe, recipe.segmenter).model_copy(update={"method": recipe.segmenter.method})


def stage_recipe(recipe: Recipe, section: StageTraining) -> Recipe:
    """The recipe with the sections that a stage has of its own; all stages run on the devices of the run."""
    own = {name: getattr(section, name) for name in StageTraining.model_fields}
    if section.training is not None:
        own["training"] = section.training.model_copy(update={"devices": recipe.training.devices})
    return recipe.model_copy(update={name: value for name, value in own.items() if value is not None})


def _load(method: MethodT, place: Path) -> MethodT:
    load_model(place, method.network)
    method.eval()
    return method
