"""Errors of the system and of the machine, in words that name the file and the mend."""

from __future__ import annotations

import errno

from tagmask.errors import TagmaskError

# What to do about it, by the number that the system gives.
_MENDS = {
    errno.ENOSPC: "the disk is full: make room, or choose another place",
    errno.EDQUOT: "your quota of the disk is used up: make room, or choose another place",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.EACCES: "no permission: change that of the file or its folder, or choose another place",
    errno.EPERM: "no permission: change that of the file or its folder, or choose another place",
    errno.ENAMETOOLONG: "the name is too long: rename the image or its folder, or choose a shorter output",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another place",
    errno.EISDIR: "a folder stands where a file is needed: choose another name",
    errno.ENOENT: "no such file or folder: check the name",
    errno.ENOTEMPTY: "the folder is not empty: choose another place",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n), or set training.workers=0",
    errno.EFBIG: "the file grew larger than this disk or your limit (ulimit -f) allows: choose another place",
    errno.ELOOP: "links lead in a circle: remove them",
}
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
    name = next((str(file) for file in (error.filename, error.filename2) if file is not None), None)
    reason = _MENDS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    return f"{name}: {reason}" if name is not None else reason
