"""The verb `train`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask.api.drawn_masks import check_apart, check_masks
from tagmask.api.final_score import LOGGED, last_score, score_finished
from tagmask.data.dataset import Dataset, PathLike
from tagmask.data.doubts import doubtful_classes, doubtful_splits
from tagmask.data.drawn import LOOKED_AT, check_drawn, masks_digest
from tagmask.data.lock import locked
from tagmask.data.mended import doubt_own_masks
from tagmask.data.splits import check_context, evaluation_split, last_ids, masked_by_hand, open_data, training_split
from tagmask.data.untaught import scarce_classes, untaught_classes
from tagmask.engine.checkpoint import MODEL_FILE
from tagmask.engine.device import is_first_process, launched_processes
from tagmask.engine.evidence import folder_evidence, model_evidence
from tagmask.engine.loop import OnLog, check_batch, has_tensorboard
from tagmask.engine.loop import train as run_training
from tagmask.engine.model import load, overridden
from tagmask.engine.pipeline import left_out, stages_of
from tagmask.engine.processes import run_on_processes, together
from tagmask.engine.run import (
    MASKS,
    NOTES,
    check_output,
    create_run,
    open_run,
    with_whole_paths,
    write_notes,
)
from tagmask.engine.stage import check_start, forget_stages, run_stages
from tagmask.engine.stage_rules import changeable, check_stages
from tagmask.errors import TagmaskError
from tagmask.evaluation.method import evaluate_method, while_training
from tagmask.methods.base import Method
from tagmask.models.weights import missing_weights
from tagmask.ops.distributed import from_first, gather_lists, wait_for_all
from tagmask.recipes.load import Recipe, load_recipe

logger = logging.getLogger(__name__)


def train(
    data: PathLike | None = None,
    *,
    recipe: PathLike | Recipe = "auto",
    output: PathLike | None = None,
    overrides: Iterable[str] = (),
    from_stage: str | None = None,
    on_log: OnLog | None = None,
) -> Path:
    """Train on a folder's images and tags; a second call with the same output resumes.

    With `training.devices` above 1 it starts as many processes on this machine and waits for them. Called by processes
    that torchrun started, on one machine or several, it has them train together.

    Args:
        data: folder, table or annotation file; by default the recipe's `data.path`.
        recipe: name of a recipe of the package, a YAML file, or a `Recipe`; `auto` chooses one and says why.
        output: the run folder; by default `runs/METHOD-DATA`.
        overrides: `key.path=value`, as on the command line.
        from_stage: of a recipe of several stages, run this one and all later ones anew.
        on_log: called as `on_log(step, values)` whenever numbers are logged, every `training.log_every` steps and after
            each evaluation: losses by name, `lr`, `images_per_second`, or scores as `eval/NAME`; `stage` is the name
            of the stage where the recipe has several. examples/ has it send them to Weights & Biases and MLflow.

    Returns:
        the run folder.

    Raises:
        TagmaskError: whatever is wrong with data, recipe or output.
    """
    overrides = tuple(overrides)
    if output is not None:
        check_output(Path(output))
    if recipe == "auto":
        with together():  # what is chosen follows from the machine, and the machines of a training may differ
            chosen = from_first(lambda: _chosen_recipe(data, output, overrides))
    else:
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    chosen = _on_all_processes(chosen)
    check_batch(chosen.training)
    folder = _folder(data, chosen, output)
    check_output(folder)
    if not (folder / "run.json").exists():
        _check_weights(chosen)
    if launched_processes() is None and chosen.training.devices > 1:
        run_on_processes(chosen.training.devices, _train, (data, chosen, output, from_stage), on_log)
        return folder
    with together():
        return _train(data, chosen, output, from_stage, on_log=on_log)


def _folder(data: PathLike | None, recipe: Recipe, output: PathLike | None) -> Path:
    """The run folder."""
    return Path(output or f"runs/{recipe.method.name}-{Path(data or recipe.data.path or '').resolve().stem}")


def _train(
    data: PathLike | None,
    chosen: Recipe,
    output: PathLike | None,
    from_stage: str | None,
    *,
    on_log: OnLog | None = None,
) -> Path:
    """Do the work of `train` in one process, the only one or one of several."""
    if chosen.data.context and chosen.method.method_class.needs_masks:
        raise TagmaskError(
            f"data.context: `{chosen.method.name}` learns from masks, where context classes are background; remove it"
        )
    if chosen.data.context and chosen.segmenter is None:
        raise TagmaskError(
            "data.context: context classes are learnt by a classifier and become background in the masks a segmenter "
            "learns from; this recipe has none: choose one with stages, or add --set segmenter.start=weights"
        )
    dataset = open_data(data, chosen.data)
    training, held_out = training_split(dataset, chosen.data), evaluation_split(dataset, chosen.data)
    learns_from_masks = chosen.method.method_class.needs_masks
    untaught = [] if learns_from_masks else [*untaught_classes(training), *scarce_classes(training)]
    doubtful = [] if chosen.data.train else doubtful_splits(dataset)
    for problem in [*doubtful_classes(dataset), *doubtful, *untaught]:
        logger.warning("%s", problem)
    if dataset.skipped:
        first, *others = dataset.skipped
        more = f"; and {len(others)} more (`tagmask data check` names all)" if others else ""
        logger.warning("left out: %s%s", first, more)
    if chosen.data.context:
        check_context(training)
    if chosen.data.use_masks:
        training = masked_by_hand(training, chosen.data)
        check_masks(chosen, training)
    elif chosen.data.review:
        raise TagmaskError("data.review: says which masks to learn from; add data.use_masks=FOLDER, or remove it")
    elif chosen.method.method_class.needs_masks:
        check_drawn(training, LOOKED_AT)
    last_ids(dataset, chosen.data)  # a name that is no class is told before the first stage
    where = Path(data or chosen.data.path or "").resolve()
    chosen = with_whole_paths(chosen.model_copy(update={"data": chosen.data.model_copy(update={"path": where})}))
    folder = _folder(data, chosen, output)
    check_apart(chosen, folder)
    if chosen.staged:
        check_stages(chosen)
    elif from_stage is not None:
        raise TagmaskError(f"--from {from_stage}: this recipe has a single stage; choose another output to train anew")
    has_ground_truth = any(record.mask is not None for record in held_out.records)

    def quick_evaluation(method: Method) -> dict[str, float]:
        result = evaluate_method(method, held_out, while_training(chosen.inference), source="decoder")
        return {LOGGED.removeprefix("eval/"): 100 * result.scores.miou}

    scores = quick_evaluation if has_ground_truth else None
    doubt_own_masks(held_out, chosen.data.review)
    begins = chosen.method.method_class.decoder_begins(chosen.method)
    steps = chosen.training.stop or chosen.training.steps
    if not chosen.staged and begins >= steps:
        scores = None
        logger.warning(
            "method.decoder_from is %d and training ends after %d steps: the run will have CAMs alone", begins, steps
        )
    stages = stages_of(chosen, training, folder, scores, on_log) if chosen.staged else []
    learns_masks = bool(chosen.data.use_masks) or chosen.method.method_class.needs_masks
    check_start(stages, from_stage)
    free = changeable(chosen, from_stage)

    def run() -> None:
        if stages:
            run_stages(folder, stages)
        elif not from_first((folder / MODEL_FILE).exists):
            run_training(chosen, training, folder, evaluate=scores, on_log=on_log)

    _check_same(training, where)
    if not is_first_process():  # of several that train together, the first alone makes and locks the folder
        wait_for_all()
        if not (folder / "run.json").exists():
            raise TagmaskError(f"{folder}: not to be seen by all processes; choose an output that all machines share")
        run()
        return folder
    with locked(folder):
        create_run(
            folder,
            chosen,
            dataset.classes,
            training=training.digest(),
            masks=masks_digest(training) if learns_masks else "",
            free=free,
            forget=lambda: forget_stages(folder, [*stages, *left_out(stages, training, from_stage)], from_stage),
        )
        if output is None:
            logger.info("run folder: %s", folder)
        wait_for_all()
        try:
            run()
            score_finished(folder, held_out)
        except KeyboardInterrupt as stopped:
            where = " ".join(getattr(stopped, "__notes__", []))
            again = shlex.join(["tagmask", "train", "-o", str(folder)])
            logger.warning("stopped; %s keeps all that was saved, and `%s` goes on %s", folder, again, where or "there")
            raise
        _judge(chosen, training, folder, [str(problem) for problem in untaught])
    return folder


def _on_all_processes(recipe: Recipe) -> Recipe:
    """Give the recipe the number of processes that torchrun started, where it says nothing of devices itself."""
    launched, asked = launched_processes(), recipe.training.devices
    if launched in (None, asked):
        return recipe
    if asked != 1:
        raise TagmaskError(
            f"training.devices is {asked}, and torchrun started {launched} processes; set it to {launched}, leave it "
            f"out, or start without torchrun"
        )
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"devices": launched})})


def _check_same(training: Dataset, where: Path) -> None:
    """Raise a TagmaskError where the processes that train together read different data."""
    if len(set(gather_lists([training.digest()]))) > 1:
        raise TagmaskError(
            f"{where}: the processes of this training find different images or tags there; give all machines the same "
            "folder, or equal copies of it"
        )


def next_steps(folder: Path) -> list[str]:
    """Say what a finished training reached and what to do with the run, a line each, for people who ask what now.

    Raises:
        TagmaskError: the run folder cannot be read.
    """
    run = open_run(folder)
    score = last_score(run)
    lines = [score] if score else []
    data = run.recipe.data.path
    if run.decoder_learnt:
        lines.append(f"next: tagmask predict {folder} NEW_PHOTOS -o masks")
    else:
        lines.append(f"next: tagmask label {folder} {data} --source cam -o masks")
    curves = f"; curves: tensorboard --logdir {folder}" if has_tensorboard() else ""
    return [*lines, f"look: tagmask report {folder}{curves}"]


def _judge(recipe: Recipe, training: Dataset, folder: Path, untaught: Sequence[str]) -> None:
    """Say what the run's masks say against themselves, and keep it with the untaught classes for the report."""
    if recipe.method.method_class.needs_masks or ((folder / NOTES).exists() and not (folder / MASKS).is_dir()):
        return
    found: list[str] = []
    if (folder / MASKS).is_dir():
        drawn = bool(recipe.data.use_masks)
        found = folder_evidence(folder / MASKS, training, recipe.data.last, recipe.views, drawn=drawn)
    elif not recipe.staged and open_run(folder).decoder_learnt:
        found = model_evidence(load(folder).method, training, recipe.inference)
    for sentence in found:
        logger.warning("what speaks against this run's masks: %s", sentence)
    write_notes(folder, [*untaught, *found])


