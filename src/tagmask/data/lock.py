"""One writer a folder: a second process that would write there is refused, and told who the first one is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagmask.data.files import make_folder, unwritable
from tagmask.errors import TagmaskError

try:
    import fcntl
except ImportError:  # Windows has no such locks; two processes at one folder are then not told apart
    fcntl = None

LOCK = ".tagmask.lock"
_LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that know no locks

_held: dict[str, dict[str, Any]] = {}
"""Lock files of this process with what stands in them: the system's lock keeps out other processes, but no threads.

A process that closes such a file, however often it opened it, loses the lock. So none of its threads may look into it.
"""
_guard = threading.Lock()  # of `_held`, between asking whether a folder is free and taking it


@contextlib.contextmanager
def locked(output: Path, *, replaced: bool = False) -> Iterator[None]:
    """Keep every other process of tagmask from writing to a folder while the context lasts.

    The system itself takes the lock from a process that dies, so a killed one never bars the next. The lock file says
    who holds it; it is removed at the end.

    Args:
        output: the folder; made where there is none, and removed again where nothing was written.
        replaced: whether the folder is going to be replaced as a whole: the lock file then stands beside it.

    Raises:
        TagmaskError: another process, or another thread of this one, writes there; or the folder cannot be written.
    """
    place = output.absolute()
    # A hash, since the name of the folder may be as long as names can be.
    beside = f".tagmask-{hashlib.sha256(place.name.encode()).hexdigest()[:16]}.lock"
    folder, name = (place.parent, beside) if replaced else (place, LOCK)
    made = not folder.exists()
    make_folder(folder)
    path = folder.resolve() / name
    own = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with _guard:
        holder = _held.setdefault(str(path), own)
    if holder is not own:
        raise _refused(output, holder)
    try:
        try:
            file = _take(output, path, own)
        except OSError as error:
            raise unwritable(output, error) from error
        try:
            yield
        finally:
            # Removed while it is held: whoever opens it afterwards makes a new one.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(file)
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
    finally:
        with _guard:
            del _held[str(path)]


def _take(output: Path, path: Path, who: dict[str, Any]) -> int:
    """Open the lock file, lock it and write down who we are; the lock lasts as long as the file stays open."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if fcntl is not None:
                # Of the POSIX kind: unlike those of `flock`, they do not pass to the workers that a training forks.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _LOCKLESS:
                os.close(file)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise _refused(output, _written(path)) from None
                raise
        if _is_there(path, file):
            break
        os.close(file)  # its holder removed it in between
    os.truncate(file, 0)
    os.write(file, json.dumps(who).encode())
    return file


def _is_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _written(path: Path) -> dict[str, Any]:
    """Read what another process wrote into its lock file; never to be called for one that this process holds."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _refused(output: Path, who: dict[str, Any]) -> TagmaskError:
    holder = "another process" if "pid" not in who else f"process {who['pid']} on {who.get('host')}"
    since = f" since {who['since']}" if "since" in who else ""
    return TagmaskError(
        f"{output}: {holder} has been writing there{since}; wait until it ends, or choose another output"
    )
