"""The machine that a run is on: its device, the precision it multiplies fastest in, its memory and its cores."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch

Precision = Literal["auto", "32-true", "bf16-mixed"]
T = TypeVar("T")
R = TypeVar("R")

UNKNOWN_MEMORY = 2**33  # bytes: what a machine is taken to have that does not tell
# The parameters of glibc's mallopt that are set here, by the names and numbers of malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def default_device() -> torch.device:
    """Give the device to compute on where nobody names one: a GPU where there is one, else the CPU.

    Of processes that train together each has a GPU of its own.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if launched_processes() is None else torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def launched_processes() -> int | None:
    """Give how many processes torchrun, or `engine.processes`, started on all machines; None where neither did."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else None


def is_first_process() -> bool:
    """Say whether this is the first, or the only, of the processes that train together."""
    return launched_processes() is None or int(os.environ["RANK"]) == 0


def has_bf16_units(device: str) -> bool:
    """Say whether a `cuda` or `cpu` device multiplies bf16 faster than fp32: a GPU since Ampere, AMX, AVX512_BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The public face of torch has no names for them yet.
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def resolve(precision: Precision, device: str) -> Literal["32-true", "bf16-mixed"]:
    """Say what `auto` means on a `cuda` or `cpu` device: bf16 where the hardware multiplies it, else fp32."""
    if precision == "auto":
        return "bf16-mixed" if has_bf16_units(device) else "32-true"
    return precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Give a context in which forwards on `device` take their products in that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device.type) == "bf16-mixed")


def machine_memory() -> int:
    """Give the bytes of memory of this machine; 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next tensor of this process instead of giving it back to the system.

    By default every tensor of 32 MiB or more is mapped anew and paged in zeroed, which took half the time of a
    convolutional network's forward where it was measured (docs/experiments/kept-memory.md). The process
    then holds on to its largest size so far. All threads share one arena, so that what one has freed after decoding a
    photograph serves the next: with four arenas forty photographs of 24 megapixels took up to 0.6 GiB more.

    Returns:
        whether it is so now: False where the C library is another one.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28), (M_ARENA_MAX, 1))
    taken = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings]
    return all(taken)


def on_cores(work: Callable[[T], R], items: Sequence[T], *, memory: float) -> Generator[R]:
    """Give what `work` makes of each item, in order, with several threads that divide torch's cores among them.

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
        # Whoever stops early, by Ctrl-C too, does not wait for what has not begun.
        pool.shutdown(wait=True, cancel_futures=True)
        # Threads that start later take over the number of cores that was set last, by whichever thread. So it is set
        # back here, after every worker has set its own.
        torch.set_num_threads(cores)
