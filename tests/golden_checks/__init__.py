"""One check a golden vector file: `@check("seco_par")` registers it for `seco_par.npz` and `seco_par_*.npz`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Vectors = Mapping[str, np.ndarray]
CHECKS: dict[str, Callable[[Vectors], None]] = {}


def check(name: str) -> Callable[[Callable[[Vectors], None]], Callable[[Vectors], None]]:
    """Register a function of the arrays of one file under the file's name."""

    def register(function: Callable[[Vectors], None]) -> Callable[[Vectors], None]:
        assert name not in CHECKS, f"two checks named {name}"
        CHECKS[name] = function
        return function

    return register


def find_check(stem: str) -> Callable[[Vectors], None] | None:
    """The check with the longest name that `stem` starts with, at a word's end."""
    fitting = [name for name in CHECKS if stem == name or stem.startswith(name + "_")]
    return CHECKS[max(fitting, key=len)] if fitting else None


def load(path: Path) -> Vectors:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def tensor(array: np.ndarray, *, requires_grad: bool = False) -> Tensor:
    return torch.from_numpy(np.array(array)).requires_grad_(requires_grad)


def assert_close(actual: Tensor, expected: np.ndarray, *, relative: float = 1e-5) -> None:
    """Equal within `relative` times the largest absolute value of the expected array (NaN and infinity must agree)."""
    wanted = tensor(expected).reshape(actual.shape).to(torch.float64)
    given = actual.detach().to(torch.float64)
    finite = wanted[wanted.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    torch.testing.assert_close(given, wanted, rtol=relative, atol=relative * max(scale, 1e-12), equal_nan=True)
