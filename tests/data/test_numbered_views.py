"""A picture whose every pixel bears its own number, through the views of training.

Image, mask, box, weak and strong view have to show the same pixels, whatever is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.views import TrainingViews, draw_crop, strong_view, take_crop, weak_view
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.load import ViewsConfig

HEIGHT, WIDTH = 10, 14
NUMBERS = np.arange(1, 1 + HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
CLASSES = tuple(f"number {number}" for number in range(1, 1 + NUMBERS.size))
PLAIN = {"scale": [1, 1], "jitter": [0, 0, 0, 0]}


@dataclass(frozen=True)
class Given:
    """A mask that is there already."""

    labels: np.ndarray

    def load(self, height: int, width: int) -> np.ndarray:
        assert self.labels.shape == (height, width)
        return self.labels


def grey(values: np.ndarray) -> Image.Image:
    """A picture whose three colours are all `values`."""
    return Image.fromarray(np.repeat(values.astype(np.uint8)[..., None], 3, axis=2))


@pytest.fixture
def numbered(tmp_path: Path) -> Dataset:
    grey(NUMBERS).save(tmp_path / "a.png")
    return Dataset((Record("a", tmp_path / "a.png", (0, 3), (5,), mask=Given(NUMBERS)),), CLASSES)


def views(dataset: Dataset, *, contrast: bool = False, mean: tuple = (0.0, 0.0, 0.0), **config: object):
    settings = ViewsConfig.model_validate({**PLAIN, **config})
    stream = TrainingViews(dataset, settings, 7, masks=True, contrast=contrast, mean=mean)
    return (stream[position] for position in range(40))


@pytest.mark.parametrize("crop", [8, 12, 16], ids=["smaller", "taller than the image", "larger"])
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_image_mask_and_box_show_the_same_pixels(numbered: Dataset, crop: int, flip: float) -> None:
    flips, corners = set(), set()
    for item in views(numbered, crop=crop, flip=flip):
        image, mask = item["images"].numpy(), item["masks"].numpy()
        top, bottom, left, right = item["boxes"]
        assert image.shape == (3, crop, crop)
        assert mask.shape == (crop, crop)
        assert mask.dtype == np.int64
        assert (bottom - top, right - left) == (min(HEIGHT, crop), min(WIDTH, crop))
        inside = np.zeros((crop, crop), bool)
        inside[top:bottom, left:right] = True
        assert (image[:, inside] == mask[inside]).all()
        assert not image[:, ~inside].any()
        assert (mask[~inside] == IGNORE).all()
        # Neighbours in the view are neighbours in the picture: one row is 14 numbers, one column is 1.
        block = mask[inside].reshape(bottom - top, right - left)
        assert (np.diff(block, axis=0) == WIDTH).all()
        (step,) = set(np.diff(block, axis=1).flatten())
        flips.add(int(step))
        corners.add((top, left, int(block.min())))
    assert flips == {0.0: {1}, 0.5: {1, -1}, 1.0: {-1}}[flip]
    assert len(corners) > 8  # the place is drawn


@pytest.mark.parametrize("crop", [8, 12, 16])
def test_every_place_can_be_drawn(crop: int) -> None:
    """Crops and paddings touch either rim, and never go beyond."""
    random, config = np.random.default_rng(0), ViewsConfig(crop=crop, scale=(1, 1), flip=0.5)
    crops = [draw_crop(HEIGHT, WIDTH, config, random) for _ in range(500)]
    assert {each.size for each in crops} == {(HEIGHT, WIDTH)}
    for side, near, far in ((HEIGHT, 1, 3), (WIDTH, 0, 2)):
        first, behind = ({each.source[index] for each in crops} for index in (near, far))
        assert first == set(range(max(0, side - crop) + 1))
        assert behind == {place + min(side, crop) for place in first}
    for side, near, far in ((HEIGHT, 0, 1), (WIDTH, 2, 3)):
        first, behind = ({each.box[index] for each in crops} for index in (near, far))
        assert first == set(range(max(0, crop - side) + 1))
        assert behind == {place + min(side, crop) for place in first}


def test_image_and_mask_are_scaled_alike(numbered: Dataset) -> None:
    """Ramps tell row and column of a rescaled pixel; the mask's number tells the same to half a pixel."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    record = numbered.records[0]
    Image.fromarray(np.stack([rows * 10, columns * 10, 0 * rows], axis=2).astype(np.uint8)).save(record.image)
    sizes = set()
    for item in views(numbered, crop=20, scale=[0.5, 3]):
        top, bottom, left, right = item["boxes"]
        image = item["images"].numpy()[:, top:bottom, left:right] / 10.0
        number = item["masks"].numpy()[top:bottom, left:right] - 1
        assert np.abs(image[0] - number // WIDTH).max() <= 0.76
        assert np.abs(image[1] - number % WIDTH).max() <= 0.76
        sizes.add((bottom - top, right - left))
    assert len(sizes) > 10


def test_the_range_and_the_kind_of_scaling() -> None:
    def sizes(**config: object) -> list[tuple[int, int]]:
        random, settings = np.random.default_rng(0), ViewsConfig.model_validate({"crop": 8, **config})
        return [draw_crop(40, 20, settings, random).size for _ in range(400)]

    heights = [height for height, _ in sizes(scale=[0.5, 2])]
    assert (min(heights), max(heights)) == (20, 80)
    assert set(sizes(resize_long=[10, 12])) == {(10, 5), (11, 6), (12, 6)}
    assert all(width == round(height / 2) or abs(2 * width - height) <= 1 for height, width in sizes(scale=[0.5, 2]))
    assert set(sizes(scale=[0.001, 0.001])) == {(1, 1)}
    squashed = draw_crop(40, 20, ViewsConfig(crop=8, squash=True, flip=1), np.random.default_rng(0))
    assert squashed == type(squashed)((8, 8), (0, 0, 8, 8), (0, 8, 0, 8), True)


def test_how_often_the_image_is_flipped() -> None:
    for flip, squash in ((0.2, False), (0.2, True), (0.9, False)):
        random, config = np.random.default_rng(0), ViewsConfig(crop=8, flip=flip, squash=squash)
        flipped = [draw_crop(10, 10, config, random).flip for _ in range(1000)]
        assert np.mean(flipped) == pytest.approx(flip, abs=0.05)


def test_padding_of_the_mean_colour(numbered: Dataset) -> None:
    assert TrainingViews(numbered, ViewsConfig(padding="mean"), 0).padding == (0, 0, 0)
    for padding, colour in (("mean", [51, 102, 154]), ("black", [0, 0, 0])):
        item = next(views(numbered, crop=16, padding=padding, mean=(0.2, 0.4, 0.603)))
        beside = item["masks"] == IGNORE
        assert beside.any()
        assert (item["images"][:, beside] == torch.tensor(colour)[:, None]).all()


def test_the_strong_view_shows_the_crop_or_its_flip(numbered: Dataset) -> None:
    """Greys survive every change of colour but blur; so views that are not blurred are equal to the bit."""
    same = {False: 0, True: 0}
    for item in views(numbered, contrast=True, crop=12, flip=0.5):
        strong, image, flipped = item["strong"], item["images"], item["flipped"]
        assert strong.shape == image.shape == item["weak"].shape
        if torch.equal(strong, image.flip(-1) if flipped else image):
            same[flipped] += 1
        assert not torch.equal(strong, image if flipped else image.flip(-1))
    assert min(same.values()) >= 5


def drawn(view, image: Image.Image, config: ViewsConfig, count: int = 400) -> list[np.ndarray]:
    """`count` views of an image, always the same ones."""
    results = (view(image, config, np.random.default_rng(seed)) for seed in range(count))
    return [np.asarray(result[0] if isinstance(result, tuple) else result).astype(int) for result in results]


STILL = ViewsConfig(crop=32, jitter=(0, 0, 0, 0), weak_area=(0.4, 0.8))


def places(config: ViewsConfig, count: int = 400) -> Iterator[tuple[float, float, float, float, bool]]:
    """Left, top, width, height of the weak view in a picture of 120 x 100, read off ramps, and whether it is flipped.

    Ramps stay below 128, where solarisation begins.
    """
    y, x = np.mgrid[:100, :120]
    ramps = (drawn(weak_view, grey(ramp), config, count) for ramp in (x, y))
    for across, down in zip(*ramps, strict=True):
        # Away from the rims, where blur and bicubic filter flatten the ramp.
        width = (across[16, 27] - across[16, 4]) / 23 * 32
        height = (down[27, 16] - down[4, 16]) / 23 * 32
        middle = (across[16, 15] + across[16, 16] + 1) / 2
        centre = (down[15, 16] + down[16, 16] + 1) / 2
        yield middle - abs(width) / 2, centre - height / 2, abs(width), height, width < 0


def test_the_weak_view_is_a_part_of_the_image_of_the_area_and_shape_asked_for() -> None:
    left, top, width, height, flipped = (np.array(values) for values in zip(*places(STILL), strict=True))
    area, ratio = width * height / 12000, width / height
    assert left.min() == pytest.approx(0, abs=3)
    assert top.min() == pytest.approx(0, abs=3)
    assert (left + width).max() == pytest.approx(120, abs=3)
    assert (top + height).max() == pytest.approx(100, abs=3)
    assert (left.min(), top.min()) > (-3, -3)
    assert area.min() == pytest.approx(0.4, abs=0.04)
    assert area.max() == pytest.approx(0.8, abs=0.05)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.06)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.09)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.05)
    assert flipped.mean() == pytest.approx(0.5, abs=0.08)


