"""The stream of training images: order, resuming, processes, images that do not open, and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.dataset import Dataset, Record
from tagmask.data.views import BatchPositions, TrainingViews, collate, training_loader
from tagmask.errors import TagmaskError
from tagmask.recipes.load import ViewsConfig

COUNT = 6
CONFIG = ViewsConfig(crop=8, scale=(1, 1), flip=0.5)


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """Six pictures, each in one grey of its own: 10, 20, ..., 60."""
    records = []
    for number in range(COUNT):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (10 * number + 10,) * 3).save(path)
        records.append(Record(str(number), path, (number % 3,), ((number + 1) % 3,) if number else ()))
    return Dataset(tuple(records), ("a", "b", "c"))


def test_every_epoch_is_another_order_of_all_images(pictures: Dataset) -> None:
    views = TrainingViews(pictures, CONFIG, 3)
    epochs = [[views.index(COUNT * epoch + place) for place in range(COUNT)] for epoch in range(8)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5
    jumping = TrainingViews(pictures, CONFIG, 3)
    for position in (40, 3, 17, 41, 0):
        assert jumping.index(position) == epochs[position // COUNT][position % COUNT]
    assert [TrainingViews(pictures, CONFIG, 4).index(place) for place in range(COUNT)] != epochs[0]


def test_an_item_is_a_function_of_seed_and_position(pictures: Dataset) -> None:
    config = CONFIG.model_copy(update={"scale": (0.5, 2.0)})
    first, again, other = (TrainingViews(pictures, config, seed, contrast=True) for seed in (3, 3, 4))
    items = [first[position] for position in range(12)]
    for position in (11, 4, 0):
        for name in ("images", "weak", "strong"):
            assert torch.equal(again[position][name], items[position][name])  # pyright: ignore
        assert again[position]["boxes"] == items[position]["boxes"]
    assert [other[position]["boxes"] for position in range(12)] != [item["boxes"] for item in items]
    boxes = {item["boxes"] for item in items if item["index"] == items[0]["index"]}
    assert len(boxes) == 2  # the same image twice, seen twice


def test_tags_and_what_nobody_knows(pictures: Dataset) -> None:
    views = TrainingViews(pictures, CONFIG, 3)
    for position in range(COUNT):
        item = views[position]
        number = views.index(position)
        assert item["index"] == number
        assert item["images"].dtype == torch.uint8  # pyright: ignore
        assert (item["images"] == 10 * number + 10).all()  # pyright: ignore
        for name, off in (("tags", None), ("known", (number + 1) % 3 if number else None)):
            vector = item[name]
            assert vector.dtype == np.float32  # pyright: ignore
            bare = [int(place == number % 3) for place in range(3)] if name == "tags" else [1, 1, 1]
            assert vector.tolist() == [0 if place == off else value for place, value in enumerate(bare)]  # pyright: ignore
        assert item["bad"] == ()
        assert set(item) == {"images", "boxes", "index", "tags", "known", "bad"}


def test_the_next_image_that_opens_stands_in(pictures: Dataset) -> None:
    views = TrainingViews(pictures, CONFIG, 3)
    order = [views.index(place) for place in range(2 * COUNT)]
    for place in (1, 2):
        pictures.records[order[place]].image.write_bytes(b"no picture")
    item = views[1]
    assert item["index"] == order[3]
    assert [f"{order[place]}.png" in message for place, message in zip((1, 2), item["bad"], strict=True)] == [True] * 2  # pyright: ignore
    assert views[3]["index"] == order[3]
    assert views[3]["bad"] == ()
    for record in pictures.records:
        record.image.write_bytes(b"no picture")
    with pytest.raises(TagmaskError, match=rf"none of the 6 training images opens; the first: .*{order[0]}\.png"):
        views[0]


def test_positions_of_processes_part_the_batches_of_one() -> None:
    assert list(BatchPositions(4, 2, 5)) == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert len(BatchPositions(4, 2, 5)) == 3
    assert list(BatchPositions(4, 1, 3, rank=0, processes=2)) == [[4, 5], [8, 9]]
    assert list(BatchPositions(4, 1, 3, rank=1, processes=2)) == [[6, 7], [10, 11]]


@pytest.mark.parametrize("contrast", [True, False])
def test_items_are_stacked_to_a_batch(pictures: Dataset, contrast: bool) -> None:
    views = TrainingViews(pictures, CONFIG, 3, contrast=contrast)
    items = [views[position] for position in range(3)]
    items[1]["bad"] = ("one is broken",)
    batch = collate(items)
    for name in ("images", "weak", "strong"):
        stacked = getattr(batch, name)
        if name != "images" and not contrast:
            assert stacked is None
            continue
        assert stacked.shape == (3, 3, 8, 8)
        assert stacked.dtype == torch.uint8
        for own, item in zip(stacked, items, strict=True):
            assert torch.equal(own, item[name])  # pyright: ignore
    assert batch.tags.tolist() == [item["tags"].tolist() for item in items]  # pyright: ignore
    assert batch.known.tolist() == [item["known"].tolist() for item in items]  # pyright: ignore
    assert batch.boxes.tolist() == [list(item["boxes"]) for item in items]  # pyright: ignore
    assert batch.indices.tolist() == [item["index"] for item in items]
    assert batch.masks is None
    assert batch.bad == ("one is broken",)
    assert batch.most_tags == 1
    assert contrast == (batch.strong_flipped is not None)
    if contrast:
        assert batch.strong_flipped.tolist() == [item["flipped"] for item in items]  # pyright: ignore
    items[0]["tags"] = np.ones(3, np.float32)
    assert collate(items).most_tags == 3
    for item in items:
        item["tags"] = np.zeros(3, np.float32)
    assert collate(items).most_tags == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_the_batches_in_order_and_draws_nothing_for_itself(pictures: Dataset, workers: int) -> None:
    views = TrainingViews(pictures, CONFIG, 3)
    loader = training_loader(views, BatchPositions(2, 1, 4), workers)
    before = torch.random.get_rng_state()
    batches = list(loader)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(batches) == len(loader) == 3
    assert [batch.indices.tolist() for batch in batches] == [
        [views.index(2 * step), views.index(2 * step + 1)] for step in (1, 2, 3)
    ]
    assert (loader.num_workers, loader.pin_memory) == (workers, False)
    assert loader.prefetch_factor == (4 if workers else None)
    assert training_loader(views, BatchPositions(2, 1, 4), 0, pin=True).pin_memory


def test_images_come_as_listed_where_the_recipe_says_so(pictures: Dataset) -> None:
    views = TrainingViews(pictures, CONFIG, 3, order="listed")
    assert [views.index(position) for position in range(2 * COUNT)] == [*range(COUNT), *range(COUNT)]
    assert [views[position]["index"] for position in range(COUNT)] == list(range(COUNT))
