"""The verb `import`: published checkpoints, made into run folders."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tagmask.data.dataset import PathLike, listed_classes
from tagmask.data.files import is_temporary, replacing, write_text
from tagmask.data.lock import LOCK, locked
from tagmask.data.readers.coco import CLASSES as COCO_CLASSES
from tagmask.data.readers.voc import CLASSES as VOC_CLASSES
from tagmask.engine.checkpoint import MODEL_FILE, load_model, write_model
from tagmask.engine.model import load_affinity, load_classifier, overridden, segmenter_recipe
from tagmask.engine.run import AFFINITY, LABELS, SEGMENTER, Run, create_run, open_run, rounds_of
from tagmask.engine.stage import DONE
from tagmask.errors import TagmaskError, no_such
from tagmask.methods.registry import build_method
from tagmask.models.deeplabv2 import RESNET101
from tagmask.models.published import deeplabv2, rca, resnet38, seco
from tagmask.models.weight_files import read_state
from tagmask.models.weights import CAFFE, IMAGENET, Normalisation
from tagmask.recipes.load import Recipe, load_recipe

CLASS_LISTS = {len(names): names for names in (VOC_CLASSES, COCO_CLASSES)}
NO_LATER_STAGES = ("refine=null", "segmenter=null")


class Checkpoint(NamedTuple):
    """What a published file comes to.

    Attributes:
        recipe: that it was trained by.
        settings: overrides of the recipe that the file asks for.
        tensors: of the trained network, under our names.
        num_classes: K; none where the network does not know it.
        trained: what need not be trained any more: a run of one stage, the classifier's first round or all its rounds,
            AffinityNet, or a segmenter, which is a run of its own unless it joins one.
    """

    recipe: Recipe
    settings: tuple[str, ...]
    tensors: dict[str, Tensor]
    num_classes: int | None
    trained: Literal["run", "first round", "rounds", "affinity", "segmenter"]


def import_checkpoint(
    kind: str, file: PathLike, output: PathLike, *, classes: PathLike | None = None, overrides: Iterable[str] = ()
) -> Path:
    """Make a run folder of a published checkpoint.

    Args:
        kind: `seco`, `sccam`, `psa`, `rca` or `deeplab`.
        file: the checkpoint, under its authors' names, `module.` before them or not. It is never unpickled.
        output: the run folder to make. A run folder of several stages that is there, of the same classes, keeps its
            recipe, and the network takes the place of the stage that it is; `train` then goes on from it.
        classes: a file with a name a line; by default VOC's where there are 20, COCO's where there are 80, else
            `class 1`, `class 2`, ...
        overrides: of the recipe that the checkpoint was trained by.

    Returns:
        the run folder.

    Raises:
        TagmaskError: not such a checkpoint; names what does not fit.
    """
    if kind not in IMPORTERS:
        raise TagmaskError(f"no importer for {kind!r}; there are: {', '.join(IMPORTERS)}")
    if not Path(file).exists():
        raise no_such(file, "file", "give the checkpoint that the authors published")
    output = Path(output)
    checkpoint = IMPORTERS[kind](read_state(file), str(file))
    joins = _joined(output, checkpoint, str(file)) if (output / "run.json").exists() else None
    settings = checkpoint.settings
    if joins and checkpoint.trained == "segmenter":
        settings = tuple(f"segmenter.{text}" for text in settings)
    elif not joins and checkpoint.trained in ("rounds", "segmenter"):
        settings = (*settings, *NO_LATER_STAGES)
    recipe = overridden(joins.recipe if joins else checkpoint.recipe, (*settings, *overrides))
    if joins and classes is None:
        names = joins.classes
    else:
        names = _class_names(classes, checkpoint.num_classes)

    # The code that will read the model checks it before a run folder is made.
    done = _stages(recipe, checkpoint.trained, joins=joins is not None)
    place = done[-1] if done else ""
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary, place, MODEL_FILE)
        written.parent.mkdir(exist_ok=True)
        write_model(written, checkpoint.tensors)
        try:
            _check(recipe, len(names), Path(temporary), place)
        except TagmaskError as error:
            raise TagmaskError(str(error).replace(str(written), str(file))) from None
        free = ("segmenter",) if checkpoint.trained == "segmenter" else ()
        with locked(output):
            create_run(output, recipe, names, training=joins.training if joins else "", free=free)
            with replacing(output / place / MODEL_FILE) as target:
                shutil.copyfile(written, target)
            for stage in done:
                write_text(output / stage / DONE, json.dumps({"imported": Path(file).name}) + "\n")
    return output


def _joined(folder: Path, checkpoint: Checkpoint, origin: str) -> Run | None:
    """The run that a network becomes a stage of; None for what is left of an import that was killed early.

    Raises:
        TagmaskError: that run has no such stage.
    """
    run = open_run(folder)
    refine = run.recipe.refine
    stages = {
        "run": False,
        "segmenter": run.recipe.segmenter is not None,
        "affinity": refine is not None and refine.name == "affinity",
    }
    if not stages.get(checkpoint.trained, run.recipe.method.name == checkpoint.recipe.method.name):
        names = {path.name for path in folder.iterdir() if path.name != LOCK and not is_temporary(path.name)}
        if names == {"run.json", "recipe.yaml", "classes.txt"}:
            return None  # `create_run` takes it up where it is of the same recipe, and refuses it otherwise
        raise TagmaskError(
            f"{folder}: a run folder is there, of {run.recipe.method.name}, and {origin} is no stage of it; choose "
            "another output"
        )
    return run


def _stages(recipe: Recipe, trained: str, *, joins: bool) -> tuple[str, ...]:
    """The stages of the run that need not be run any more; the network belongs in the folder of the last."""
    if trained == "affinity":
        return LABELS, AFFINITY
    if trained == "segmenter":
        return (SEGMENTER,) if joins else ()
    rounds = rounds_of(recipe)
    kept = {"run": (), "first round": rounds[:1], "rounds": rounds}[trained]
    return tuple(name for planned in kept for name in (planned.clusters, planned.name) if name)


def _check(recipe: Recipe, num_classes: int, folder: Path, place: str) -> None:
    """Raise a TagmaskError where the model in a stage's folder is not that of the recipe."""
    if not place:
        load_model(folder, build_method(recipe, num_classes, pretrained=False).network)
    elif place == SEGMENTER:
        load_model(folder / place, build_method(segmenter_recipe(recipe), num_classes, pretrained=False).network)
    elif place == AFFINITY:
        load_affinity(recipe, num_classes, folder)
    else:
        number = [planned.name for planned in rounds_of(recipe)].index(place)
        load_classifier(recipe, num_classes, folder, number)