def test_the_weak_view_is_the_whole_image_where_no_part_fits() -> None:
    """An area of all of a long image has no part of the right shape."""
    x = np.arange(120)[None].repeat(20, axis=0)
    config = STILL.model_copy(update={"weak_area": (1.0, 1.0)})
    for view in drawn(weak_view, grey(x), config, 20):
        assert abs(view[16, 27] - view[16, 4]) / 23 * 32 == pytest.approx(120, abs=5)


def test_a_part_may_be_as_high_as_the_image() -> None:
    y, x = np.mgrid[:6, :40]
    config = STILL.model_copy(update={"weak_area": (0.15, 0.15)})  # 36 pixels: a square of 6 and what is near it
    found = set()
    for across, down in zip(*(drawn(weak_view, grey(ramp), config, 60) for ramp in (x * 3, y * 20)), strict=True):
        width, height = abs(across[16, 20] - across[16, 11])[0] / 27 * 32, (down[20, 16] - down[11, 16])[0] / 180 * 32
        found.add((round(height), width < 20))
    assert (6, True) in found  # not only as the whole image, which stands in where no part fits


def test_parts_of_less_than_a_pixel_are_not_taken() -> None:
    picture = grey(np.full((6, 6), 90))
    for seed in range(20):
        config = STILL.model_copy(update={"weak_area": (0.001, 0.012)})
        assert weak_view(picture, config, np.random.default_rng(seed)).size == (32, 32)


