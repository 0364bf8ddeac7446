"""One loop for every method."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tagmask.data.dataset import Dataset
from tagmask.data.files import write_text
from tagmask.data.limits import parse_json
from tagmask.data.views import BatchPositions, TrainingViews, training_loader
from tagmask.engine.checkpoint import load_state, save_model, save_state
from tagmask.engine.device import keep_freed_memory
from tagmask.engine.optim import build_optimizer, set_lr
from tagmask.engine.processes import Searched, make_fabric
from tagmask.engine.progress import Progress, report_skipped
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method, TrainingSet
from tagmask.methods.registry import build_method
from tagmask.models.backbone import Backbone
from tagmask.ops.distributed import gather_lists, gather_rows, largest, wait_for_all
from tagmask.recipes.load import Recipe, TrainingConfig

logger = logging.getLogger(__name__)
Evaluate = Callable[[Method], dict[str, float]]
OnLog = Callable[[int, dict[str, Any]], None]
"""Is told the step and what is logged of it: losses, `lr` and `images_per_second`, or scores as `eval/NAME`."""


def train(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    *,
    evaluate: Evaluate | None = None,
    fabric: Fabric | None = None,
    build: Callable[[], Method] | None = None,
    clusters: Tensor | None = None,
    on_log: OnLog | None = None,
) -> Method:
    """Train the recipe's method on a data set's images and tags, resuming where a former run stopped.

    Args:
        recipe: what to train and how.
        dataset: the training records.
        folder: an existing folder for `training_state.pt`, `metrics.jsonl`, `model.safetensors`, and the events
            of TensorBoard where that is installed.
        evaluate: called every `evaluate_every` steps and at the end; its numbers are logged. Where it raises a
            TagmaskError at the end, that is logged, and the model is saved all the same.
        fabric: devices and precision; by default those of the processes that were started, and of the recipe.
        build: makes the method; by default as the recipe says.
        clusters: (N, K) of the training images, for a round of a method that has such.
        on_log: see `OnLog`; called whenever a line of `metrics.jsonl` is written.

    Returns:
        the trained method, in eval mode.

    Raises:
        TagmaskError: no images; masks missing where the method needs them; a loss that is not finite.
    """
    config = recipe.training
    check_trainable(recipe, dataset)
    if build is None:  # whoever builds the method of a stage has checked the recipe that the stage is of
        check_method(recipe, dataset)
    fabric = fabric or make_fabric(config.precision)
    fabric.launch()
    if config.devices != fabric.world_size:
        raise TagmaskError(
            f"training.devices {config.devices}: {fabric.world_size} processes train; start with torchrun, or by "
            "tagmask.train, which starts them"
        )
    if fabric.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    method = build() if build else build_method(recipe, len(dataset.classes))
    if config.compile:
        for module in method.modules():
            if isinstance(module, Backbone):
                module.compile_blocks()
    stop = min(config.stop or config.steps, config.steps)
    method.start_training(training_set(recipe, dataset, clusters))
    optimizer = build_optimizer(method.to(fabric.device), recipe.optimizer)
    start = load_state(folder, method, optimizer)
    wrapped, optimizer = fabric.setup(method if fabric.world_size == 1 else Searched(method), optimizer)
    method.train()
    views = TrainingViews(
        dataset,
        recipe.views,
        config.seed,
        contrast=method.needs_views,
        masks=method.needs_masks,
        mean=method.network.backbone.mean.flatten().tolist(),
        order=config.order,
        paste=method.paste,
    )
    positions = BatchPositions(config.batch, start, stop, fabric.global_rank, fabric.world_size)
    loader = training_loader(views, positions, config.workers, pin=fabric.device.type == "cuda")
    log = Log(folder, start, stop, on_log) if fabric.is_global_zero else None
    bad_images: set[str] = set()
    first_bad_step = torch.full((), -1, device=fabric.device)
    with log or nullcontext():
        for step, batch in enumerate(loader, start=start):
            bad_images.update(batch.bad)
            batch = batch._replace(most_tags=largest(batch.most_tags))
            batch = batch.to(fabric.device, non_blocking=True)
            batch = batch.normalise(method.network.backbone.mean, method.network.backbone.std)
            set_lr(optimizer, step, config.steps, recipe.optimizer)
            losses = wrapped(batch, step)
            optimizer.zero_grad()
            fabric.backward(losses["loss"])
            if recipe.optimizer.clip is not None:
                # A norm that is not finite is found at the next look at the loss; a look here waits for the device.
                fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.optimizer.clip, error_if_nonfinite=False)
            optimizer.step()
            first_bad_step = torch.where((first_bad_step < 0) & ~losses["loss"].isfinite(), step, first_bad_step)
            done = step + 1
            logs = done % config.log_every == 0 or done == stop
            saves = (config.checkpoint_every and done % config.checkpoint_every == 0) or done == stop
            evaluates = evaluate and config.evaluate_every and done % config.evaluate_every == 0 and done < stop
            if logs or saves:
                first_bad_step, losses = _of_all(first_bad_step, losses)
                _stop_if_not_finite(int(first_bad_step), losses)
            if logs and log:
                log.losses(done, losses, lr=optimizer.param_groups[0]["lr"], images=config.batch)
            if saves and log:
                save_state(folder, method, optimizer, done)
                log.saved = done
            if log and evaluate and evaluates:
                log.evaluation(done, evaluate(method.eval()))
                method.train()
            if saves or evaluates:
                wait_for_all()  # the first process may take longer than a step lets the others wait
        method.eval()
        bad_images.update(gather_lists(sorted(bad_images)))
        if log:
            if evaluate:
                _evaluate_trained(log, stop, evaluate, method)
            report_skipped(sorted(bad_images))
            save_model(folder, method.network)
    wait_for_all()
    return method


def _evaluate_trained(log: Log, step: int, evaluate: Evaluate, method: Method) -> None:
    """Log the scores of the trained method, or why it has none: masks that do not fit are no reason to lose it."""
    try:
        scores = evaluate(method)
    except TagmaskError as error:
        logger.warning("the trained model is saved without a score: %s", error)
        return
    log.evaluation(step, scores)


def training_set(recipe: Recipe, dataset: Dataset, clusters: Tensor | None = None) -> TrainingSet:
    """Tell a method what it may want to know of its training images."""
    config = recipe.training
    steps = min(config.stop or config.steps, config.steps)
    pairs = torch.from_numpy(np.stack(dataset.tag_pairs()))
    ones = torch.ones(pairs.shape[1], dtype=torch.uint8)
    tags = torch.sparse_coo_tensor(pairs, ones, (len(dataset), len(dataset.classes)), check_invariants=False)
    return TrainingSet(tags, config.batch, steps, recipe.views.crop, clusters)


def check_trainable(recipe: Recipe, dataset: Dataset) -> None:
    """Raise a TagmaskError where there are no images, or the batch cannot be shared out."""
    if not len(dataset):
        why = f"; left out: {dataset.skipped[0]}" if dataset.skipped else ""
        raise TagmaskError(f"no training images{why}")
    check_batch(recipe.training)


def check_batch(config: TrainingConfig, section: str = "") -> None:
    """Raise a TagmaskError where the batch cannot be shared out; `section`, with a dot, is the stage's."""
    if config.batch % config.devices:
        raise TagmaskError(
            f"{section}training.batch {config.batch} is no multiple of training.devices {config.devices}: each device "
            f"takes as many images of a step; set it to {config.devices * -(-config.batch // config.devices)}"
        )


