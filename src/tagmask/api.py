"""The verbs: train, label, predict, evaluate, import, load. The command line and the page call nothing else."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tagmask.cam.files import SUFFIX, write_cams
from tagmask.data.dataset import Dataset, check_class_list
from tagmask.data.images import is_image_name
from tagmask.data.readers import read_dataset
from tagmask.data.readers.voc import CLASSES as VOC_CLASSES
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.folder import Conditions, Result, evaluate_folder, result_of
from tagmask.evaluation.sweep import Sweep, ThresholdSweep
from tagmask.export.png import write_label_map
from tagmask.inference import Item, Source, predict_one, stream
from tagmask.methods.base import Method
from tagmask.methods.build import build_method
from tagmask.models.seco_checkpoint import to_tag_network, vit_options
from tagmask.models.weights import read_state
from tagmask.pipeline import run_stages
from tagmask.recipe import DataConfig, InferenceConfig, Recipe, load_recipe
from tagmask.run import Run, create_run, open_run, write_text
from tagmask.stages import changeable, check_stages, load_staged, stages_of
from tagmask.training.checkpoint import MODEL_FILE, load_model, save_model
from tagmask.training.loop import train as run_training

PathLike = Path | str


@dataclass(frozen=True)
class Written:
    """What `label` and `predict` wrote.

    Attributes:
        folder: of the masks.
        images: how many masks it now holds from this call.
        skipped: what is wrong with the images that were left out.
    """

    folder: Path
    images: int
    skipped: tuple[str, ...]


class Model:
    """A trained run, ready to label images."""

    def __init__(self, run: Run, method: Method) -> None:
        self.run, self.method = run, method

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in id order; label-map id i + 1 is `classes[i]`."""
        return self.run.classes

    def predict(self, image: PathLike | Image.Image, tags: Sequence[str] | None = None) -> Any:
        """The (H, W) uint8 label map of one image; where tags are given, only they and background can win.

        Raises:
            TagmaskError: the image does not open, or a tag is no class of the run.
        """
        ids = None if tags is None else tuple(sorted({self._class_index(tag) for tag in tags}))
        return predict_one(self.method, image, ids, self.run.recipe.inference).labels

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
    if Path(run).as_posix().startswith("hf-hub:"):
        from tagmask.hub import fetch

        run = fetch(Path(run).as_posix())
    opened = open_run(Path(run))
    if opened.recipe.staged:
        method = load_staged(opened.recipe, len(opened.classes), opened.folder)
    else:
        method = build_method(opened.recipe, len(opened.classes), pretrained=False)
        load_model(opened.folder, method.network)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model(opened, method.to(chosen).eval())


def open_data(path: PathLike | None, config: DataConfig, classes: Sequence[str] | None = None) -> Dataset:
    """Read the data set a recipe names; `path` and `classes`, where given, stand over the recipe's."""
    where = path or config.path
    if where is None:
        raise TagmaskError("no data: give a folder, a table or an annotation file, or set data.path in the recipe")
    return read_dataset(
        Path(where),
        format=config.format,
        classes=list(classes or config.classes or ()) or None,
        background=config.background,
        image_folder=config.image_folder,
        masks=config.masks,
        mask_classes=list(config.mask_classes) if config.mask_classes else None,
        untagged=config.untagged,
        tag_source=config.tag_source,
    )


def train(
    data: PathLike | None = None,
    *,
    recipe: PathLike | Recipe = "auto",
    output: PathLike | None = None,
    overrides: Iterable[str] = (),
    from_stage: str | None = None,
) -> Path:
    """Train on a folder's images and tags; a second call with the same output resumes.

    Args:
        data: folder, table or annotation file; by default the recipe's `data.path`.
        recipe: name of a recipe of the package, a YAML file, or a `Recipe`; `auto` chooses one and says why.
        output: the run folder; by default `runs/METHOD-DATA`.
        overrides: `key.path=value`, as on the command line.
        from_stage: of a recipe of several stages, run this one and all later ones anew.

    Returns:
        the run folder.

    Raises:
        TagmaskError: whatever is wrong with data, recipe or output.
    """
    overrides = tuple(overrides)
    if recipe == "auto":
        chosen = _chosen_recipe(data, output, overrides)
    else:
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    dataset = open_data(data, chosen.data)
    where = Path(data or chosen.data.path or "").resolve()
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"path": where})})
    folder = Path(output or f"runs/{chosen.method.name}-{where.stem}")
    if chosen.staged:
        check_stages(chosen)
    elif from_stage is not None:
        raise TagmaskError(f"--from {from_stage}: this recipe has a single stage; choose another output to train anew")
    run = create_run(folder, chosen, dataset.classes, free=changeable(chosen, from_stage))
    training, held_out = training_split(dataset, chosen.data), evaluation_split(dataset, chosen.data)
    if (folder / MODEL_FILE).exists():
        return folder
    has_truth = len(held_out) > 0 and all(record.mask is not None for record in held_out.records)

    def quick_evaluation(method: Method) -> dict[str, float]:
        result = evaluate_method(method, held_out, run.recipe.inference, source="decoder")
        return {"decoder_miou": 100 * result.scores.miou}

    scores = quick_evaluation if has_truth else None
    if chosen.staged:
        run_stages(folder, stages_of(chosen, training, folder, scores), start=from_stage)
    else:
        run_training(chosen, training, folder, evaluate=scores)
    return folder


