"""Large images tile by tile: no seams, no more memory than a row of tiles takes."""

import resource
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.rasters import Picture, Raster, open_raster
from tagmask.data.synthetic.contexts import cloud_noise
from tagmask.engine import inference
from tagmask.engine.inference import Item, predict_pictures, stream
from tagmask.engine.tiles import MARGIN, OVERLAP, label_tiles, spans, weights
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig

CLASSES = 5


class Backbone(torch.nn.Module):
    def normalise(self, images: Tensor) -> Tensor:
        return images - 0.5


class Convolutions(Method):
    """A network of convolutions with fixed random weights, which sees 46 pixels and gives a score to 8 x 8."""

    has_decoder = True

    def __init__(self) -> None:
        network = torch.nn.Module()
        network.backbone = Backbone()
        generator = torch.Generator().manual_seed(0)
        channels = (3, 16, 16, CLASSES + 1)
        for number, (before, after) in enumerate(pairwise(channels)):
            layer = torch.nn.Conv2d(before, after, 4, 2, padding=1)
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / before**0.5
            layer.bias.data.zero_()
            network.add_module(f"layer{number}", layer)
        super().__init__(network, CLASSES, True)
        self.sizes: list[tuple[int, ...]] = []

    def scores(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        for number in range(3):
            images = getattr(self.network, f"layer{number}")(F.relu(images) if number else images)
        return images


def landscape(width: int, height: int) -> Image.Image:
    """Make a large picture with shapes of all sizes."""
    generator = np.random.default_rng(0)
    side = max(width, height)
    planes = [cloud_noise(generator, side, 40) for _ in range(3)]
    return Image.fromarray((255 * np.stack(planes, axis=-1)[:height, :width]).astype(np.uint8))


@pytest.mark.parametrize("size", [(1408, 1104), (1104, 1408), (1504, 200)])
def test_tiles_give_what_the_whole_image_gives(size: tuple[int, int]) -> None:
    method, picture = Convolutions().eval(), landscape(*size)
    whole = InferenceConfig(size=None, flip=False)
    (expected,) = predict_pictures(method, [picture], None, whole)
    assert len(np.unique(expected.labels)) > 3
    method.sizes.clear()
    (found,) = predict_pictures(method, [picture], None, whole.model_copy(update={"tile": 256}))
    assert max(max(sizes[2:]) for sizes in method.sizes) == 256
    assert len(method.sizes) > 5
    inside = np.s_[32:-32, 32:-32]
    assert found.labels.shape == size[::-1]
    assert (found.labels == expected.labels)[inside].mean() >= 0.999
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-2)


def test_tags_and_refinement_hold_in_tiles() -> None:
    method, picture = Convolutions().eval(), landscape(500, 400)
    for refine in ("none", "par"):
        config = InferenceConfig(size=None, flip=False, refine=refine, tile=256)  # pyright: ignore[reportArgumentType]
        (found,) = predict_pictures(method, [picture], (1, 3), config)
        assert set(np.unique(found.labels)) <= {0, 2, 4}
        assert 0 < found.confidence <= 1
        assert found.scores.shape[0] == CLASSES + 1
        assert set(found.scores.argmax(dim=0).unique().tolist()) <= {0, 2, 4}
        # Refined, scores are logarithms of fractions; else they are logits.
        fractions = found.scores.exp() if refine == "par" else found.scores.softmax(dim=0)
        torch.testing.assert_close(fractions.sum(dim=0), torch.ones(400, 500), rtol=0, atol=1e-3)
        assert found.confidence == pytest.approx(float(fractions.amax(dim=0).mean()), abs=1e-3)


def test_without_tag_and_background_nothing_wins() -> None:
    method = Convolutions().eval()
    method.background = False
    config = InferenceConfig(size=None, flip=False, tile=256)
    (found,) = predict_pictures(method, [landscape(500, 400)], (), config)
    assert (found.labels == 255).all()
    assert found.labels.shape == (400, 500)


