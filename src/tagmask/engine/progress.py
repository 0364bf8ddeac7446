"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")
QUIET = 30.0  # seconds between lines where there is no terminal
NAMED = 10  # images left out that are named


def plain_console(*, stderr: bool = True) -> Console:
    """Return a console that prints text as it is: a class called `[/old]` is no markup, one called `:cow:` no emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say_left_out(reasons: Sequence[str], word: str = "skipped") -> None:
    """Print what is wrong with the first images that were left out, and how many there are in all."""
    console = plain_console()
    for reason in reasons[:NAMED]:
        console.print(f"{word}: {reason}", soft_wrap=True)
    if len(reasons) > NAMED:
        console.print(f"{word}: {len(reasons)} images in all", soft_wrap=True)


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, shown as they are worked through; short work says nothing where there is no terminal.

    Args:
        what: the work, as "dense CRF".
        total: how many items there are.
    """
    console = plain_console()
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        with RichProgress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            yield from bar.track(items, total=total)
        return
    said, share = time.monotonic(), 0
    for number, item in enumerate(items):
        if 10 * number // max(1, total) > share and time.monotonic() - said >= QUIET:
            said, share = time.monotonic(), 10 * number // total
            console.print(f"{what}: {number} of {total}")
        yield item


class Progress:
    """The training's: a bar with loss, speed and time left; on no terminal, a line now and then."""

    def __init__(self, start: int, steps: int) -> None:
        self.console = plain_console()
        self.first, self.steps = start, steps
        self.bar = RichProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=steps, completed=start, loss=float("nan"), speed=0.0)
        self.said = start

    def start(self) -> None:
        """Show the bar."""
        self.bar.start()

    def stop(self) -> None:
        """Take the bar down."""
        self.bar.stop()

    def update(self, step: int, loss: float, speed: float) -> None:
        """Move the bar, or print a line a tenth of the run."""
        self.bar.update(self.task, completed=step, loss=loss, speed=speed)
        if not self.console.is_terminal and (step - self.said >= self.steps / 10 or step == self.steps):
            self.said = step
            self.say(f"step {step} of {self.steps}: loss {loss:.4f}, {speed:.1f} images/s")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(text, soft_wrap=True)
