"""The augmented masks of PASCAL VOC 2012: the outlines of SBD as label maps, VOC's own where there are some."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tagmask.data.files import write_bytes
from tagmask.data.label_maps import encode_label_map
from tagmask.data.masks import PngMask
from tagmask.data.readers.voc import CLASSES, find_voc
from tagmask.errors import TagmaskError


def write_augmented(sbd: Path | str, voc: Path | str) -> tuple[Path, int]:
    """Write `SegmentationClassAug` into a VOC tree: a mask of each image of SBD, and of VOC, whose own is the better.

    What is there already stays, so that a second start after a killed one goes on.

    Args:
        sbd: the unpacked archive, or the folder `cls` in it, which holds `2008_000002.mat`, …
        voc: a VOC 2012 tree with `SegmentationClass`.

    Returns:
        The folder, and how many masks it holds; 12,031 of the whole of both.

    Raises:
        TagmaskError: no such folders, or a file that holds something else.

    Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011.
    """
    root = find_voc(Path(voc))
    if root is None or not (root / "SegmentationClass").is_dir():
        raise TagmaskError(
            f"{voc}: no VOC tree with SegmentationClass; its masks are better than SBD's of the same image"
        )
    folder = next((place for place in (Path(sbd), *sorted(Path(sbd).glob("**/cls"))) if any(place.glob("*.mat"))), None)
    if folder is None:
        raise TagmaskError(f"{sbd}: no folder cls with 2008_000002.mat, …; unpack SBD's benchmark.tgz and name it")
    target = root / "SegmentationClassAug"
    own = {path.stem: path for path in sorted((root / "SegmentationClass").glob("*.png"))}
    outlines = {path.stem: path for path in sorted(folder.glob("*.mat"))}
    for name in sorted({*own, *outlines}):
        written = target / f"{name}.png"
        if not written.exists():
            labels = PngMask(own[name]).ids() if name in own else read_sbd(outlines[name])
            write_bytes(written, encode_label_map(labels))
    return target, len(list(target.glob("*.png")))


def read_sbd(path: Path) -> np.ndarray:
    """Read the (H, W) uint8 label map, 0 and 1..20 in VOC's order, of a file of SBD's folder `cls`.

    Raises:
        TagmaskError: no MATLAB file, or none of SBD.
    """
    from scipy.io import loadmat

    try:
        labels = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except Exception as error:
        raise TagmaskError(f"{path}: no file of SBD's cls ({error}); unpack the archive anew") from None
    if (
        not isinstance(labels, np.ndarray)
        or labels.ndim != 2
        or labels.dtype != np.uint8
        or labels.max() > len(CLASSES)
    ):
        raise TagmaskError(f"{path}: expected class ids 0..{len(CLASSES)} of 8 bits for each pixel; unpack it anew")
    return labels
