"""Classes that tags cannot teach are named, with the fraction of the images and the mend."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tagmask.data import untaught
from tagmask.data.dataset import Dataset, Record
from tagmask.data.untaught import (
    EVERYWHERE,
    FEW,
    TOGETHER,
    companions,
    everywhere,
    inseparable,
    scarce_classes,
    untaught_classes,
)
from tagmask.ops.label_ids import IGNORE, IGNORED_CLASS


def dataset(rows: list[tuple[int, ...]], classes: Sequence[str] = "abc", **more: object) -> Dataset:
    records = tuple(Record(f"{n}", Path(f"{n}.png"), tags) for n, tags in enumerate(rows))
    return Dataset(records, tuple(classes), **more)  # pyright: ignore


def test_a_class_of_more_than_nine_images_in_ten_is_named_with_its_fraction() -> None:
    found = untaught_classes(dataset([(0, 1)] * 30 + [(0, 2)] * 67 + [(1,)] * 3))
    assert [str(problem.where) for problem in found] == ["class 'a'"]
    assert "in 97 % of the images (all but 3)" in found[0].message
    assert "add images without it" in found[0].message


def test_one_class_in_every_image_is_named_but_is_not_learnt_last() -> None:
    alone = dataset([(0,)] * 20, "a")
    assert everywhere(alone) == ()
    found = untaught_classes(alone)
    assert [str(problem.where) for problem in found] == ["class 'a'"]
    assert "in 100 % of the images (all of them)" in found[0].message
    assert found[0].message.endswith("such as images with no tag, which count with data.untagged=negative")
    assert untaught_classes(dataset([(0,)] * 15 + [()] * 5, "a")) == []


@pytest.mark.parametrize(("without", "said"), [(0, "in 100 % of the images (all of them)"), (1, "99 %"), (9, "91 %")])
def test_all_is_said_where_it_is_all(without: int, said: str) -> None:
    rows = [(0, 1)] * 40 + [(0, 2)] * (60 - without) + [(2,)] * without
    assert said in untaught_classes(dataset(rows))[0].message


def test_nine_images_in_ten_are_not_too_many() -> None:
    rows = [(0, 1)] * 40 + [(0, 2)] * 50 + [(2,)] * 10
    assert everywhere(dataset(rows)) == ()
    assert untaught_classes(dataset(rows)) == []


def test_images_of_which_nobody_knows_do_not_count() -> None:
    rows = [Record(f"{n}", Path("x.png"), (0, n % 2 + 1)) for n in range(20)]
    unsure = [Record(f"u{n}", Path("x.png"), (1,), unknown=(0,)) for n in range(20)]
    assert everywhere(Dataset((*rows, *unsure), ("a", "b", "c"))) == (0,)


def dense(whole: Dataset, common: tuple[int, ...]) -> dict[tuple[int, int], tuple[int, int]]:
    """`inseparable` by a matrix of all pairs of classes."""
    borne = np.zeros((len(whole), len(whole.classes)), np.int64)
    for row, record in enumerate(whole.records):
        borne[row, list(record.tags)] = 1
    together, images = borne.T @ borne, borne.sum(axis=0)
    either = images[:, None] + images - together
    near = np.triu((together >= FEW) & (together >= TOGETHER * either), 1)
    pairs = [(first, second) for first, second in np.argwhere(near).tolist() if not {first, second} & {*common}]
    return {pair: (int(together[pair]), int(either[pair])) for pair in pairs}


@pytest.mark.parametrize("rows", [3, 512])
def test_pairs_are_those_of_the_matrix_of_all_pairs_in_its_order(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untaught, "ROWS", rows)
    random, found = np.random.default_rng(0), 0
    for _ in range(40):
        classes, images = random.integers(1, 30), random.integers(0, 120)
        groups = random.random((images, 5)) < random.random(5)
        tags = groups[:, random.integers(0, 5, classes)] ^ (random.random((images, classes)) < 0.03)
        given = dataset([tuple(np.flatnonzero(row).tolist()) for row in tags], [f"c{k}" for k in range(classes)])
        often = tuple(np.flatnonzero((tags.sum(0) >= FEW) & (tags.sum(0) > EVERYWHERE * images)).tolist())
        assert everywhere(given) == (often if classes > 1 else ())
        expected = dense(given, everywhere(given))
        assert list(inseparable(given).items()) == list(expected.items())
        said = [str(each.where) for each in untaught_classes(given)][len(everywhere(given)) :]
        assert said == [f"classes 'c{first}' and 'c{second}'" for first, second in expected]
        found += len(expected)
    assert found > 100


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([(0, 1)] * 20 + [(0,)] * 20, {0: (1,)}),  # a car (1) has the road (0) along, and half of the roads are empty
        ([(0, 1)] * 20 + [(0,)] * 10, {}),  # too few empty roads to know the road by
        ([(0, 1)] * 10 + [(1,)] * 10 + [(0,)] * 40, {0: (1,)}),  # in half of the images of cars
        ([(0, 1)] * 10 + [(1,)] * 11 + [(0,)] * 40, {}),  # in fewer
        ([(0, 1)] * 9 + [(0,)] * 20, {}),  # too few cars to say
        ([(0, 1)] * 10 + [(0, 2)] * 12 + [(0,)] * 10, {0: (1, 2)}),
    ],
)
def test_companions_come_along_and_are_seen_without_the_others(
    rows: list[tuple[int, ...]], found: dict[int, tuple[int, ...]]
) -> None:
    assert companions(dataset(rows)) == found


@pytest.mark.parametrize("rows", [3, 512])
def test_context_classes_are_companions_and_companions_are_many(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untaught, "ROWS", rows)
    records = [Record(f"{n}", Path("x.png"), (n % 20,), context=(0,)) for n in range(400)]
    names = [f"c{k}" for k in range(20)]
    assert companions(Dataset(tuple(records), tuple(names), context=("sea",))) == {20: tuple(range(20))}


def test_very_many_classes_need_no_matrix_of_all_pairs() -> None:
    names = [f"{k}" if k != IGNORE - 1 else IGNORED_CLASS for k in range(5000)]
    many = dataset([(n, n + 1, 4999) for n in range(200)] * 10, names)
    tracemalloc.start()
    try:
        assert untaught_classes(many)
        assert inseparable(many) == {}
        assert companions(many) == {1: (0,), 199: (200,), 4999: tuple(range(201))}
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5000 * 5000  # bytes, and the matrix would have eight for each pair


def test_context_classes_are_looked_at_too() -> None:
    records = tuple(Record(f"{n}", Path("x.png"), (n % 2,), context=(0,)) for n in range(20))
    assert everywhere(Dataset(records, ("a", "b"), context=("sky",))) == (2,)


def test_a_single_class_has_nothing_to_compete_with() -> None:
    assert everywhere(dataset([(0,)] * 50, "a")) == ()


def test_two_classes_that_only_come_together_are_named_once() -> None:
    found = untaught_classes(dataset([(0, 1)] * 33 + [(0,)] * 2 + [(1,)] * 2 + [(2,)] * 40))
    assert [str(problem.where) for problem in found] == ["classes 'a' and 'b'"]
    assert "together in 33 of the 37 images that bear either" in found[0].message


def test_a_class_that_also_comes_alone_can_be_told_from_its_companion() -> None:
    assert untaught_classes(dataset([(0, 1)] * 30 + [(1,)] * 30 + [(2,)] * 40)) == []


def test_two_classes_of_all_images_are_not_also_called_a_pair() -> None:
    found = untaught_classes(dataset([(0, 1)] * 50 + [(0, 1, 2)] * 50))
    assert [str(problem.where) for problem in found] == ["class 'a'", "class 'b'"]


def test_a_tag_that_a_record_names_twice_counts_once() -> None:
    twice = dataset([(0, 0, 1)] * 10 + [(1, 1)] * 20 + [(2,)] * 10)
    assert inseparable(twice) == {}
    assert everywhere(dataset([(0, 0)] * 10 + [(1,)] * 10)) == ()


def test_classes_of_few_images_are_named_in_one_sentence_the_scarcest_first() -> None:
    (found,) = scarce_classes(dataset([(0,)] * 40 + [(1,)] * (FEW - 1) + [(2,)] * 2, context=("d",)))
    assert found.where == "classes 'c' (in 2), 'b' (in 9)"
    assert found.message.startswith("in fewer than 10 images to learn from, so the model may never find them")
    (alone,) = scarce_classes(dataset([(0,)] * 40 + [(1,)], "ab"))
    assert str(alone).startswith("class 'b' (in 1): ")
    assert alone.message.endswith("add images of it, or leave it out (data.classes)")
    assert scarce_classes(dataset([(0,)] * FEW + [(1,)] * FEW, "ab")) == []


def test_a_class_that_no_training_image_bears_is_named_but_for_the_name_of_the_ignored_id() -> None:
    names = [f"{number}" for number in range(254)]
    (found,) = scarce_classes(dataset([tuple(range(253))] * 40, (*names, IGNORED_CLASS)))
    assert str(found).startswith("class '253' (in none): in fewer than 10 images to learn from")


def test_of_many_scarce_classes_eight_are_named() -> None:
    names = [f"class {number}" for number in range(20)]
    (found,) = scarce_classes(dataset([(number,) for number in range(20)], names))
    assert found.where.endswith("'class 7' (in 1), 12 more")