def test_scores_of_tiles_are_small_and_in_their_place() -> None:
    method, picture = Convolutions().eval(), landscape(896, 304)
    config = InferenceConfig(size=None, flip=False, tile=256, longest=90)
    (found,) = predict_pictures(method, [picture], None, config)
    assert found.scores.shape == (CLASSES + 1, 31, 90)
    (whole,) = predict_pictures(method, [picture], None, config.model_copy(update={"tile": None}))
    expected = F.interpolate(whole.scores[None], (31, 90), mode="area")[0]
    assert (found.scores - expected)[:, 4:-4, 4:-4].abs().mean() < 0.15 * expected.std()


def test_only_larger_images_are_cut_and_cams_never(tmp_path: Path) -> None:
    for name, side in (("small", 200), ("large", 500)):
        landscape(side, 200).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    items = [Item(name, tmp_path / f"{name}.png", (0,)) for name in ("large", "small", "broken")]
    method, told = Convolutions().eval(), []
    config = InferenceConfig(size=None, flip=False, tile=256)
    found = list(stream(method, items, config, on_error=lambda item, _: told.append(item.name)))
    assert [(each.item.name, each.labels.shape) for each in found] == [("small", (200, 200)), ("large", (200, 500))]
    assert told == ["broken"]
    with pytest.raises(TagmaskError, match=r"broken\.png"):
        list(stream(method, items, config))
    with pytest.raises(TagmaskError, match="no class activation maps"):  # asked for the whole image
        list(stream(method, items[:1], config, source="cam"))


def test_images_are_opened_at_the_resolution_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landscape(300, 200).save(tmp_path / "a.png")
    asked: list[float | None] = []

    def noted(path: Path, microns: float | None) -> AbstractContextManager[Raster]:
        asked.append(microns)
        return open_raster(path, microns)

    monkeypatch.setattr(inference, "open_raster", noted)
    for microns in (0.5, None):
        config = InferenceConfig(size=None, flip=False, tile=256, microns=microns)
        assert len(list(stream(Convolutions().eval(), [Item("a", tmp_path / "a.png")], config))) == 1
    assert asked == [0.5, None]


@pytest.mark.parametrize(("length", "tile"), [(100, 256), (256, 256), (257, 256), (1000, 256), (1003, 448), (5000, 64)])
def test_every_pixel_counts_once(length: int, tile: int) -> None:
    parts = spans(length, tile)
    assert all(start % 32 == 0 and end - start <= tile for start, end in parts)
    assert all(end - start > tile - 32 for start, end in parts) or len(parts) == 1
    total = torch.zeros(length)
    for (start, end), own in zip(parts, weights(parts, length, tile), strict=True):
        total[start:end] += own
    assert torch.allclose(total, torch.ones(length))
    if len(parts) > 1:  # what sees the end of a tile hardly counts
        assert weights(parts, length, tile)[0][-int(tile * OVERLAP * MARGIN) :].max() < 1e-3


class Endless:
    """An image that nobody could hold."""

    def __init__(self, width: int, height: int) -> None:
        self.size, self.largest = (width, height), 0

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        left, top, right, bottom = box
        self.largest = max(self.largest, (right - left) * (bottom - top))
        return Image.new("RGB", (right - left, bottom - top))


@pytest.mark.parametrize("upright", [True, False])
def test_memory_does_not_grow_with_the_image(upright: bool) -> None:
    size = (300, 60_000) if upright else (60_000, 300)
    raster = Endless(*size)

    def score(pictures: Sequence[Image.Image]) -> list[Tensor]:
        assert len(pictures) <= 4
        planes = torch.zeros(21, 8, 8)
        planes[7] = 1
        return [planes] * len(pictures)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = label_tiles(raster, score, tile=256, longest=1024, batch=4)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (done.labels == 7).all()
    assert done.labels.shape == size[::-1]
    assert max(done.planes.shape[1:]) == 1024
    assert raster.largest <= 256**2
    assert grown < 250_000, "kilobytes; all planes of the image would take 1,500,000"


def test_a_picture_is_read_by_its_box() -> None:
    picture = landscape(70, 50)
    part = np.asarray(Picture(picture).read((10, 20, 40, 50)))
    assert np.array_equal(part, np.asarray(picture)[20:50, 10:40])
