"""What processes do in `test_processes.py` that fail."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tagmask.errors import TagmaskError
from tagmask.ops.distributed import wait_for_all, world

LAST = 2
"""The step in which a process is killed."""


def speak_and_raise(*, on_log: Callable[[int, dict[str, Any]], None]) -> None:
    """Log and tell from all processes, and have the second fail while the first waits for it."""
    on_log(3, {"rank": world()[0]})
    logging.getLogger("tagmask.somewhere").warning("process %d speaks", world()[0])
    wait_for_all()
    if world()[0] == 1:
        raise TagmaskError("the second has had enough")
    wait_for_all()


def killed_recipe(*overrides: str) -> Any:
    """Give the recipe of six steps, with a checkpoint after each."""
    from tests.conftest import tiny_recipe  # here, for what only speaks needs no networks, whose import takes seconds

    return tiny_recipe("cam", "training.checkpoint_every=1", *overrides)


def train_and_die(
    data: Path, recipe: Any, output: Path, victim: int, *, on_log: Callable[..., None] | None = None
) -> None:
    """Train with another process, one of the two being killed in the middle of a step."""
    import tagmask
    from tagmask.methods.cam import Cam

    plain = Cam.losses

    def losses(self: Cam, batch: Any, step: int) -> Any:
        if world()[0] == victim and step == LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, batch, step)

    Cam.losses = losses
    tagmask.train(data, recipe=recipe, output=output, on_log=on_log)