def _seco(state: dict[str, Tensor], origin: str) -> Checkpoint:
    """A run of SeCo, whole; the number of classes tells the data set, whose inference it takes."""
    tensors = seco.network_state(state, origin)
    count = len(tensors["classifier.weight"])
    recipe = load_recipe("seco/coco-paper" if count == len(COCO_CLASSES) else "seco/voc-paper")
    options = f"backbone.options={seco.vit_options(tensors, origin)}"
    return Checkpoint(recipe, ("backbone.weights=null", options, *_normalised(IMAGENET)), tensors, count, "run")


def _sccam(state: dict[str, Tensor], origin: str) -> Checkpoint:
    """A run of SC-CAM whose classifiers are trained: it has CAMs, and the later stages can follow."""
    tensors = resnet38.network_state(state, resnet38.LATER_ROUNDS, origin)
    count, sub = (len(tensors[f"heads.{name}"]) for name in resnet38.LATER_ROUNDS)
    settings = (f"method.subclasses={sub // count}", *_width(tensors))
    return Checkpoint(load_recipe("sccam/voc-paper"), settings, tensors, count, "rounds")


def _psa(state: dict[str, Tensor], origin: str) -> Checkpoint:
    """A run of SC-CAM that has its first classifier, or its AffinityNet, and trains the rest."""
    recipe = load_recipe("sccam/voc-paper")
    if resnet38.heads_of(state) == resnet38.AFFINITY:
        tensors = resnet38.network_state(state, resnet38.AFFINITY, origin)
        return Checkpoint(recipe, _width(tensors), tensors, None, "affinity")
    tensors = resnet38.network_state(state, resnet38.FIRST_ROUND, origin)
    return Checkpoint(recipe, _width(tensors), tensors, len(tensors["heads.fc8.weight"]), "first round")


def _rca(state: dict[str, Tensor], origin: str) -> Checkpoint:
    """A run of RCA whose classifier is trained. The maps gathered while it was trained are not in the file."""
    tensors = rca.network_state(state, origin)
    count, memory, _ = tensors["memory.queue"].shape
    prototypes = tensors["memory.prototypes"].shape[1]
    settings = (f"method.memory={memory}", f"method.prototypes={prototypes}", "method.cam_source=final")
    return Checkpoint(load_recipe("rca/voc-paper"), settings, tensors, count, "rounds")


def _deeplab(state: dict[str, Tensor], origin: str) -> Checkpoint:
    """A segmenter, trained on masks: a run of its own, or the last stage of one."""
    tensors = deeplabv2.network_state(state, origin)
    if "decoder.branches.0.weight" not in tensors:
        raise TagmaskError(
            f"{origin}: a start without a classifier, which cannot label images; train a segmenter from it, by --set "
            f"segmenter.backbone.weights={origin}"
        )
    outputs, width = tensors["decoder.branches.0.weight"].shape[:2]
    recipe = segmenter_recipe(load_recipe("sccam/voc-paper"))
    # It has no classifiers of tags. With weights of zero its CAMs are empty.
    tensors["classifier.weight"] = torch.zeros(outputs - 1, width, 1, 1)
    tensors["aux_classifier.weight"] = torch.zeros(outputs - 1, width // 2, 1, 1)
    blocks = tuple(deeplabv2.blocks_of(tensors))
    options = () if blocks == RESNET101 else (f"backbone.options={{blocks: {list(blocks)}}}",)
    settings = ("backbone.weights=null", "backbone.freeze_norm=true", *_normalised(CAFFE), *options)
    return Checkpoint(recipe, settings, tensors, outputs - 1, "segmenter")


IMPORTERS = {"seco": _seco, "sccam": _sccam, "psa": _psa, "rca": _rca, "deeplab": _deeplab}
"""From tensors and the name of their file to the checkpoint, by the word after `tagmask import`."""


def _normalised(values: Normalisation) -> tuple[str, ...]:
    return tuple(f"backbone.{name}={list(channels)}" for name, channels in values._asdict().items())


def _width(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """The setting of a ResNet-38 narrower than the published one."""
    width = resnet38.width_of(tensors)
    return () if width == 1 else (f"backbone.options={{width: {width}}}",)


def _class_names(classes: PathLike | None, count: int | None) -> tuple[str, ...]:
    """The names in a file, which must be `count`, or else the names of the data set that has so many classes."""
    if classes is None:
        wanted = len(VOC_CLASSES) if count is None else count
        return CLASS_LISTS.get(wanted) or tuple(f"class {index + 1}" for index in range(wanted))
    path = Path(classes)
    if not path.is_file():
        raise no_such(path, "file", f"expected {count or 'the'} class names, one a line")
    names = listed_classes(path)
    if count is not None and len(names) != count:
        raise TagmaskError(f"{path}: {len(names)} classes, but the checkpoint's classifier has {count}")
    return names
