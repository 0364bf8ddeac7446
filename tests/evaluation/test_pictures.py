from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tagmask.data.label_maps import write_label_map
from tagmask.errors import TagmaskError
from tagmask.evaluation.pictures import heat_map, overlay, voc_palette


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
    labels = generator.choice(np.array([0, 1, 7, 255], dtype=np.uint8), (4, 5))
    mixed = overlay(image, labels, opacity)
    assert np.array_equal(mixed[labels == 0], image[labels == 0])
    wanted = (1 - opacity) * image + opacity * voc_palette()[labels].astype(float)
    assert np.abs(mixed - wanted)[labels != 0].max(initial=0.0) <= 0.51
    assert mixed.dtype == np.uint8


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
