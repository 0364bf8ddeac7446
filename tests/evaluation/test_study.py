from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tagmask import api
from tagmask.data.dataset import Dataset, Record
from tagmask.data.masks import PngMask
from tagmask.engine.inference import Item, Prediction
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.method import Compared
from tagmask.evaluation.study import (
    ImageFacts,
    by_quality,
    image_quality,
    least_certain,
    of_each_class,
    stray_pixels,
    study,
    tag_agreement,
)


def facts(
    name: str, *, tags: tuple[int, ...] = (), found: tuple[int, ...] = (), unknown: tuple[int, ...] = (), **rest: float
) -> ImageFacts:
    record = Record(name, Path(name), tags, unknown)
    return ImageFacts(record, frozenset(found), rest.get("confidence", 0.5), rest.get("quality"))


def test_tag_agreement_counts_both_ways_and_leaves_out_unknown() -> None:
    agreement = tag_agreement(
        [
            facts("a", tags=(0, 1), found=(0, 1)),
            facts("b", tags=(0,), found=(1,)),
            facts("c", tags=(0,), found=(0, 2), unknown=(2,)),
            facts("d"),
        ],
        3,
    )
    assert agreement.exact == 0.75
    assert agreement.strays == 0.25
    assert agreement.tagged.tolist() == [3, 1, 0]
    assert agreement.hits.tolist() == [2, 1, 0]
    assert agreement.extra.tolist() == [0, 1, 0]


def test_quality_and_stray_pixels_of_one_image() -> None:
    matrix = ConfusionMatrix(3)
    ground_truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    matrix.add(ground_truth, np.array([[0, 2, 1, 3, 3]], np.uint8))
    assert image_quality(matrix) == pytest.approx((1 / 2 + 1 / 2 + 0 + 0) / 4)
    assert stray_pixels(matrix, Record("a", Path("a"), (0,))).tolist() == [0, 1, 1]
    assert stray_pixels(matrix, Record("a", Path("a"), (0,), unknown=(2,))).tolist() == [0, 1, 0]
    assert image_quality(ConfusionMatrix(3)) is None


@pytest.mark.parametrize(("images", "groups"), [(0, {}), (1, {"Best": [0]}), (2, {"Typical": [1], "Best": [0]})])
def test_few_images_stand_in_one_group_each(images: int, groups: dict[str, list[int]]) -> None:
    ranked = [facts(str(place), quality=1 - place / 10) for place in range(images)]
    assert {name: [int(one.record.name) for one in group] for name, group in by_quality(ranked, 3).items()} == groups


def test_groups_are_typical_best_worst() -> None:
    ranked = [facts(str(place), quality=1 - place / 10) for place in (3, 0, 4, 1, 2, 5, 6)]
    found = by_quality([*ranked, facts("none")], 2)
    assert {name: [int(one.record.name) for one in group] for name, group in found.items()} == {
        "Typical": [2, 3],
        "Best": [0, 1],
        "Worst": [6, 5],
    }


def test_without_ground_truth_groups_are_by_confidence() -> None:
    images = [facts(str(place), confidence=place / 10) for place in range(1, 8)]
    found = by_quality(images, 1)
    assert {name: [one.record.name for one in group] for name, group in found.items()} == {
        "Typical certainty": ["4"],
        "Most certain": ["7"],
        "Least certain": ["1"],
    }


def test_each_class_has_its_typical_image_and_none_stands_twice() -> None:
    images = [
        facts("low", tags=(0,), quality=0.1),
        facts("middle", tags=(0, 1), quality=0.5),
        facts("high", tags=(0,), quality=0.9),
        facts("other", tags=(1,), quality=0.2),
        facts("third", tags=(3,), quality=0.3),
    ]
    # Class 1 is seen in the image of class 0, and class 2 has none.
    assert [one.record.name for one in of_each_class(images, 4)] == ["middle", "third"]


def test_least_certain_first() -> None:
    images = [facts("a", confidence=0.9), facts("b", confidence=0.2), facts("c", confidence=0.5)]
    assert [one.record.name for one in least_certain(images, 2)] == ["b", "c"]


def test_study_scores_as_evaluate_does(untrained: Path) -> None:
    model = api.load(untrained, device="cpu")
    recipe = model.run.recipe
    dataset = api.evaluation_split(api.open_data(None, recipe.data), recipe.data)
    found = study(model.method, dataset, recipe.inference)
    expected, _ = api.evaluate(untrained)
    assert found.result is not None
    assert found.result.scores.miou == expected.scores.miou
    assert found.result.conditions == expected.conditions
    assert len(found.images) == len(dataset)
    assert all(0 < one.confidence <= 1 for one in found.images)
    wrong = found.result.matrix.counts.sum(axis=0) - np.diagonal(found.result.matrix.counts)
    assert (found.stray <= wrong[1:]).all()


def test_specks_do_not_count_as_shown(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = api.load(untrained, device="cpu")
    recipe = model.run.recipe
    dataset = api.evaluation_split(api.open_data(None, recipe.data), recipe.data)
    labels = np.zeros((48, 48), np.uint8)
    labels[0, :23] = 1  # 23 of 2304 pixels are just under one in a hundred
    labels[1, :24] = 2

    def one(*_: object, **__: object) -> list[Compared]:
        prediction = Prediction(Item("a", Path("a")), labels, torch.zeros(4, 1, 1), 0.5)
        return [Compared(dataset.records[0], prediction, None)]

    monkeypatch.setattr("tagmask.evaluation.study.compare", one)
    assert study(model.method, dataset, recipe.inference).images[0].found == {1}


def test_images_that_do_not_open_are_left_out(untrained: Path, tmp_path: Path) -> None:
    model = api.load(untrained, device="cpu")
    good = api.open_data(None, model.run.recipe.data).records[0]
    bad = Record("bad", tmp_path / "bad.png", (0,))
    found = study(model.method, Dataset((good, bad), model.classes), model.run.recipe.inference)
    assert [one.record.name for one in found.images] == [good.name]
    assert found.result is not None
    assert found.result.images == 1
    assert "bad.png: no such image file" in found.skipped[0]
    (tmp_path / "mask.png").write_bytes(b"no mask")
    unknown = replace(good, name="unknown", mask=PngMask(tmp_path / "mask.png"))
    found = study(model.method, Dataset((good, unknown), model.classes), model.run.recipe.inference)
    assert [one.record.name for one in found.images] == [good.name]
    assert "mask.png" in found.skipped[0]
    with pytest.raises(TagmaskError, match=r"no image to report on; .*bad\.png"):
        study(model.method, Dataset((bad,), model.classes), model.run.recipe.inference)