def _chosen_recipe(data: PathLike | None, output: PathLike | None, overrides: tuple[str, ...]) -> Recipe:
    """The recipe of the run that `output` holds already, else one chosen from data and machine, the reasons printed."""
    from tagmask.choose import choose_recipe, tell

    if output is not None and (Path(output) / "run.json").exists():
        return _overridden(open_run(Path(output)).recipe, overrides)
    config = load_recipe({"method": "cam"}, [text for text in overrides if text.startswith("data.")]).data
    chosen = choose_recipe(training_split(open_data(data, config), config), overrides)
    tell(chosen)
    return chosen.recipe


def training_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """The records to learn from: the named splits, else all that are not evaluated on."""
    if config.train is not None:
        return dataset.split(config.train)
    held_out = set(_evaluated_splits(dataset, config))
    kept = [name for name in dataset.splits if name not in held_out]
    return dataset.split(kept) if kept else dataset


def evaluation_split(dataset: Dataset, config: DataConfig) -> Dataset:
    """The records to evaluate on: the named splits, else `val` or `test`, else none."""
    return dataset.split(_evaluated_splits(dataset, config)) if _evaluated_splits(dataset, config) else _none(dataset)


def _evaluated_splits(dataset: Dataset, config: DataConfig) -> tuple[str, ...]:
    if config.evaluate is not None:
        return config.evaluate
    usual = [name for name in dataset.splits if name in ("val", "test", "validation", "val2017")]
    return tuple(usual[:1]) if len(dataset.splits) > 1 else ()


def _none(dataset: Dataset) -> Dataset:
    return Dataset((), dataset.classes, dataset.background, dataset.tag_source)


def label(
    run: PathLike,
    data: PathLike | None = None,
    *,
    output: PathLike,
    split: Sequence[str] | None = None,
    source: Source = "decoder",
    save_cams: PathLike | None = None,
    overrides: Iterable[str] = (),
) -> Written:
    """Write masks of tagged images: only an image's own tags and background can win.

    Args:
        run: a run folder.
        data: tagged images, in any format that `train` reads; by default the run's own.
        output: folder for `NAME.png` and `confidence.csv`.
        split: only these splits.
        source: `decoder`, or `cam` for the class activation maps themselves.
        save_cams: folder for the CAMs of each image's tags, `NAME.npz` with `cams` (n, h, w) float16 and label `ids`.
        overrides: of the recipe's `inference` and `data`, as `inference.refine=crf`.

    Raises:
        TagmaskError: whatever is wrong with run, data or output.
    """
    model = load(run)
    recipe = _overridden(model.run.recipe, overrides)
    dataset = open_data(data, recipe.data, model.classes).split(split)
    items = [Item(record.name, record.image, record.tags) for record in dataset.records]
    if save_cams is not None and source != "cam":
        raise TagmaskError("save_cams: only CAMs can be saved; add --source cam")
    return _write(model, items, Path(output), recipe.inference, source, None if save_cams is None else Path(save_cams))


def predict(
    run: PathLike,
    images: PathLike,
    *,
    output: PathLike,
    overrides: Iterable[str] = (),
) -> Written:
    """Write masks of images without tags.

    Args:
        run: a run folder.
        images: an image, or a folder of images (searched through).
        output: folder for `NAME.png` and `confidence.csv`.
        overrides: of the recipe's `inference`.

    Raises:
        TagmaskError: whatever is wrong with run, images or output.
    """
    model = load(run)
    recipe = _overridden(model.run.recipe, overrides)
    return _write(model, _find_images(Path(images)), Path(output), recipe.inference, "decoder")


