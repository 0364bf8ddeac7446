"""The progress display of a training run."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A bar with loss, speed and time left; on no terminal, a line now and then."""

    def __init__(self, start: int, steps: int) -> None:
        self.console = Console(stderr=True)
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
        self.bar.console.print(text, highlight=False, soft_wrap=True)
