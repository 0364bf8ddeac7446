"""Work on many images at once: an image on each core goes further than one image on all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from tagmask.memory import machine_memory

T = TypeVar("T")
R = TypeVar("R")


def on_cores(work: Callable[[T], R], items: Sequence[T], *, memory: float) -> Generator[R]:
    """What `work` gives for each item, in order, several at a time in threads that share out torch's cores.

    Args:
        work: tensor code, which lets other threads run meanwhile; what it gives must not depend on other items.
        items: what to work on.
        memory: bytes that one item may take; together they take at most half of the machine's.
    """
    cores = torch.get_num_threads()
    workers = max(1, min(cores, len(items), int(machine_memory() / 2 / memory)))
    if workers == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores // workers,))
    try:
        yield from pool.map(work, items)
    finally:
        # Whoever stops early, by Ctrl-C too, does not wait for what has not begun. New threads of the process take over
        # what was set last: the last worker must have begun before.
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(cores)
