"""Copy-paste: which pixels are cut out, where they land, and what a training is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.masks import PngMask
from tagmask.data.paste import LEAST, MOST, REACH, cut_out, paste_onto
from tagmask.data.views import TrainingViews
from tagmask.recipes.load import ViewsConfig

SIDE = 20


def seed(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def test_one_label_is_cut_out_and_every_label_in_time() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:2], labels[4, :4], labels[5:7] = 3, 1, 255
    found = [cut_out(labels, seed(number)) for number in range(20)]
    assert {cut[0] for cut in found if cut} == {1, 3}  # neither the background nor what is undecided
    for cut in found:
        assert cut is not None
        np.testing.assert_array_equal(cut[1], labels == cut[0])


@pytest.mark.parametrize(("fraction", "is_cut"), [(LEAST / 2, False), (LEAST, True), (MOST, True), (0.51, False)])
def test_too_little_and_too_much_are_not_cut_out(fraction: float, is_cut: bool) -> None:
    labels = np.zeros(10_000, np.uint8)
    labels[: round(fraction * labels.size)] = 1
    assert (cut_out(labels.reshape(100, 100), seed(0)) is not None) is is_cut


def test_nothing_but_background_gives_nothing() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = 255
    assert cut_out(labels, seed(0)) is None


def test_pixels_move_together_with_their_label() -> None:
    """Numbered pixels: each that landed is the one that lies the same way off in the donor."""
    numbers = torch.arange(1, SIDE * SIDE + 1).view(1, SIDE, SIDE).repeat(3, 1, 1)
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[8:12, 6:15], pixels[9, 8] = True, False
    moves = set()
    for number in range(40):
        image, mask = torch.zeros_like(numbers), torch.full((SIDE, SIDE), 7)
        count = paste_onto(image, mask, numbers, 2, pixels, seed(number))
        landed = image[0] > 0
        assert int(landed.sum()) == count
        assert torch.equal(landed, mask == 2)
        assert bool((mask[~landed] == 7).all())
        assert torch.equal(image[0], image[2])
        rows, columns = landed.nonzero(as_tuple=True)
        down = rows - (image[0][landed] - 1) // SIDE
        right = columns - (image[0][landed] - 1) % SIDE
        assert len(down.unique()) == len(right.unique()) == 1
        moves.add((int(down[0]), int(right[0])))
        assert max(abs(int(down[0])), abs(int(right[0]))) <= REACH * SIDE
    assert len(moves) > 20


def test_what_leaves_the_view_is_lost() -> None:
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[0], pixels[-1] = True, True
    counts = set()
    for number in range(20):
        image, mask = torch.zeros(3, SIDE, SIDE), torch.zeros(SIDE, SIDE, dtype=torch.int64)
        counts.add(paste_onto(image, mask, torch.ones(3, SIDE, SIDE), 1, pixels, seed(number)))
        assert int((mask == 1).sum()) == int(image[0].sum())
    assert max(counts) <= 2 * SIDE
    assert min(counts) < SIDE


@pytest.fixture
def two(tmp_path: Path) -> Dataset:
    """A dark image without a tag and a bright one with a square of class 2."""
    records = []
    for name, value, label in (("dark", 10, 0), ("bright", 200, 2)):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        labels[5:12, 5:12] = label
        Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / f"{name}-mask.png")
        tags = (label - 1,) if label else ()
        records.append(Record(name, tmp_path / f"{name}.png", tags, mask=PngMask(tmp_path / f"{name}-mask.png")))
    return Dataset(tuple(records), ("cat", "cow"))


def views(dataset: Dataset, **settings: object) -> TrainingViews:
    config = ViewsConfig.model_validate({"crop": SIDE, "scale": [1, 1], "flip": 0})
    return TrainingViews(dataset, config, 0, masks=True, order="listed", **settings)  # pyright: ignore


def test_a_training_is_told_of_what_was_pasted(two: Dataset) -> None:
    pasted = 0
    for position in range(0, 20, 2):  # the dark image
        item = views(two, paste=1.0)[position]
        image, mask, tags = item["images"], item["masks"], item["tags"]
        assert torch.equal(image[0] == 200, mask == 2)  # pyright: ignore
        assert list(tags) == [0, float((mask == 2).any())]  # pyright: ignore
        pasted += int(tags[1])  # pyright: ignore
    assert pasted >= 8  # five draws in a row may all hit the image without a tag


def test_without_it_views_are_as_ever_and_with_it_the_same_in_every_run(two: Dataset) -> None:
    for position in range(6):
        plain, never = views(two)[position], views(two, paste=0.0)[position]
        assert torch.equal(plain["images"], never["images"])  # pyright: ignore
        first, second = views(two, paste=0.5)[position], views(two, paste=0.5)[position]
        assert torch.equal(first["images"], second["images"])  # pyright: ignore
        assert torch.equal(first["masks"], second["masks"])  # pyright: ignore


def test_an_image_that_does_not_open_is_no_donor(two: Dataset) -> None:
    two.records[1].image.write_bytes(b"no picture")
    item = views(two, paste=1.0)[0]
    assert item["bad"] == ()
    assert int(item["masks"].max()) == 0  # pyright: ignore
