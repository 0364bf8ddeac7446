"""How much of an image lights up for its tags tells small things from large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tagmask.api.thing_size import lit_fraction
from tagmask.data.dataset import Dataset, Record
from tagmask.engine.pretrained import LONG_SIDE, network_features
from tagmask.recipes.load import BackboneConfig

PLACES = 16  # features along a side of an image


def colours(image: Image.Image) -> Tensor:
    """Return the mean colours of 16 x 16 parts of an image as its features."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(pixels, PLACES)


def photographs(folder: Path, side: int, count: int = 24) -> Dataset:
    """Make images of 64 x 64 noise, a third with a red square, a third with a blue one, a third with none."""
    random = np.random.default_rng(0)
    records = []
    for number in range(count):
        pixels = random.integers(90, 110, (64, 64, 3), np.uint8)
        kind, (top, left) = number % 3, random.integers(0, 65 - side, 2) // 4 * 4
        if kind < 2:
            pixels[top : top + side, left : left + side, 2 * kind] = 250
        path = folder / f"{side}-{number}.png"
        Image.fromarray(pixels).save(path)
        records.append(Record(path.stem, path, (kind,) if kind < 2 else ()))
    return Dataset(tuple(records), ("red", "blue"))


@pytest.mark.parametrize("side", [8, 16, 32])
def test_what_lights_up_is_as_large_as_the_thing_where_features_are_fine(tmp_path: Path, side: int) -> None:
    assert lit_fraction(photographs(tmp_path, side), colours) == pytest.approx((side / 64) ** 2, rel=0.15)


def test_too_few_images_of_every_class_say_nothing(tmp_path: Path) -> None:
    assert lit_fraction(photographs(tmp_path, 8, count=21), colours) is None


def test_images_that_do_not_open_are_passed_over(tmp_path: Path) -> None:
    dataset = photographs(tmp_path, 16, count=48)
    for record in dataset.records[:12]:
        record.image.write_bytes(b"no image")
    assert lit_fraction(dataset, colours) == pytest.approx(1 / 16, rel=0.15)
    for record in dataset.records:
        record.image.write_bytes(b"no image")
    assert lit_fraction(dataset, colours) is None


def test_a_network_sees_images_at_one_long_side() -> None:
    features = network_features(BackboneConfig(name="mobilenetv2_035", weights=None))
    found = features(Image.new("RGB", (30, 60)))
    assert tuple(found.shape[1:]) == (LONG_SIDE // 16, LONG_SIDE // 32)
    assert not found.requires_grad
