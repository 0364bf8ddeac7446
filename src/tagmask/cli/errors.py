"""Errors of the system and of the machine, in words that name the file and the mend."""

from __future__ import annotations

from tagmask.errors import TagmaskError

MEMORY = (
    "not enough memory: set inference.long_side or inference.size smaller (--set inference.long_side=512), "
    "training.batch smaller, or use a machine with more"
)


def explain(error: Exception) -> str | None:
    """Return what to tell the user about an error that ended a command; None where it is a bug of ours."""
    if isinstance(error, TagmaskError):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    # torch says so by exceptions of its own, which must not be imported here, or the command line would start slowly.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return MEMORY
    if isinstance(error, RecursionError):
        return "the data or the recipe is nested too deeply to be read; flatten it"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name holds the character NUL, which no file may have; give another name"
    return None


def _of_system(error: OSError) -> str:
    from tagmask.data.files import MENDS

    name = next((str(file) for file in (error.filename, error.filename2) if file is not None), None)
    parts = [error.strerror or str(error) or type(error).__name__, MENDS.get(error.errno or 0)]
    reason = "; ".join(part for part in parts if part)
    return f"{name}: {reason}" if name is not None else reason
