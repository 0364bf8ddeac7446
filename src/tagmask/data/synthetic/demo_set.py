"""The synthetic set of the demonstration, made by a process of its own while the command loads what trains on it."""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tagmask.data.synthetic.scenes import make_cooccur
from tagmask.errors import TagmaskError

logger = logging.getLogger(__name__)

IMAGES, SIZE, MEET, ALONE = 3000, 64, 0.9, 0.7


def demo_folder(output: Path | str, seed: int) -> Path:
    """Give the folder of a demonstration with that seed; its set is in `data` there."""
    return Path(output) / f"seed{seed}"


def make_demo_set(output: Path | str, seed: int) -> Path:
    """Make the set of a demonstration, where it is not there yet, and return its folder.

    Raises:
        TagmaskError: the folder holds something else, or cannot be written.
    """
    data = demo_folder(output, seed) / "data"
    if not (data / "tags.csv").exists():
        _say()
        make_cooccur(data, images=IMAGES, size=SIZE, meet=MEET, alone=ALONE, seed=seed)
    return data


def begin_demo_set(output: Path | str, seed: int) -> BaseProcess:
    """Start a process that makes the set; join it, then call `make_demo_set`, which says what may have gone wrong."""
    process = get_context("spawn").Process(target=_quietly, args=(output, seed), daemon=True)
    if not (demo_folder(output, seed) / "data" / "tags.csv").exists():
        _say()
    process.start()
    return process


def _quietly(output: Path | str, seed: int) -> None:
    """Make the set without a word: whoever started this process says what is to be said, and ends it on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(TagmaskError):
        make_demo_set(output, seed)


def _say() -> None:
    chance = 100 * MEET
    logger.info(
        "making %d images of %d x %d: objects meet their context %.0f%% of the time", IMAGES, SIZE, SIZE, chance
    )
