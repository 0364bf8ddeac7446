"""How far long work is: a bar where there is a terminal, else a message now and then; and what it had to leave out.

Only the bars are written to the console. Messages go through `logging`, so that the user of the library decides about
them; the command line shows them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from tagmask.engine.device import is_first_process

T = TypeVar("T")
logger = logging.getLogger(__name__)
QUIET = 30.0  # seconds between messages where there is no terminal
NAMED = 10  # images that are named among those left out


def plain_console(*, stderr: bool = True) -> Console:
    """Make a console that prints text as it is: a class called `[/old]` is no markup, one called `:cow:` no emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def report_skipped(reasons: Sequence[str], what: str = "images") -> None:
    """Warn of images that were left out: the first ten by name and reason, and how many there are where it is more."""
    for reason in reasons[:NAMED]:
        logger.warning("skipped: %s", reason)
    if len(reasons) > NAMED:
        logger.warning("skipped: %d %s in all, of which the first %d are named", len(reasons), what, NAMED)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Give the items and show how many are done; short work says nothing where there is no terminal.

    Of several processes that share the work the first alone shows how far it is.

    Args:
        items: what is worked through.
        what: the work, as "dense CRF".
        total: how many items there are.
    """
    if not is_first_process():
        yield from items
        return
    console = plain_console()
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        with RichProgress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            yield from bar.track(items, total=total)
        return
    said, tenths = time.monotonic(), 0
    for number, item in enumerate(items):
        if 10 * number // max(1, total) > tenths and time.monotonic() - said >= QUIET:
            said, tenths = time.monotonic(), 10 * number // total
            logger.info("%s: %d of %d", what, number, total)
        yield item


class Progress:
    """The progress of a training: a bar with loss, speed and time left; without a terminal, a message each tenth."""

    def __init__(self, start: int, steps: int) -> None:
        console = plain_console()
        self.shown, self.said, self.steps = console.is_terminal, start, steps
        self.bar = RichProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.shown,
        )
        self.task = self.bar.add_task("training", total=steps, completed=start, loss=float("nan"), speed=0.0)

    def start(self) -> None:
        """Show the bar."""
        self.bar.start()

    def stop(self) -> None:
        """Take the bar down."""
        self.bar.stop()

    def update(self, step: int, loss: float, speed: float) -> None:
        """Move the bar, or log a line a tenth of the run."""
        self.bar.update(self.task, completed=step, loss=loss, speed=speed)
        if not self.shown and (step - self.said >= self.steps / 10 or step == self.steps):
            self.said = step
            logger.info("step %d of %d: loss %.4f, %.1f images/s", step, self.steps, loss, speed)


class Waiting:
    """What other processes do, and the time left: a line that changes, or without a terminal a message now and then."""

    def __init__(self, what: str) -> None:
        self.what, self.said = what, time.monotonic()
        self.status = plain_console().status(what)

    def __enter__(self) -> Waiting:
        if self.status.console.is_terminal:
            self.status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.status.stop()

    def update(self, text: str, left: float | None) -> None:
        """Say how far it is.

        Args:
            text: what is being done.
            left: seconds until the end; None where nobody knows.
        """
        line = f"{self.what}: {text}"
        if left is not None:
            line += (
                f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {max(10, round(left, -1)):.0f} s left"
            )
        if self.status.console.is_terminal:
            self.status.update(line)
        elif time.monotonic() - self.said >= QUIET / 2:
            self.said = time.monotonic()
            logger.info("%s", line)