def check_method(recipe: Recipe, dataset: Dataset) -> None:
    """Raise a TagmaskError where the recipe's method cannot learn from the data, or from the rest of the recipe."""
    method = recipe.method.method_class
    unmasked = [record.name for record in dataset.records if record.mask is None] if method.needs_masks else []
    if unmasked:
        raise TagmaskError(
            f"method {recipe.method.name} learns from ground-truth masks, and {unmasked[0]!r} has none; set data.masks"
        )
    method.check(recipe)


def _of_all(first_bad_step: Tensor, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The first step, of any process, whose loss was not finite, or -1; and the means of the processes' losses."""
    own = torch.stack([first_bad_step.double(), *(value.detach().double() for value in losses.values())])
    steps, values = gather_rows(own[None]).split([1, len(losses)], dim=1)
    bad = steps.where(steps >= 0, torch.inf).amin()
    return bad.where(bad.isfinite(), -1), dict(zip(losses, values.mean(dim=0), strict=True))


def _stop_if_not_finite(step: int, losses: dict[str, Tensor]) -> None:
    if step >= 0:
        parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        raise TagmaskError(
            f"the loss of step {step} is not finite, and training on would spoil the model (now: {parts}); "
            "the last checkpoint is kept: lower optimizer.lr, set optimizer.clip=1.0 or training.precision=32-true"
        )


class Log:
    """Progress bar, `metrics.jsonl` and TensorBoard's events of a run, and whoever else wants to know."""

    def __init__(self, folder: Path, start: int, steps: int, on_log: OnLog | None = None) -> None:
        self.on_log = on_log
        self.path = folder / "metrics.jsonl"
        self._forget_after(start)
        self.writer = None
        if has_tensorboard():
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "events"), purge_step=start)
        self.progress = Progress(start, steps)
        self.time, self.step = time.perf_counter(), start
        self.saved, self.steps = start, steps
        if start:
            logger.info("going on at step %d of %d", start, steps)

    def __enter__(self) -> Log:
        self.progress.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Take the bar down; a Ctrl+C is told at which step the next start goes on."""
        self.progress.stop()
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"at step {self.saved} of {self.steps}")
        if self.writer is not None:
            self.writer.close()

    def losses(self, step: int, losses: dict[str, Tensor], *, lr: float, images: int) -> None:
        """Log the losses of the last step and the speed since the last call."""
        values = {name: float(value.detach()) for name, value in losses.items()}
        now = time.perf_counter()
        speed = (step - self.step) * images / max(now - self.time, 1e-9)
        self.time, self.step = now, step
        self._write({"step": step, **values, "lr": lr, "images_per_second": round(speed, 3)})
        self.progress.update(step, values["loss"], speed)

    def evaluation(self, step: int, scores: dict[str, float]) -> None:
        """Log an evaluation's numbers."""
        self._write({"step": step, **{f"eval/{name}": value for name, value in scores.items()}})
        logger.info("step %d: %s", step, ", ".join(f"{name} {value:.1f}" for name, value in scores.items()))
        self.time = time.perf_counter()

    def _write(self, values: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, values["step"])
        if self.on_log is not None:
            self.on_log(values["step"], {name: value for name, value in values.items() if name != "step"})

    def _forget_after(self, step: int) -> None:
        """Drop lines of steps that a killed run took after its last checkpoint, a half-written one too."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_text(self.path, "".join(line for line in lines if line.endswith("\n") and _step(line) <= step))


def has_tensorboard() -> bool:
    """Say whether TensorBoard, the extra `tensorboard`, is installed."""
    return find_spec("tensorboard") is not None


def _step(line: str) -> float:
    """The step of a line of `metrics.jsonl`; infinity where it is damaged."""
    try:
        return float(parse_json(line)["step"])
    except (TagmaskError, ValueError, KeyError, TypeError):
        return math.inf
