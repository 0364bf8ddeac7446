"""Memory on a CPU: how much there is, and how to keep what tensors that come and go at every step have freed."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

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
