from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tagmask.data.label_maps import voc_palette, write_label_map
from tagmask.data.pictures import display_palette, heat_map, outlines, overlay
from tagmask.errors import TagmaskError


def test_palette_is_that_of_voc() -> None:
    palette = voc_palette()
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert len(np.unique(palette, axis=0)) == 256
    assert palette.dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (16, 16)])
def test_ids_come_back_as_written(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a folder" / "deep" / "name.with.dots.png"
    write_label_map(path, labels)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        assert np.array_equal(np.asarray(image), labels)
        assert np.array_equal(np.asarray(image.convert("RGB")), voc_palette()[labels])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_whole_and_a_palette_of_ones_own_is_used(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_label_map(path, np.zeros((4, 4), dtype=np.uint8))
    palette = np.arange(768).astype(np.uint8).reshape(256, 3)
    write_label_map(path, np.full((2, 3), 9, dtype=np.uint8), palette)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.broadcast_to(palette[9], (2, 3, 3)))


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    labels = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(TagmaskError, match=r"mask\.jpg: .*\.png"):
        write_label_map(tmp_path / "mask.jpg", labels)
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(TagmaskError, match=r"taken\.png: cannot be written"):
        write_label_map(tmp_path / "taken.png", labels)
    (tmp_path / "file").write_text("")
    with pytest.raises(TagmaskError, match=r"under\.png"):
        write_label_map(tmp_path / "file" / "under.png", labels)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "taken.png"]
    with pytest.raises(TypeError, match="int64"):
        write_label_map(tmp_path / "mask.png", labels.astype(np.int64))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), opacity=st.floats(0, 1))
def test_overlay_mixes_colours_and_leaves_background(seed: int, opacity: float) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    labels = np.kron(generator.choice(np.array([0, 1, 7, 255], dtype=np.uint8), (4, 5)), np.ones((4, 4), np.uint8))
    image = np.kron(image, np.ones((4, 4, 1), np.uint8))
    mixed = overlay(image, labels, opacity)
    assert np.array_equal(mixed[labels == 0], image[labels == 0])
    weight = np.where(outlines(labels), 1.0, opacity)[..., None]
    wanted = (1 - weight) * image + weight * display_palette()[labels].astype(float)
    assert np.abs(mixed - wanted)[labels != 0].max(initial=0.0) <= 0.51
    assert mixed.dtype == np.uint8


def test_an_outline_is_as_wide_as_asked_on_both_sides_of_an_edge() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 3
    np.testing.assert_array_equal(np.flatnonzero(outlines(labels)[0]), [3, 4])
    np.testing.assert_array_equal(np.flatnonzero(outlines(labels, 2)[0]), [2, 3, 4, 5])
    np.testing.assert_array_equal(np.flatnonzero(outlines(labels.T)[:, 0]), [3, 4])
    assert not outlines(np.full((8, 8), 3, np.uint8), 2).any()


def _lab(rgb: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """Give CIELAB (n, 3) of colours (n, 3) in 0..255, seen with a (3, 3) matrix of linear light."""
    light = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    xyz = np.clip(light @ sight.T, 0, 1) @ to_xyz.T / (0.9505, 1, 1.0888)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_colours_are_told_apart_also_without_red_or_green() -> None:
    """Matrices of full protanopia and deuteranopia: Machado, Oliveira and Fernandes 2009."""
    protan = np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]])
    deutan = np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]])
    colours = display_palette()[1:13].astype(float)
    for sight in (np.eye(3), protan, deutan):
        seen = _lab(colours, sight)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e3 * np.eye(12)
        assert apart[:6, :6].min() >= 20
        assert apart.min() >= 12


def test_every_label_has_a_colour_and_ignored_is_grey() -> None:
    palette = display_palette()
    assert palette.shape == (256, 3)
    assert len(np.unique(palette[1:37], axis=0)) == 36
    assert palette[255].tolist() == [128, 128, 128]
    assert palette[1:255].any(axis=1).all()


def test_heat_rises_from_dark_to_light() -> None:
    ramp = np.linspace(0, 1, 101, dtype=np.float32)[None, :]
    image = np.zeros((1, 101, 3), dtype=np.uint8)
    heat = heat_map(image, ramp, opacity=1.0).astype(int)
    brightness = heat.sum(axis=-1)[0]
    assert brightness[0] < 10
    assert brightness[-1] > 600
    assert (np.diff(brightness) >= 0).mean() > 0.95
    assert np.array_equal(heat_map(image, 3 * ramp - 1, opacity=1.0)[0, [0, -1]], heat[0, [0, -1]])
    assert np.array_equal(heat_map(image + 90, ramp, opacity=0.0), image + 90)


def test_sizes_must_match() -> None:
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(5, 4, 3\)"):
        overlay(image, np.zeros((5, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        heat_map(image.astype(np.float32), np.zeros((4, 5)))
