"""Views of training images beside what training shows of them: scales, colours of the padding, resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.views import TrainingViews, draw_crop
from tagmask.recipes.load import ViewsConfig


@pytest.fixture
def grey(tmp_path: Path) -> Dataset:
    """One image of 6 x 4 pixels."""
    values = np.arange(72, dtype=np.uint8).reshape(4, 6, 3) + 100
    Image.fromarray(values).save(tmp_path / "a.png")
    return Dataset((Record("a", tmp_path / "a.png", (0,)),), ("grey",))


def view(dataset: Dataset, mean: tuple[float, float, float] = (0.2, 0.4, 0.6), **config: object) -> torch.Tensor:
    settings = ViewsConfig.model_validate({"crop": 12, "scale": [1, 1], "flip": 0, **config})
    return TrainingViews(dataset, settings, 0, mean=mean)[0]["images"]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(("padding", "colour"), [("black", (0, 0, 0)), ("mean", (51, 102, 153))])
def test_padding(grey: Dataset, padding: str, colour: tuple[int, int, int]) -> None:
    image = view(grey, padding=padding)
    beside = (image == torch.tensor(colour)[:, None, None]).all(dim=0)
    assert int(beside.sum()) == 12 * 12 - 4 * 6


def test_factors_are_drawn_in_place_of_a_range() -> None:
    config = ViewsConfig(crop=8, factors=(0.5, 2.0))
    random = np.random.default_rng(0)
    assert {draw_crop(40, 20, config, random).size for _ in range(30)} == {(20, 10), (80, 40)}


def test_resampling(grey: Dataset) -> None:
    linear, cubic = (view(grey, squash=True, resample=name) for name in ("bilinear", "bicubic"))
    picture = Image.open(grey.records[0].image)
    for image, filter in ((linear, Image.Resampling.BILINEAR), (cubic, Image.Resampling.BICUBIC)):
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(picture.resize((12, 12), filter)))
    assert not torch.equal(linear, cubic)
