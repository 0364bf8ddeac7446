"""Pieces of a source through Ray Data: who does which step, and how far it is."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tagmask.engine.device import default_device
from tagmask.engine.fleet.sources import Piece
from tagmask.engine.fleet.work import Job, finish_opened, label_piece, open_piece, packed, score_opened, unpacked
from tagmask.engine.progress import Waiting
from tagmask.errors import TagmaskError, first_line
from tagmask.methods.base import Method

logger = logging.getLogger(__name__)
MOST_BLOCKS = 20_000  # the driver keeps an entry of each
Batch = dict[str, Any]


@contextmanager
def cluster(address: str | None) -> Iterator[tuple[int, int]]:
    """Join a Ray cluster, or start one on this machine while the context lasts; give its CPUs and GPUs.

    Args:
        address: of a cluster, as `ray.init` takes it; None for the one that this process has joined, or a new one.

    Raises:
        TagmaskError: Ray is missing, or no cluster answers at the address.
    """
    ray = _ray()
    joined = ray.is_initialized()
    if not joined:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address is None:
                # Workers get the machine as the plain path does, and a dashboard is a server that nobody asked for.
                os.environ.setdefault("RAY_worker_niceness", "0")
                quiet["include_dashboard"] = False
                # Ray's core calls it an error of every actor of Ray Data that it does not outlive the driver.
                os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            ray.init(address=address or "local", **quiet)
        except Exception as error:  # Ray's own are of many kinds, down to Exception itself
            place = f"--address {address}: no Ray cluster answers there" if address else "Ray does not start here"
            raise TagmaskError(
                f"{place} ({first_line(error)}); see `ray status`, or set RAY_raylet_start_wait_time_s"
            ) from (error)
    try:
        there = ray.cluster_resources()
        yield int(there.get("CPU", 1)), int(there.get("GPU", 0))
    finally:
        if not joined:
            ray.shutdown()


def run_pieces(job: Job, method: Method, pieces: Sequence[Piece], *, cores: int, gpus: int, images: int | None) -> None:
    """Label pieces in the cluster that this process has joined, and show rate and time left.

    Args:
        job: what to do.
        method: trained, on the CPU, in eval mode.
        pieces: what to label, none of it done.
        cores: CPUs that may be used.
        gpus: GPUs that hold the model; 0: each core does all three steps by itself.
        images: how many there are; None where nobody has counted.

    Raises:
        TagmaskError: what the user can mend, from a worker; or the cluster was lost.
    """
    if not pieces:
        return
    ray = _ray()
    model = ray.put(method)
    rows = _flow(ray.data, job, ray.cloudpickle.dumps(model), pieces, cores, gpus).iter_rows()
    began, done, refused, shards = time.monotonic(), 0, 0, 0
    try:
        with Waiting("masks") as waiting:
            for row in rows:
                done, refused, shards = done + row["images"], refused + row["refused"], shards + 1
                passed = time.monotonic() - began
                fraction = (done + refused) / images if images else shards / len(pieces)
                of = f" of {images}" if images else ""
                left = passed * (1 / fraction - 1) if 0 < fraction < 1 and (images or shards > 1) else None
                waiting.update(f"{done}{of} images, {done / passed:.1f} images/s", left)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, TagmaskError):
            raise TagmaskError(str(cause)) from error
        raise TagmaskError(
            f"Ray gave up ({_last_line(error)}); the same command goes on with what is not done"
        ) from error
    passed = time.monotonic() - began
    logger.info("masks: %d images in %.0f s, %.1f images/s", done, passed, done / passed)


def _flow(data: Any, job: Job, method: bytes, pieces: Sequence[Piece], cores: int, gpus: int) -> Any:
    """Lay out the flow: an actor a core that does everything, or GPU actors between tasks that decode and refine."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = min(len(pieces), MOST_BLOCKS)
    flow = data.from_items([{"piece": packed(piece)} for piece in pieces], override_num_blocks=blocks)
    one: dict[str, Any] = {"batch_size": 1, "batch_format": "numpy"}
    if not gpus:
        pool = data.ActorPoolStrategy(size=max(1, min(cores, len(pieces))))
        return flow.map_batches(WholeWorker, fn_constructor_args=(job, method), compute=pool, num_cpus=1, **one)
    flow = flow.map_batches(functools.partial(_open, job), num_cpus=1, **one)
    pool = data.ActorPoolStrategy(size=min(gpus, len(pieces)))
    flow = flow.map_batches(Network, fn_constructor_args=(job, method), compute=pool, num_gpus=1, **one)
    return flow.map_batches(functools.partial(_finish, job), num_cpus=1, **one)


class _Actor:
    """Holds the model while many batches come.

    Args:
        job: what to do.
        method: the reference of the model, packed; the driver holds the model as long as there are actors.
    """

    def __init__(self, job: Job, method: bytes) -> None:
        ray = _ray()
        self.job = job
        self.method: Method = ray.get(ray.cloudpickle.loads(method))


class WholeWorker(_Actor):
    """Does all steps on one core."""

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Label a piece; give a row a shard."""
        torch.set_num_threads(1)
        for done in label_piece(self.job, self.method, unpacked(batch["piece"][0])):
            yield _row(done)


class Network(_Actor):
    """Does the second of three steps, on a GPU where there is one."""

    def __init__(self, job: Job, method: bytes) -> None:
        super().__init__(job, method)
        self.method.to(default_device())

    def __call__(self, batch: Batch) -> Batch:
        """Score what was opened."""
        return _content(score_opened(self.job, self.method, unpacked(batch["content"][0])))


def _open(job: Job, batch: Batch) -> Iterator[Batch]:
    torch.set_num_threads(1)
    for opened in open_piece(job, unpacked(batch["piece"][0])):
        yield _content(opened)


def _finish(job: Job, batch: Batch) -> Batch:
    torch.set_num_threads(1)
    return _row(finish_opened(job, unpacked(batch["content"][0])))


def _content(value: Any) -> Batch:
    return {"content": np.array([packed(value)], dtype=object)}


def _row(done: dict[str, Any]) -> Batch:
    return {key: np.array([value]) for key, value in done.items()}


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise TagmaskError("--engine ray needs Ray; pip install 'tagmask[ray]'") from None
    return ray
