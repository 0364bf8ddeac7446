"""Which splits are learnt from and which are evaluated on where the recipe does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagmask import api
from tagmask.data.dataset import Dataset, Record
from tagmask.recipes.load import DataConfig


def dataset(*splits: str) -> Dataset:
    """A record of each split, named like it."""
    return Dataset(tuple(Record(name or "none", Path("x.png"), (0,), split=name) for name in splits), ("cat",))


def names(chosen: Dataset) -> list[str]:
    return [record.name for record in chosen.records]


@pytest.mark.parametrize(
    ("splits", "learnt", "evaluated"),
    [
        (("test", "train", "val"), ["train"], ["val"]),
        (("test", "train"), ["train"], ["test"]),
        (("train", "valid"), ["train"], ["valid"]),
        (("Test", "train2017", "val2017"), ["train2017"], ["val2017"]),
        (("", "val"), ["none"], ["val"]),
        (("train",), ["train"], []),
        (("val",), ["val"], []),
        (("test", "val"), ["test", "val"], []),
        (("left", "right"), ["left", "right"], []),
    ],
)
def test_usual_names(splits: tuple[str, ...], learnt: list[str], evaluated: list[str]) -> None:
    data, config = dataset(*splits), DataConfig()
    assert names(api.training_split(data, config)) == learnt
    assert names(api.evaluation_split(data, config)) == evaluated
    assert names(api.to_evaluate(data, config, None)) == (evaluated or names(data))


def test_the_recipe_says_otherwise() -> None:
    data = dataset("test", "train", "val")
    config = DataConfig(evaluate=("train",))
    assert names(api.training_split(dataset("fold1", "fold2"), DataConfig(evaluate=("fold2",)))) == ["fold1"]
    assert names(api.evaluation_split(data, config)) == ["train"]
    assert names(api.training_split(data, DataConfig(train=("train", "val")))) == ["train", "val"]
    assert names(api.to_evaluate(data, config, ["test"])) == ["test"]


def test_nothing_of_a_held_out_split_is_learnt_by_another_name() -> None:
    records = tuple(Record(name, Path("x.png"), (0,)) for name in "abc")
    groups = {"train": frozenset("a"), "trainval": frozenset("ab"), "val": frozenset("b"), "test": frozenset("c")}
    data = Dataset(records, ("cat",), groups=groups)
    assert names(api.training_split(data, DataConfig())) == ["a"]
    assert names(api.evaluation_split(data, DataConfig())) == ["b"]