def test_how_often_weak_views_are_solarised_and_grey() -> None:
    white = drawn(weak_view, grey(np.full((20, 20), 255)), STILL)
    assert np.mean([not view.any() for view in white]) == pytest.approx(0.2, abs=0.06)
    colour = Image.new("RGB", (20, 20), (90, 30, 60))
    for view in (weak_view, strong_view):
        greys = [np.ptp(each[10, 10]) == 0 for each in drawn(view, colour, STILL)]
        assert np.mean(greys) == pytest.approx(0.2, abs=0.06)


def test_how_often_and_how_far_views_are_blurred() -> None:
    edge = grey(np.where(np.arange(32) < 16, 20, 120)[None].repeat(32, axis=0))
    config = STILL.model_copy(update={"weak_area": (1.0, 1.0)})
    for view, often in ((weak_view, 0.1), (strong_view, 0.5)):
        between = [((row > 22) & (row < 118)).sum() for row in (each[16, :, 0] for each in drawn(view, edge, config))]
        assert np.mean(np.array(between) > 1) == pytest.approx(often, abs=0.06)
    assert 5 <= max(between) <= 10  # two pixels of standard deviation
    assert {1, 2} & set(between)  # hardly any
    assert np.mean([flip for _, flip in (strong_view(edge, config, np.random.default_rng(n)) for n in range(400))]) == (
        pytest.approx(0.5, abs=0.07)
    )


