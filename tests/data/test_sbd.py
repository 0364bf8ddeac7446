"""SBD's outlines and VOC's own masks make SegmentationClassAug."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tagmask.data.masks import PngMask
from tagmask.data.sbd import write_augmented
from tagmask.errors import TagmaskError
from tests.data.trees import write_image, write_mask


def write_mat(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": labels, "Boundaries": np.zeros(3), "CategoriesPresent": [1]}})


def trees(tmp_path: Path) -> tuple[Path, Path]:
    sbd, voc = tmp_path / "benchmark_RELEASE", tmp_path / "VOC2012"
    for name in ("2007_a", "2008_b"):
        write_image(voc / "JPEGImages" / f"{name}.jpg")
        write_mat(sbd / "dataset/cls" / f"{name}.mat", np.full((6, 8), 20, np.uint8))
    write_mask(voc / "SegmentationClass" / "2007_a.png", np.full((6, 8), 255))
    write_mask(voc / "SegmentationClass" / "2007_c.png", np.full((6, 8), 3))
    return sbd, voc


def test_voc_s_own_mask_is_the_better_one_and_what_is_there_stays(tmp_path: Path) -> None:
    sbd, voc = trees(tmp_path)
    write_mask(voc / "SegmentationClassAug" / "2007_c.png", np.full((6, 8), 7))
    folder, count = write_augmented(sbd, voc)
    assert (folder, count) == (voc / "SegmentationClassAug", 3)
    values = {path.stem: set(PngMask(path).ids().flat) for path in folder.glob("*.png")}
    assert values == {"2007_a": {255}, "2008_b": {20}, "2007_c": {7}}


def test_what_is_no_outline_is_refused_by_name(tmp_path: Path) -> None:
    sbd, voc = trees(tmp_path)
    (sbd / "dataset/cls/2008_b.mat").write_bytes(b"\x80\x04\x95 no MATLAB file")
    with pytest.raises(TagmaskError, match=r"2008_b\.mat: no file of SBD"):
        write_augmented(sbd, voc)
    write_mat(sbd / "dataset/cls/2008_b.mat", np.full((6, 8), 21, np.uint8))
    with pytest.raises(TagmaskError, match=r"2008_b\.mat: expected class ids 0\.\.20"):
        write_augmented(sbd, voc)
    with pytest.raises(TagmaskError, match="no folder cls"):
        write_augmented(tmp_path / "VOC2012/JPEGImages", voc)
    with pytest.raises(TagmaskError, match="no VOC tree"):
        write_augmented(sbd, sbd)
