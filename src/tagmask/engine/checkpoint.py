"""Training state on disk, apart from the model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tagmask.data.files import replacing
from tagmask.errors import TagmaskError

STATE_FILE = "training_state.pt"
MODEL_FILE = "model.safetensors"


def save_state(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all that the next step depends on; `step` updates are done."""
    state = {
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    # Opened here, since torch writes the name of a file that it opens into the file, and a temporary name is different
    # each time.
    with replacing(folder / STATE_FILE) as temporary, temporary.open("wb") as file, _system_errors():
        torch.save(state, file)


def load_state(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote and return the number of updates done; 0 where nothing was written.

    Raises:
        TagmaskError: the file is damaged or of another recipe.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        reason = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
        raise TagmaskError(
            f"{path}: cannot resume from it ({reason}); it is damaged or of another recipe: remove the folder to start "
            "anew"
        ) from None
    torch.set_rng_state(state["random"])
    if torch.cuda.is_available() and state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return int(state["step"])


def save_model(folder: Path, network: nn.Module) -> None:
    """Write what prediction needs, as safetensors."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(folder / MODEL_FILE) as temporary, _system_errors():
        save_file(tensors, temporary)


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise as OSError what torch and safetensors raise as errors of their own when a disk is full or fails."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else getattr(error.__context__, "errno", None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def load_model(folder: Path, network: nn.Module) -> None:
    """Load what `save_model` wrote, strictly.

    Raises:
        TagmaskError: missing, damaged, or of another network.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise TagmaskError(
            f"{path}: no model; is the training of this run finished? `tagmask train` with the same output resumes it"
        )
    try:
        state: dict[str, Tensor] = load_file(path)
        network.load_state_dict(state)
    except Exception as error:
        reason = str(error).splitlines()[-1].strip()
        raise TagmaskError(f"{path}: not the model of this run's recipe ({reason})") from None
