from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tagmask.engine.checkpoint import MODEL_FILE, STATE_FILE, load_model, load_state, save_model, save_state
from tagmask.errors import TagmaskError


def test_a_full_disk_is_named_and_the_last_whole_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(200, 200)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    save_state(tmp_path, network, optimizer, 3)
    save_model(tmp_path, network)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut short, among the installed packages
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(TagmaskError, match=rf"{STATE_FILE}: cannot be written \(File too large\); that disk takes"):
            save_state(tmp_path, network, optimizer, 4)
        with pytest.raises(TagmaskError, match=rf"{MODEL_FILE}: cannot be written \(File too large\); that disk takes"):
            save_model(tmp_path, network)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert load_state(tmp_path, network, optimizer) == 3
    load_model(tmp_path, network)


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    contents = set()
    for _ in range(2):
        save_state(tmp_path, network, optimizer, 3)
        contents.add((tmp_path / STATE_FILE).read_bytes())
    assert len(contents) == 1