def jittered(colour: tuple[int, int, int], *amounts: float) -> np.ndarray:
    """(n, 3) colours of the left half of a picture in two colours, as strong views show them; greys are left out."""
    values = np.full((32, 32, 3), 100, np.uint8)
    values[:] = colour
    values[:, 16:] = 100
    config = STILL.model_copy(update={"jitter": amounts})
    results = []
    for seed in range(400):
        view, flip = strong_view(Image.fromarray(values), config, np.random.default_rng(seed))
        pixel = np.asarray(view).astype(float)[16, 28 if flip else 3]
        if np.ptp(pixel) or not np.ptp(colour):
            results.append(pixel)
    return np.array(results)


def test_brightness_is_drawn_from_its_range_for_four_views_in_five() -> None:
    shades = jittered((100, 100, 100), 0.4, 0, 0, 0)[:, 0]
    assert shades.min() == pytest.approx(60, abs=2)
    assert shades.max() == pytest.approx(140, abs=2)
    assert np.mean(shades == 100) == pytest.approx(0.2, abs=0.07)


def test_contrast_stretches_about_the_mean() -> None:
    shades = jittered((200, 200, 200), 0, 0.4, 0, 0)[:, 0]  # the mean is 150
    assert shades.min() == pytest.approx(180, abs=2)
    assert shades.max() == pytest.approx(220, abs=2)


def test_saturation_stretches_about_the_grey() -> None:
    colours = jittered((160, 100, 100), 0, 0, 0.4, 0)
    spread = colours[:, 0] - colours[:, 1]
    assert spread.min() == pytest.approx(36, abs=3)
    assert spread.max() == pytest.approx(84, abs=3)
    assert colours.mean(axis=0) == pytest.approx([160, 100, 100], abs=3)


def test_hue_is_turned_either_way_within_its_range() -> None:
    turned = []
    for red, green, blue in jittered((160, 100, 100), 0, 0, 0, 0.1):
        # The hue of a reddish colour in turns: towards yellow where green is above blue, towards purple below.
        turned.append((green - blue) / (max(red, green, blue) - min(red, green, blue)) / 6)
    assert min(turned) == pytest.approx(-0.1, abs=0.015)
    assert max(turned) == pytest.approx(0.1, abs=0.015)
    assert np.mean(turned) == pytest.approx(0, abs=0.02)


def test_colours_of_the_training_image_itself_change_where_asked(numbered: Dataset) -> None:
    still, moved = (
        [int(item["images"].max()) for item in views(numbered, crop=16, colours=colours)]
        for colours in (None, [0.4, 0, 0, 0])
    )
    assert set(still) == {140}
    assert len(set(moved)) > 10
    assert 84 <= min(moved) < 112 < 168 < max(moved) <= 196


def test_take_crop_resamples_only_what_it_keeps() -> None:
    picture = grey(np.arange(40)[None].repeat(20, axis=0) * 6)
    crop = draw_crop(20, 40, ViewsConfig(crop=30, scale=(2, 2), flip=0), np.random.default_rng(4))
    taken = np.asarray(take_crop(picture, crop, 30, Image.Resampling.BILINEAR, (0, 0, 0)))[..., 0].astype(float)
    whole = np.asarray(picture.resize((80, 40), Image.Resampling.BILINEAR))[..., 0].astype(float)
    left, top, right, bottom = crop.source
    assert np.abs(taken - whole[top:bottom, left:right])[:, 1:-1].max() <= 1.0
    assert math.isclose(crop.size[0] / 20, 2)
