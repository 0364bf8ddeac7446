"""Class balance: how often images of rare classes come, and whose pixels are pasted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.balance import Donors, balanced_epoch, repeat_factors
from tagmask.data.dataset import Dataset, Record
from tagmask.data.views import TrainingViews
from tagmask.recipes.load import ViewsConfig

CLASSES = ("cat", "cow", "newt", "yak")


def tagged(*tags: tuple[int, ...]) -> Dataset:
    records = tuple(Record(f"{number}", Path(f"{number}.png"), each) for number, each in enumerate(tags))
    return Dataset(records, CLASSES)


@pytest.fixture
def long_tail() -> Dataset:
    """16 images of a cat, 4 of a cow, 1 of a newt beside a cat, none of a yak."""
    return tagged(*[(0,)] * 15, *[(1,)] * 4, (0, 2), ())


def test_an_image_has_the_factor_of_its_rarest_class(long_tail: Dataset) -> None:
    factors = repeat_factors(long_tail)  # the median class is the cow
    assert factors[:19].tolist() == [1.0] * 19
    assert factors[19:].tolist() == [2.0, 1.0]


def test_classes_of_equal_number_change_nothing() -> None:
    assert repeat_factors(tagged((0,), (1,), (2,), (3,))).tolist() == [1.0] * 4
    assert repeat_factors(tagged((), ())).tolist() == [1.0] * 2


@given(st.lists(st.floats(1.0, 9.0), min_size=1, max_size=40), st.integers(0, 9))
def test_an_epoch_has_each_image_as_often_as_its_share(factors: list[float], seed: int) -> None:
    epoch = balanced_epoch(np.array(factors), np.random.default_rng(seed))
    assert len(epoch) == len(factors)
    share = np.array(factors) * len(factors) / sum(factors)
    counts = np.bincount(epoch, minlength=len(factors))
    assert (np.abs(counts - share) < 1 + 1e-6).all()


def test_over_many_epochs_the_shares_are_met() -> None:
    factors = np.array([1.0, 1.0, 1.0, 2.5])
    counts = sum(np.bincount(balanced_epoch(factors, np.random.default_rng(n)), minlength=4) for n in range(2000))
    assert np.asarray(counts) / 2000 == pytest.approx(factors * 4 / factors.sum(), abs=0.04)


def test_views_come_balanced_and_the_same_in_every_run(long_tail: Dataset) -> None:
    config = ViewsConfig(crop=8)
    first, again = (TrainingViews(long_tail, config, 5, order="balanced") for _ in range(2))
    drawn = [first.index(place) for place in range(40 * len(long_tail))]
    assert [again.index(place) for place in reversed(range(40 * len(long_tail)))] == drawn[::-1]
    assert Counter(drawn)[19] == pytest.approx(40 * len(long_tail) * 2 / 22, abs=3)


def test_every_class_gives_equally_often(long_tail: Dataset) -> None:
    donors, random = Donors(long_tail, balanced=True), np.random.default_rng(0)
    drawn = [donors.draw(random) for _ in range(3000)]
    for index, label in drawn:
        assert label is not None
        assert label - 1 in long_tail.records[index].tags
    for label in (1, 2, 3):
        assert sum(each == label for _, each in drawn) == pytest.approx(1000, abs=100)
    assert {index for index, label in drawn if label == 1} == {*range(15), 19}


def test_else_every_image_gives_equally_often(long_tail: Dataset) -> None:
    donors, random = Donors(long_tail, balanced=False), np.random.default_rng(0)
    drawn = Counter(donors.draw(random) for _ in range(2100))
    assert set(drawn) == {(index, None) for index in range(21)}
    assert max(drawn.values()) < 150
    assert min(drawn.values()) > 60


def test_without_a_tag_anywhere_any_image_is_drawn() -> None:
    donors = Donors(tagged((), ()), balanced=True)
    assert {donors.draw(np.random.default_rng(n)) for n in range(20)} == {(0, None), (1, None)}
