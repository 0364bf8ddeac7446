from __future__ import annotations

from pathlib import Path

import torch

from tagmask.data.cam_files import read_cams, write_cams


def test_saved_cams_stay_below_one(tmp_path: Path) -> None:
    """0.999997 is 1 in float16, and a CAM never is."""
    write_cams(tmp_path / "a.npz", torch.tensor([[[0.999997, 0.5, 0.0]]]), [2])
    cams, ids = read_cams(tmp_path / "a.npz")
    assert cams.flatten().tolist() == [1 - 2**-11, 0.5, 0.0]
    assert ids.tolist() == [3]