def evaluate(
    predictions: PathLike,
    data: PathLike | None = None,
    *,
    split: Sequence[str] | None = None,
    protocol: str = "seco",
    source: Source = "decoder",
    tags: bool = False,
    recipe: PathLike | None = None,
    overrides: Iterable[str] = (),
) -> tuple[Result, Sweep | None]:
    """Compare a run, or a folder of masks, with the truth.

    Args:
        predictions: a run folder, or a folder of `NAME.png` label maps.
        data: the data set with true masks; by default the run's own.
        split: the splits; by default the recipe's evaluated ones.
        protocol: `seco`, `sccam`, `seam`, `eps` or `irn`.
        source: of a run: its decoder, or its CAMs (which are given the tags).
        tags: whether a run's decoder is told the images' tags.
        recipe: for a folder of masks, the recipe whose `data` section says how to read `data`.
        overrides: of the recipe.

    Returns:
        the scores, and for CAMs the sweep over background scores.

    Raises:
        TagmaskError: whatever is wrong with any of them.
    """
    folder = Path(predictions)
    if (folder / "run.json").exists():
        model = load(folder)
        chosen = _overridden(model.run.recipe, overrides)
        dataset = _to_evaluate(open_data(data, chosen.data, model.classes), chosen.data, split)
        if source == "cam":
            return evaluate_cams(model.method, dataset, chosen.inference, protocol=protocol)
        result = evaluate_method(model.method, dataset, chosen.inference, source=source, protocol=protocol, tags=tags)
        return result, None
    config = load_recipe(recipe, overrides).data if recipe else load_recipe({"method": "cam"}, overrides).data
    dataset = _to_evaluate(open_data(data, config), config, split)
    conditions = Conditions(split=",".join(dataset.splits))
    return evaluate_folder(folder, dataset, protocol=protocol, conditions=conditions), None


def _to_evaluate(dataset: Dataset, config: DataConfig, split: Sequence[str] | None) -> Dataset:
    if split is not None:
        return dataset.split(split)
    held_out = evaluation_split(dataset, config)
    return held_out if len(held_out) else dataset


def evaluate_method(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    *,
    source: Source,
    protocol: str = "seco",
    tags: bool = False,
) -> Result:
    """Scores of a method's label maps against a data set's masks, without writing them."""
    matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    records = {record.name: record for record in _with_truth(dataset)}
    given = tags or source == "cam"
    items = [Item(record.name, record.image, record.tags if given else None) for record in records.values()]
    for prediction in stream(method, items, config, source=source):
        truth = records[prediction.item.name].mask
        assert truth is not None
        matrix.add(truth.load(*prediction.labels.shape), prediction.labels)
    return result_of(matrix, dataset, protocol=protocol, conditions=_conditions(dataset, config, source, given))


def evaluate_cams(
    method: Method, dataset: Dataset, config: InferenceConfig, *, protocol: str = "seco"
) -> tuple[Result, Sweep | None]:
    """Scores of a method's CAMs with tags given, at the recipe's background score and over a sweep of it."""
    if not dataset.background:
        return evaluate_method(method, dataset, config, source="cam", protocol=protocol), None
    matrix = ConfusionMatrix(len(dataset.classes))
    sweep = ThresholdSweep(len(dataset.classes))
    records = {record.name: record for record in _with_truth(dataset)}
    items = [Item(record.name, record.image, record.tags) for record in records.values()]
    for prediction in stream(method, items, config, source="cam"):
        record = records[prediction.item.name]
        assert record.mask is not None
        truth = record.mask.load(*prediction.labels.shape)
        matrix.add(truth, prediction.labels)
        present = torch.zeros(len(dataset.classes))
        present[list(record.tags)] = 1
        cams = prediction.scores.cpu() * present[:, None, None]
        sweep.add(torch.nn.functional.interpolate(cams[None], size=truth.shape, mode="bilinear")[0], truth)
    conditions = _conditions(dataset, config, "cam", True)
    return result_of(matrix, dataset, protocol=protocol, conditions=conditions), sweep.result(protocol)


def _with_truth(dataset: Dataset) -> Sequence[Any]:
    if not len(dataset):
        raise TagmaskError("no images to evaluate: the data has no split to hold out; name one with --split")
    untrue = [record for record in dataset.records if record.mask is None]
    if untrue:
        raise TagmaskError(f"image {untrue[0].name!r} has no true mask ({len(untrue)} such); set data.masks")
    return dataset.records


