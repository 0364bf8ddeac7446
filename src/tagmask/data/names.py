"""The gate for names that come from data: they become paths, lines of text files and cells of tables.

Images, splits and classes are named by whoever made the data. `Record`, `Dataset` and `check_class_list` ask here, so
no reader can let an unfit name past.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 240
"""Longest part of a name in UTF-8; file systems take 255, of which suffixes need some."""

# Control characters and what `str.splitlines` splits at, lone surrogates, and what XML cannot hold.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Names of splits that nobody expects to be learnt from, those to evaluate on first; a year may follow, any case."""

SPLITS = (*HELD_OUT, "train", "training", "trainval")
"""The usual names of splits."""

_PLAIN = re.compile(r"(?:[\w-][\w .-]{0,200}/)*[\w-][\w .-]{0,200}", re.ASCII)
"""Most names of images, which need no closer look: sets of a million are checked by it in half a second."""


def printable(text: str) -> str:
    """Return text for a message: one line, with control characters and what is not UTF-8 as escapes."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def is_background(name: object) -> bool:
    """Tell whether a class name is that of id 0, which is no class: some tools list it, LabelMe as `_background_`."""
    return isinstance(name, str) and name.strip().strip("_").lower() == "background"


def text_fault(name: str) -> str | None:
    """Say what no name may hold, and how to mend it; None where the name is fit."""
    if found := _UNFIT.search(name):
        if "\ud800" <= found[0] <= "\udfff":
            return f"is not UTF-8 ({found[0]!r}); rename it"
        return f"holds a line break or control character ({found[0]!r}); rename it"
    if any(len(part.encode()) > MAX_BYTES for part in name.split("/")):
        return f"has a part of over {MAX_BYTES} bytes; shorten it"
    return None


def image_name_fault(name: str) -> str | None:
    """Say why an image's name would make no safe path below an output folder; None where it does."""
    if _PLAIN.fullmatch(name):
        return None
    if fault := text_fault(name):
        return fault
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name):
        return "is an absolute path; names are relative to the folder of images"
    if not {"", ".", ".."}.isdisjoint(re.split(r"[/\\]", name)):
        return "has a part that is empty, '.' or '..'; correct the path"
    return None


def split_name_fault(name: str) -> str | None:
    """Say why files cannot be called after a split; None where they can. The empty name stands for no split."""
    if not name or (_PLAIN.fullmatch(name) and "/" not in name):
        return None
    if fault := text_fault(name):
        return fault
    if re.search(r"[/\\]", name) or name in (".", ".."):
        return "is a path, and files are called after splits; write a plain name such as train"
    return None


def case_key(name: str) -> str:
    """Return what a file system that ignores case, and how accents are composed, takes a name for."""
    key = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).lower()
    return name if key == name else key  # the same string twice takes no memory of its own


def collision(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that such a file system takes for one; None where there are none."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(case_key(name), name)
        if first != name:
            return first, name
    return None
