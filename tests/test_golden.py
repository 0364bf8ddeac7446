"""Parity with the authors' public code, one test a file of reference vectors.

`TAGMASK_GOLDEN` names the folder; by default the vectors kept beside these tests, which hold no photograph.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

import pytest

from tests import golden_checks

for module in pkgutil.iter_modules(golden_checks.__path__):
    importlib.import_module(f"tests.golden_checks.{module.name}")

FOLDER = Path(os.environ.get("TAGMASK_GOLDEN") or Path(__file__).parent / "golden")
FILES = sorted(FOLDER.glob("*.npz"))


def test_folder_holds_vectors() -> None:
    assert FILES, f"no reference vectors in {FOLDER}; set TAGMASK_GOLDEN to a folder of .npz files"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    check = golden_checks.find_check(path.stem)
    if check is None:
        pytest.skip(f"no method of this version answers to {path.stem}")
    check(golden_checks.load(path))
