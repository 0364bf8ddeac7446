"""Files that LabelMe and X-AnyLabeling wrote by their own code, read by tagmask; and what they read of ours.

Each runs in an environment of its own (`pip install labelme`, `pip install x-anylabeling-cvhub`), whose Python is named
by TAGMASK_LABELME and TAGMASK_XANYLABELING.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tagmask.data.label_maps import voc_palette, write_label_map
from tagmask.data.readers import read_dataset

CLASSES = ["cat", "dog", "cow"]

LABELME = """
import sys, numpy as np, labelme.utils
from labelme._label_file import LabelFile, _load_shape_json_obj
from pathlib import Path
place, classes = Path(sys.argv[1]), sys.argv[2].split(",")
ids = np.load(place / "ids.npy")
shapes = []
for own, name in enumerate(classes, 1):
    rows, columns = np.nonzero(ids == own)
    if not len(rows):
        continue
    y0, y1, x0, x1 = rows.min(), rows.max(), columns.min(), columns.max()
    cut = (ids == own)[y0 : y1 + 1, x0 : x1 + 1]
    shapes.append(dict(label=name, points=[[float(x0), float(y0)], [float(x1), float(y1)]], group_id=None, flags={},
        shape_type="mask", description="", mask=labelme.utils.img_arr_to_b64(cut.astype(np.uint8))))
LabelFile().save(str(place / "a.json"), shapes, "a.png", *ids.shape)
again = [_load_shape_json_obj(shape) for shape in shapes]
drawn, _ = labelme.utils.shapes_to_label(ids.shape, again, {name: own for own, name in enumerate(classes, 1)})
np.save(place / "theirs.npy", drawn)
"""

XANYLABELING = """
import sys, numpy as np
from pathlib import Path
from anylabeling.views.labeling.label_converter import LabelConverter
from anylabeling.views.labeling.label_file import LabelFile
place, classes, colours = Path(sys.argv[1]), sys.argv[2].split(","), eval(sys.argv[3])
table = {"type": "rgb", "colors": dict(zip(classes, colours))}
LabelConverter().mask_to_custom(str(place / "mask.png"), str(place / "a.json"), str(place / "a.png"), table)
file = LabelFile(str(place / "a.json"))
shapes = [shape.to_dict() for shape in file.shapes]
LabelFile().save(str(place / "a.json"), shapes, "a.png", *np.load(place / "ids.npy").shape)
LabelConverter().custom_to_mask(str(place / "a.json"), str(place / "back.png"), table)
"""


def by_tool(variable: str, program: str, place: Path, ids: np.ndarray, *words: str) -> None:
    """Run a program in a tool's environment, on a label map and its photograph."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python in which the tool is installed")
    np.save(place / "ids.npy", ids)
    Image.new("RGB", ids.shape[::-1]).save(place / "a.png")
    (place / "classes.txt").write_text("\n".join(CLASSES))
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [python, "-c", program, str(place), ",".join(CLASSES), *words], env=own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def ours(place: Path, shape: tuple[int, ...]) -> np.ndarray:
    (record,) = read_dataset(place).records
    assert record.mask is not None
    return record.mask.load(*shape)


def label_map() -> np.ndarray:
    """A disc with a hole, a rectangle over it, and two regions of a class, none of them touching the border."""
    rows, columns = np.mgrid[:60, :80]
    away = np.hypot(rows - 30, columns - 30)
    ids = np.where((away < 22) & (away > 7), 1, 0).astype(np.uint8)
    ids[20:50, 45:70] = 2
    ids[3:6, 70:76] = ids[54:57, 5:12] = 3
    return ids


def test_masks_that_labelme_saved_are_read_pixel_by_pixel(tmp_path: Path) -> None:
    ids = label_map()
    by_tool("TAGMASK_LABELME", LABELME, tmp_path, ids)
    np.testing.assert_array_equal(np.load(tmp_path / "theirs.npy"), ids)
    np.testing.assert_array_equal(ours(tmp_path, ids.shape), ids)


def test_our_masks_go_through_xanylabeling_and_back(tmp_path: Path) -> None:
    ids = label_map()
    write_label_map(tmp_path / "mask.png", ids)
    colours = json.dumps(voc_palette()[1 : len(CLASSES) + 1].tolist())
    by_tool("TAGMASK_XANYLABELING", XANYLABELING, tmp_path, ids, colours)
    colour = np.asarray(Image.open(tmp_path / "back.png").convert("RGB"))
    theirs = np.zeros_like(ids)
    for own in range(1, len(CLASSES) + 1):
        theirs[(colour == voc_palette()[own]).all(axis=-1)] = own
    rim = ndimage.maximum_filter(ids, 3) != ndimage.minimum_filter(ids, 3)
    hole = np.hypot(*(np.mgrid[:60, :80] - 30)) <= 8
    for found in (ours(tmp_path, ids.shape), theirs):
        # Its outlines know no holes, and run through the middles of the pixels at the rim.
        assert not ((found != ids) & ~rim & ~hole).any()
        assert (found == ids).mean() > 0.9
