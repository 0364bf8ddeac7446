"""Which precision a machine computes in fastest."""

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


def has_bf16_units(device: str) -> bool:
    """Whether a `cuda` or `cpu` device multiplies bf16 faster than fp32: a GPU since Ampere, AMX or AVX512_BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The public face of torch has no names for them yet.
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def resolve(precision: Precision, device: str) -> Literal["32-true", "bf16-mixed"]:
    """What `auto` means on a `cuda` or `cpu` device: bf16 where the hardware multiplies it, else fp32."""
    if precision == "auto":
        return "bf16-mixed" if has_bf16_units(device) else "32-true"
    return precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which the products of forwards on `device` are taken in that precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device.type) == "bf16-mixed")


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # names and numbers of malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next tensor of this process instead of giving it back to the system.

    By default every tensor of 32 MiB or more is mapped anew and paged in zeroed, which took half the time of a
    convolutional network's forward where it was measured (docs/performance.md). The process then holds on to its
    largest size so far.

    Returns:
        whether it is so now: False where the C library is another one.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28))
    taken = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings]
    return all(taken)


def machine_memory() -> int:
    """Bytes of memory of this machine; 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**33


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
