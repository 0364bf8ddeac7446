"""Training state on disk, apart from the model."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tagmask.data.files import replacing
from tagmask.errors import TagmaskError, first_line

STATE_FILE = "training_state.pt"
MODEL_FILE = "model.safetensors"
CHECKSUM = "sha256"  # the key of the model's metadata under which its checksum stands


def save_state(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all that the next step depends on; `step` updates are done."""
    state = {
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
    }
    # Opened here, since torch writes the name of a file that it opens into the file, and a temporary name is different
    # each time.
    with replacing(folder / STATE_FILE) as temporary, temporary.open("wb") as file, _system_errors():
        torch.save(state, file)


def load_state(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote and return the number of updates done; 0 where nothing was written.

    Nothing of it belongs to one of several processes: the state of random numbers is that of all of them. So a run may
    go on with another number of processes.

    Raises:
        TagmaskError: the file is damaged or of another recipe.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    state = read_training_state(path)
    try:
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available() and state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][0])
        return int(state["step"])
    except Exception as error:  # whatever a state of another recipe makes torch say
        raise _unusable(path, error) from None


def read_training_state(path: Path) -> dict[str, Any]:
    """Read a file of `save_state`, whose records carry checksums.

    Raises:
        TagmaskError: it is damaged or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:  # torch itself does not look at the checksums
                raise ValueError(f"checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not {"step", "method", "optimizer", "random"} <= state.keys():
            raise ValueError("no state of a training")
    except Exception as error:  # whatever a file of any content makes torch and zipfile say
        raise _unusable(path, error) from None
    return state


def _unusable(path: Path, error: Exception) -> TagmaskError:
    reason = first_line(error) if isinstance(error, RuntimeError | ValueError) else type(error).__name__
    return TagmaskError(
        f"{path}: cannot resume from it ({reason}); it is damaged or of another recipe: remove the folder to start anew"
    )


def save_model(folder: Path, network: nn.Module) -> None:
    """Write what prediction needs, as safetensors."""
    write_model(folder / MODEL_FILE, network.state_dict())


def write_model(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the tensors of a network as safetensors, with their checksum, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(path) as temporary, _system_errors():
        save_file(tensors, temporary, metadata={CHECKSUM: checksum(tensors)})


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of tensors on the CPU with their names, types and shapes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        found.update(value.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise as OSError what torch and safetensors raise as errors of their own when a disk is full or fails."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        found = re.search(r"(?:os error|Os \{ code:) (\d+)", str(error))  # as newer and older safetensors say it
        number = int(found[1]) if found else getattr(error.__context__, "errno", None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def load_model(folder: Path, network: nn.Module) -> None:
    """Load what `save_model` wrote, strictly. Models of version 0.1 have no checksum and are read without.

    Raises:
        TagmaskError: missing, damaged, of another network, or with numbers that are not finite.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise TagmaskError(
            f"{path}: no model; is the training of this run finished? `tagmask train` with the same output resumes it"
        )
    try:
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(CHECKSUM)
        state: dict[str, Tensor] = load_file(path)
    except Exception as error:  # whatever a file of any content makes safetensors say
        raise TagmaskError(f"{path}: damaged or no model ({error}); copy the run again, or train anew") from None
    if written is not None and written != checksum(state):
        raise TagmaskError(
            f"{path}: damaged, its content has not the checksum that was written with it; copy the run again, or train "
            "anew"
        )
    spoilt = next((name for name, value in state.items() if value.is_floating_point() and not _finite(value)), None)
    if spoilt is not None:
        raise TagmaskError(
            f"{path}: {spoilt!r} holds numbers that are not finite, so that its masks would mean nothing; train again "
            "with a lower optimizer.lr, optimizer.clip=1.0 or training.precision=32-true"
        )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise TagmaskError(f"{path}: not the model of this run's recipe ({reason})") from None


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())