def _check_weights(recipe: Recipe) -> None:
    """Raise a TagmaskError where a weight file of any stage is missing, before the first stage begins."""
    faults = []
    for key, source, advice in missing_weights(recipe):
        if Path(source).is_dir():
            files = (file for file in sorted(Path(source).iterdir()) if file.suffix in (".safetensors", ".pth"))
            near = next(files, None)
            advice = f"did you mean {near}?" if near else "name the file of weights"
            faults.append(f"{key} {source}: is a folder, not a file of weights; {advice}")
        else:
            faults.append(f"{key} {source}: no such file; {advice}")
    if faults:
        raise TagmaskError("; ".join(faults))


def _chosen_recipe(data: PathLike | None, output: PathLike | None, overrides: tuple[str, ...]) -> Recipe:
    """The recipe of the run that `output` holds already, else one chosen from data and machine, the reasons printed."""
    from tagmask.api.choose import choose_recipe, tell

    if output is not None and (Path(output) / "run.json").exists():
        begun = open_run(Path(output)).recipe
        devices = launched_processes() or begun.training.devices  # a run may go on with another number
        return overridden(begun, (f"training.devices={devices}", *overrides))
    given = [text for text in overrides if text.startswith(("data.", "backbone."))]
    early = load_recipe({"method": "cam"}, given)
    _check_weights(early)  # the choice reads all data and times the network
    config = early.data
    chosen = choose_recipe(training_split(open_data(data, config, quiet=True), config), overrides)
    tell(chosen)
    return chosen.recipe
