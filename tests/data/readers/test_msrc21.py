"""The two tasks on real photographs, as their description counts them."""

import numpy as np

from tagmask.data.images import image_size
from tagmask.data.readers import read_dataset
from tests.data.trees import shared_data

THINGS = [
    *("cow", "sheep", "aeroplane", "face", "car", "bicycle", "flower", "sign", "bird", "book"),
    *("chair", "cat", "dog", "body", "boat"),
]
ALL_COUNTS = [150, 242, 144, 45, 35, 160, 30, 79, 60, 46, 32, 35, 34, 38, 35, 32, 161, 24, 30, 67, 33]


def test_21_classes_without_background():
    dataset = read_dataset(shared_data("msrc21"), background=False)
    assert {split: len(dataset.split(split)) for split in dataset.splits} == {"test": 256, "train": 276, "val": 59}
    assert dataset.tag_matrix().sum(0).tolist() == ALL_COUNTS
    assert dataset.skipped == ()
    for record in dataset.records[:10]:
        width, height = image_size(record.image)
        ids = set(np.unique(record.mask.load(height, width))) - {255}
        assert ids == {tag + 1 for tag in record.tags}


def test_things_with_background():
    folder = shared_data("msrc21")
    whole = read_dataset(folder, background=False)
    things = read_dataset(folder, classes=THINGS, untagged="negative")
    assert len(things) == 591
    kept = [whole.classes.index(name) for name in THINGS]
    np.testing.assert_array_equal(things.tag_matrix(), whole.tag_matrix()[:, kept])
    skipping = read_dataset(folder, classes=THINGS)
    assert {split: len(skipping.split(split)) for split in skipping.splits} == {"test": 217, "train": 231, "val": 46}
    assert len(skipping.skipped) == 97
    cow = next(record for record in skipping.records if record.tags == (0,))
    width, height = image_size(cow.image)
    assert set(np.unique(cow.mask.load(height, width))) - {255} == {0, 1}
