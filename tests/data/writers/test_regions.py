from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagmask.data.writers.regions import regions

coco = pytest.importorskip("pycocotools.mask")
maps = arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 1, 1, 2, 255])
)


def placed(region, shape: tuple[int, int]) -> np.ndarray:
    """The region's pixels in the whole image."""
    whole = np.zeros(shape, dtype=bool)
    left, top, width, height = region.box
    whole[top : top + height, left : left + width] = region.inside
    return whole


def filled(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre a ray to the left crosses the polygon an odd number of times."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5 + 1e-4
    inside = np.zeros(shape, dtype=bool)
    for (x1, y1), (_, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= (y > min(y1, y2)) & (y < max(y1, y2)) & (x > x1)
    return inside


@settings(deadline=None, max_examples=60)
@given(maps)
def test_runs_and_polygons_give_back_every_pixel(labels: np.ndarray) -> None:
    height, width = labels.shape
    back = np.zeros_like(labels)
    for region in regions(labels, 2):
        whole = placed(region, labels.shape)
        code = coco.frPyObjects({"size": [height, width], "counts": region.runs(height, width)}, height, width)
        assert np.array_equal(coco.decode(code), whole)
        assert (region.area, list(region.box)) == (coco.area(code), coco.toBbox(code).tolist())
        polygon = region.polygon()
        assert np.array_equal(filled(polygon, labels.shape), whole)
        code = coco.merge(coco.frPyObjects([polygon.ravel().tolist()], height, width))
        assert np.array_equal(coco.decode(code), whole)
        assert not back[whole].any()
        back[whole] = region.label
    assert np.array_equal(back, np.where(labels == 255, 0, labels))


def test_regions_touch_along_sides_and_come_by_class_then_from_the_top() -> None:
    labels = np.array([[2, 0, 1, 0], [0, 2, 1, 1], [1, 0, 0, 255]], dtype=np.uint8)
    found = [(region.label, region.box, region.area) for region in regions(labels, 2)]
    assert found == [(1, (2, 0, 2, 2), 3), (1, (0, 2, 1, 1), 1), (2, (0, 0, 1, 1), 1), (2, (1, 1, 1, 1), 1)]
    assert list(regions(np.zeros((3, 3), np.uint8), 2)) == []


def test_outline_of_a_pixel_a_block_and_a_hole() -> None:
    labels = np.zeros((5, 6), dtype=np.uint8)
    labels[1, 2] = 1
    (pixel,) = regions(labels, 1)
    assert sorted(map(tuple, pixel.polygon())) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    labels[:] = 1
    (block,) = regions(labels, 1)
    assert sorted(map(tuple, block.polygon())) == [(0, 0), (0, 5), (6, 0), (6, 5)]
    labels[2, 3] = 0
    (ring,) = regions(labels, 1)
    corners = set(map(tuple, ring.polygon()))
    assert {(3, 2), (4, 2), (4, 3), (3, 3), (0, 2.5), (3, 2.5)} <= corners
    assert len(ring.polygon()) == 12