def _conditions(dataset: Dataset, config: InferenceConfig, source: Source, tags: bool) -> Conditions:
    return Conditions(
        split=",".join(dataset.splits),
        source=source,
        tags_given=tags,
        scales=config.scales,
        flips=config.flip or source == "cam",
        refinement=config.refine,
        threshold=config.background if source == "cam" and dataset.background else None,
    )


def import_checkpoint(
    kind: str, file: PathLike, output: PathLike, *, classes: PathLike | None = None, overrides: Iterable[str] = ()
) -> Path:
    """Make a run folder of a published checkpoint.

    Args:
        kind: `seco`.
        file: the checkpoint, under the reference's names, `module.` before them or not.
        output: the run folder to make.
        classes: a file with a name a line; by default VOC's where there are 20, else `class 1`, `class 2`, ...
        overrides: of the recipe, `seco/voc`.

    Raises:
        TagmaskError: not such a checkpoint; names what does not fit.
    """
    if kind != "seco":
        raise TagmaskError(f"no importer for {kind!r}; there is: seco")
    origin = str(file)
    state = to_tag_network(read_state(Path(file)), origin)
    count = len(state["classifier.weight"])
    names = _class_names(classes, count)
    recipe = load_recipe("seco/voc", overrides)
    options = vit_options(state, origin)
    backbone = recipe.backbone.model_copy(update={"weights": None, "options": options})
    method = build_method(recipe.model_copy(update={"backbone": backbone}), count)
    try:
        method.network.load_state_dict(state)
    except RuntimeError as error:
        raise TagmaskError(f"{origin}: does not fit a SeCo network: {str(error).splitlines()[-1].strip()}") from None
    run = create_run(Path(output), recipe.model_copy(update={"backbone": backbone}), names)
    save_model(run.folder, method.network)
    return run.folder


def _class_names(classes: PathLike | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {index + 1}" for index in range(count))
    path = Path(classes)
    if not path.is_file():
        raise TagmaskError(f"{path}: no such file; expected {count} class names, one a line")
    names = check_class_list(path.read_text(encoding="utf-8").splitlines(), str(path))
    if len(names) != count:
        raise TagmaskError(f"{path}: {len(names)} classes, but the checkpoint's classifier has {count}")
    return names


def _overridden(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    return load_recipe(recipe.model_dump(mode="json"), overrides)


def _find_images(path: Path) -> list[Item]:
    if path.is_file():
        return [Item(path.stem, path)]
    if not path.is_dir():
        raise TagmaskError(f"{path}: no such image or folder")
    found = sorted(file for file in path.rglob("*") if file.is_file() and is_image_name(file.name))
    if not found:
        raise TagmaskError(f"{path}: no images in it; expected .jpg, .png, .webp, … files")
    names = [file.relative_to(path).with_suffix("").as_posix() for file in found]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [
        Item(file.relative_to(path).as_posix() if name in twice else name, file)
        for name, file in zip(names, found, strict=True)
    ]


def _write(
    model: Model,
    items: Sequence[Item],
    output: Path,
    config: InferenceConfig,
    source: Source,
    cams: Path | None = None,
) -> Written:
    if output.exists() and not output.is_dir():
        raise TagmaskError(f"{output}: a file, not a folder; choose another output")
    output.mkdir(parents=True, exist_ok=True)
    skipped: list[str] = []
    rows: list[tuple[str, float, str]] = []
    names = ("background", *model.classes)

    def note(item: Item, error: TagmaskError) -> None:
        skipped.append(str(error))

    for prediction in stream(model.method, items, config, source=source, on_error=note):
        path = output / f"{prediction.item.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label_map(path, prediction.labels)
        if cams is not None:
            tags = list(prediction.item.tags or ())
            write_cams(cams / f"{prediction.item.name}{SUFFIX}", prediction.scores[tags], tags)
        present = [names[index] for index in sorted(set(prediction.labels.flat)) if 0 < index < len(names)]
        rows.append((prediction.item.name, prediction.confidence, ";".join(present)))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "confidence", "classes"])
    writer.writerows(
        (name, f"{value:.4f}" if math.isfinite(value) else "", found) for name, value, found in sorted(rows)
    )
    write_text(output / "confidence.csv", table.getvalue())
    write_text(output / "classes.txt", "".join(f"{name}\n" for name in model.classes))
    return Written(output, len(rows), tuple(skipped))
