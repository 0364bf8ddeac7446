"""How much of the photographs that are on their way to the network is in memory at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from PIL import Image

from tagmask.data.images import open_image
from tagmask.engine import inference, photographs
from tagmask.engine.inference import Item, stream
from tagmask.engine.photographs import Photograph, open_ahead
from tagmask.errors import TagmaskError
from tagmask.methods.registry import build_method
from tagmask.recipes.load import InferenceConfig
from tests.conftest import tiny_recipe

SIDE = 40
PIXELS = SIDE * SIDE


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.png" for number in range(12)]
    for number, path in enumerate(paths):
        Image.new("RGB", (SIDE, SIDE), (20 * number, 0, 0)).save(path)
    return paths


class Decoding:
    """Opens images slowly, and counts the pixels of those that are being opened."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, path: Path) -> Image.Image:
        image = open_image(path)
        with self.lock:
            self.now += image.width * image.height
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= image.width * image.height
        return image


@pytest.mark.parametrize(("limit", "most"), [(3 * PIXELS, 3 * PIXELS), (PIXELS // 2, PIXELS), (10**9, 4 * PIXELS)])
def test_pixels_being_decoded_are_bounded(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    """As many as the limit allows, one that is larger than the limit, and never more than there are threads."""
    decoding = Decoding()
    monkeypatch.setattr(photographs, "PIXELS_AHEAD", limit)
    monkeypatch.setattr(photographs, "open_image", decoding)
    opened = list(open_ahead(pictures, InferenceConfig(size=2), most=32))
    assert [int(own.pixels[0, 0, 0]) for own in opened if isinstance(own, Photograph)] == list(range(0, 240, 20))
    assert decoding.most == most


def test_photographs_that_are_ready_and_not_small_count_too(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []
    monkeypatch.setattr(photographs, "PIXELS_AHEAD", 4 * PIXELS)
    monkeypatch.setattr(photographs, "open_image", lambda path: (begun.append(path), open_image(path))[1])
    opened = open_ahead(pictures, InferenceConfig(size=None), most=32)
    for taken in (1, 2, 3):
        next(opened)
        time.sleep(0.1)  # enough for all twelve, if they were let
        assert len(begun) <= 3 + taken
    assert len(list(opened)) == 9
    assert sorted(begun) == pictures


def test_an_image_counts_whole_until_it_is_ready_and_nothing_where_it_does_not_open() -> None:
    small = Photograph.of(Image.new("RGB", (400, 200)), InferenceConfig(size=4))
    waiting: list[Future[Photograph | TagmaskError]] = [Future(), Future(), Future()]
    waiting[1].set_result(small)
    waiting[2].set_result(TagmaskError("no image"))
    assert [photographs._held([(PIXELS, each)]) for each in waiting] == [PIXELS, small.kept_pixels, 0]


def test_an_image_that_does_not_open_is_given_as_its_error(pictures: list[Path]) -> None:
    pictures[1].write_bytes(b"nothing")
    opened = list(open_ahead(pictures[:3], InferenceConfig(size=2), most=1))
    assert [type(own) for own in opened] == [Photograph, TagmaskError, Photograph]
    assert str(pictures[1]) in str(opened[1])


@pytest.mark.parametrize(("refine", "kept"), [("none", 16), ("crf", 16 + 10 * 5)])
def test_what_is_kept_is_small(refine: str, kept: int) -> None:
    config = InferenceConfig(size=4, longest=10, refine=refine)  # pyright: ignore[reportArgumentType]
    photograph = Photograph.of(Image.new("RGB", (400, 200)), config)
    assert photograph.size == (200, 400)
    assert photograph.kept_pixels == kept


def test_photographs_of_many_sizes_do_not_all_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 sizes would wait for seven more; what comes out is the same where they may not."""
    torch.manual_seed(0)
    method = build_method(tiny_recipe("cam"), 3).eval()
    items = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        Image.radial_gradient("L").resize((40 + 8 * number, 48)).convert("RGB").save(path)
        items.append(Item(str(number), path))
    config = InferenceConfig(size=None, scales=(1.0,))
    together = {done.item.name: done for done in stream(method, items, config)}
    monkeypatch.setattr(inference, "PIXELS_WAITING", 10_000)
    alone = list(stream(method, items, config))
    # The first four fill up the limit; those that come after go at once.
    assert [done.item.name for done in alone] == [str(number) for number in (*range(4, 20), *range(4))]
    for done in alone:
        assert (done.labels == together[done.item.name].labels).all()
