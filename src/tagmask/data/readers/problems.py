"""Everything a reader finds wrong, gathered, so that one run names all of it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tagmask.data.names import printable
from tagmask.errors import TagmaskError
from tagmask.recipes.data_section import DataConfig

Kind = Literal[
    "file",
    "row",
    "missing image",
    "unreadable image",
    "unknown tag",
    "no tags",
    "name",
    "duplicate name",
    "mask",
    "class",
    "size",
    "split",
]
SHOWN = 10
LONGEST = 1500
"""Characters of a message. It may quote what stands in a file, such as the name of a column, and that has no end."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what sort of thing.
        where: file and row, or file and image.
        message: what was expected and how to mend it.
    """

    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Problems:
    """A growing list of problems that ends in one error."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, kind: Kind, where: str, message: str) -> None:
        """Note a problem and go on; what a terminal cannot show in a line is escaped, and what is long shortened."""
        message = printable(message)
        if len(message) > LONGEST:  # what was expected stands at the beginning, and the mend at the end
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        self.found.append(Problem(kind, printable(where), message))

    def raise_if_any(self, path: Path, options: Mapping[str, Any] | None = None) -> None:
        """Raise one error that shows the first ten problems and counts the rest.

        Args:
            path: what was read.
            options: how; the command that lists all problems says them, too.

        Raises:
            TagmaskError: there is a problem.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise TagmaskError(str(self.found[0]))
        lines = [f"{path}: {len(self.found)} problems", *(f"  {problem}" for problem in self.found[:SHOWN])]
        if len(self.found) > SHOWN:
            command = shlex.join(["tagmask", "data", "check", str(path), *settings(options or {})])
            lines.append(f"  and {len(self.found) - SHOWN} more; `{command}` lists all of them")
        raise TagmaskError("\n".join(lines))


def settings(options: Mapping[str, Any]) -> list[str]:
    """Return the arguments by which a command reads data as these options of a reader say, those of the default not."""
    default = DataConfig()
    found: list[str] = []
    for key, value in options.items():
        if value is None or not hasattr(default, key) or value == getattr(default, key):
            continue
        if key == "classes" and options.get("other_tags") == "refuse":
            continue  # those of a run, which the data may lack
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = yaml.safe_dump([*value], default_flow_style=True, allow_unicode=True, width=LONGEST).strip()
        found += ["--set", f"data.{key}={str(value).lower() if isinstance(value, bool) else value}"]
    return found


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the end of a message about a name that is not among the valid ones: the nearest, or a list of them."""
    names = list(valid)
    lowered = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"expected one of {', '.join(names[:SHOWN])}{more}" if names else "there are none"
