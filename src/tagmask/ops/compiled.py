"""Loops compiled by numba, the extra `fast`: where they can be had, and how they are compiled and kept."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)


def loop(function: Callable) -> Any:
    """Compile a function of arrays and numbers when it is first called; other threads run while it does.

    The machine code is kept for later processes: beside the source, else under the home or `NUMBA_CACHE_DIR`. Where
    none of them can be written to, each process compiles anew.
    """
    from numba import njit

    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to write to
        return njit(**options)(function)


@cache
def compiled(name: str) -> ModuleType | None:
    """Give the module `tagmask.ops.NAME` of compiled loops, ready to run; None where tensor code has to do.

    The first use on a machine compiles, which takes some seconds and is logged. Whatever goes wrong with the compiler
    is logged as well, and costs time, not the result.
    """
    if find_spec("numba") is None:
        return None
    try:
        module = importlib.import_module(f"tagmask.ops.{name}")
        start, kept = time.perf_counter(), _kept_code(module)
        if not kept:
            logger.info("numba compiles %s for this machine, once; this takes some seconds", module.PURPOSE)
        module.prepare()
        if not kept:
            logger.info("compiled in %.0f s", time.perf_counter() - start)
    except Exception as error:
        logger.warning(
            "numba is installed but does not work here (%s: %s); the dense CRF and PAR run about half as fast",
            type(error).__name__, error,
        )  # fmt: skip
        return None
    return module


def _kept_code(module: ModuleType) -> bool:
    """Say whether an earlier process has left machine code of a module's loops."""
    folder = Path(module.LARGEST_LOOP.stats.cache_path or "")
    return any(folder.glob(f"{module.__name__.rpartition('.')[2]}.*.nbi"))
