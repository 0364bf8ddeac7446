import struct
import zlib
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from tagmask.data.masks import Outline, PngMask, PolygonMask
from tagmask.errors import TagmaskError
from tests.data.trees import write_mask

IDS = {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize("mode", ["P", "L"])
def test_ids_are_read_as_they_stand(tmp_path, mode):
    ids = np.array([[0, 1, 2], [3, 255, 0]], dtype=np.uint8)
    if mode == "P":
        write_mask(tmp_path / "a.png", ids)
    else:
        Image.fromarray(ids).save(tmp_path / "a.png")
    loaded = PngMask(tmp_path / "a.png", IDS).load(2, 3)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, ids)
    np.testing.assert_array_equal(PngMask(tmp_path / "a.png").load(2, 3), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("colour", [0, 3])
def test_ids_of_few_bits_are_not_stretched(tmp_path, bits, colour):
    """Grey (0) and palette (3) PNGs of 1, 2 and 4 bits, written by hand: one row of ids 0, 1, 0, 1 or up to 3."""
    ids = [0, 1, 0, 1] if bits == 1 else [0, 1, 2, 3]
    packed = int("".join(f"{value:0{bits}b}" for value in ids).ljust(-(-4 * bits // 8) * 8, "0"), 2)
    row = b"\x00" + packed.to_bytes(-(-4 * bits // 8), "big")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(3 * 2**bits))) if colour == 3 else b""
    end = chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + palette + end)
    np.testing.assert_array_equal(PngMask(tmp_path / "a.png").load(1, 4), [ids])


def test_16_bit_ids_are_read_and_too_large_ones_listed(tmp_path):
    Image.fromarray(np.array([[0, 3, 255]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(PngMask(tmp_path / "a.png", IDS).load(1, 3), [[0, 3, 255]])
    Image.fromarray(np.array([[0, 300, 4000]], dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(TagmaskError, match=r"b\.png: ids 300, 4000 are no class"):
        PngMask(tmp_path / "b.png", IDS).load(1, 3)
    Image.fromarray(np.array([[0, 65_536, -1]], dtype=np.int32)).save(tmp_path / "c.tif")
    with pytest.raises(TagmaskError, match=r"c\.tif: ids -1, 65536; ids go from 0 to 65535"):
        PngMask(tmp_path / "c.tif", IDS).load(1, 3)


def test_id_map_renames_drops_and_keeps_the_ignored(tmp_path):
    write_mask(tmp_path / "a.png", [[0, 1, 2, 3, 255]])
    loaded = PngMask(tmp_path / "a.png", {0: 0, 1: 0, 2: 1, 3: 2}).load(1, 5)
    np.testing.assert_array_equal(loaded, [[0, 0, 1, 2, 255]])
    loaded = PngMask(tmp_path / "a.png", {0: 255, 1: 255, 2: 1, 3: 2}).load(1, 5)
    np.testing.assert_array_equal(loaded, [[255, 255, 1, 2, 255]])


def test_bad_input_ids_that_are_no_class_are_listed(tmp_path):
    write_mask(tmp_path / "a.png", [[0, 1, 7, 9]])
    with pytest.raises(TagmaskError, match=r"a\.png: ids 7, 9 are no class; expected 0 \(background\), 1\.\.3 .* 255"):
        PngMask(tmp_path / "a.png", IDS).load(1, 4)


def test_bad_input_rgb_mask_is_explained(tmp_path):
    Image.new("RGB", (3, 2), (128, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(TagmaskError, match=r"a\.png: holds colours \(RGB\), and a mask holds ids"):
        PngMask(tmp_path / "a.png", IDS).load(2, 3)


def test_bad_input_jpeg_mask_is_refused(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.jpg")
    with pytest.raises(TagmaskError, match=r"a\.jpg: JPEG blurs the ids"):
        PngMask(tmp_path / "a.jpg", IDS).load(2, 3)


def test_bad_input_masks_of_another_size(tmp_path):
    write_mask(tmp_path / "a.png", np.zeros((2, 3)))
    with pytest.raises(TagmaskError, match=r"a\.png: mask is 3 x 2 \(width x height\), its image 5 x 4; save the mask"):
        PngMask(tmp_path / "a.png", IDS).load(4, 5)
    with pytest.raises(TagmaskError, match=r"mask is 3 x 2 .*, its image 2 x 3; if the image is turned by its EXIF"):
        PngMask(tmp_path / "a.png", IDS).load(3, 2)


def test_bad_input_mask_missing_truncated_or_a_directory(tmp_path):
    with pytest.raises(TagmaskError, match=r"a\.png: no such mask file"):
        PngMask(tmp_path / "a.png", IDS).load(1, 1)
    with pytest.raises(TagmaskError, match="is a folder, expected a mask file"):
        PngMask(tmp_path, IDS).load(1, 1)
    path = write_mask(tmp_path / "b.png", np.random.default_rng(0).integers(0, 3, (64, 64)))
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(TagmaskError, match=r"b\.png: damaged or cut short"):
        PngMask(path, IDS).load(64, 64)


def square(left: float, top: float, side: float) -> array:
    return array("d", [left, top, left + side, top, left + side, top + side, left, top + side])


def test_smaller_objects_lie_over_larger_ones():
    small, large = Outline(1, polygons=(square(2, 2, 2),)), Outline(2, polygons=(square(0, 0, 6),))
    for order in ((small, large), (large, small)):
        labels = PolygonMask("f", order).load(8, 8)
        assert labels.dtype == np.uint8
        expected = np.zeros((8, 8))
        expected[:6, :6] = 2
        expected[2:4, 2:4] = 1
        np.testing.assert_array_equal(labels, expected)


def test_crowds_are_ignored_unless_their_class_is_not_chosen():
    runs = tuple(coco_runs(np.ones((4, 4), dtype=bool)))
    crowd = Outline(1, crowd=True, runs=runs, size=(4, 4))
    person = Outline(1, polygons=(square(0, 0, 2),))
    expected = np.full((4, 4), 255)
    expected[:2, :2] = 1
    np.testing.assert_array_equal(PolygonMask("f", (person, crowd)).load(4, 4), expected)
    chosen = PolygonMask("f", (person, crowd), id_map={0: 0, 1: 0})
    assert not chosen.load(4, 4).any()
    ignoring = PolygonMask("f", (), id_map={0: 255, 1: 1})
    assert (ignoring.load(4, 4) == 255).all()


def coco_runs(shape: np.ndarray) -> list[int]:
    flat = shape.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    return np.diff([0, *changes, len(flat)]).tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.booleans())
@settings(deadline=None, max_examples=25)
def test_run_length_codes_are_those_of_pycocotools(seed, height, width, compressed):
    shape = np.random.default_rng(seed).random((height, width)) < 0.4
    runs = coco.encode(np.asfortranarray(shape.astype(np.uint8)))["counts"].decode() if compressed else coco_runs(shape)
    outline = Outline(3, runs=runs if compressed else tuple(runs), size=(height, width))
    np.testing.assert_array_equal(PolygonMask("f", (outline,)).load(height, width), shape * 3)


@pytest.mark.parametrize("runs", [(1, 2), (0, 17), (20, -4), "", "PPYo", "0000", "o" * 30 + "0"])
def test_bad_input_run_length_code_of_another_length(runs):
    with pytest.raises(TagmaskError, match=r"f: a run-length code covers -?\d+ pixels, the image has 16 \(4 x 4\)"):
        PolygonMask("f", (Outline(1, runs=runs),)).load(4, 4)


def test_bad_input_outlines_of_another_size():
    with pytest.raises(TagmaskError, match=r"f: mask is 6 x 5 \(width x height\), its image 4 x 4"):
        PolygonMask("f", (), size=(5, 6)).load(4, 4)
    with pytest.raises(TagmaskError, match=r"f, run-length code: mask is 3 x 2 .* its image 4 x 4"):
        PolygonMask("f", (Outline(1, runs=(6,), size=(2, 3)),)).load(4, 4)


@pytest.mark.parametrize("value", [1e12, float("nan"), float("-inf")])
def test_bad_input_polygon_far_outside(value):
    outline = Outline(1, polygons=(array("d", [0, 0, value, 0, 3, 3]),))
    with pytest.raises(TagmaskError, match="f: a polygon lies far outside the 4 x 4 image"):
        PolygonMask("f", (outline,)).load(4, 4)
