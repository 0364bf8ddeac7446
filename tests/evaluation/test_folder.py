from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tagmask.data.dataset import Dataset, Record
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.folder import evaluate_folder
from tagmask.evaluation.result import Conditions, Result
from tagmask.evaluation.tables import describe, render, to_json


def write(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    sizes = [(5, 8), (6, 4), (7, 7), (1, 1), (9, 3)]
    ground_truths = [generator.choice(np.array([0, 1, 2, 255], dtype=np.uint8), size) for size in sizes]
    return [
        (ground_truth, np.where(generator.random(ground_truth.shape) < 0.3, 1, ground_truth % 255).astype(np.uint8))
        for ground_truth in ground_truths
    ]


@pytest.fixture
def dataset(tmp_path: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Dataset:
    records = []
    for index, (ground_truth, prediction) in enumerate(pairs):
        name = f"day {index % 2}/{index}"
        mask = write(tmp_path / "truth" / f"{name}.png", ground_truth)
        write(tmp_path / "said" / f"{name}.png", prediction)
        records.append(Record(name, mask, (0,), split="val", mask=PngMask(mask)))
    return Dataset(tuple(records), ("cat", "dog"))


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_the_folder_counts_as_its_images(tmp_path: Path, dataset: Dataset, pairs: list, workers: int) -> None:
    result = evaluate_folder(tmp_path / "said", dataset, workers=workers)
    direct = ConfusionMatrix(2)
    for ground_truth, prediction in pairs:
        direct.add(ground_truth, prediction)
    assert np.array_equal(result.matrix.counts, direct.counts)
    assert result.images == 5
    assert result.classes == ("background", "cat", "dog")
    assert result.conditions.split == "val"


def test_a_perfect_folder_scores_one(tmp_path: Path, dataset: Dataset) -> None:
    result = evaluate_folder(tmp_path / "truth", dataset, protocol="eps")
    assert result.scores.miou == result.scores.pixel_accuracy == result.scores.coverage == 1.0


def test_missing_predictions_are_named_and_counted(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "said" / "day 1" / "1.png").unlink()
    (tmp_path / "said" / "day 0" / "4.png").unlink()
    with pytest.raises(TagmaskError, match=r"day 1/1\.png: missing; 2 of 5 images"):
        evaluate_folder(tmp_path / "said", dataset)
    with pytest.raises(TagmaskError, match="no such folder"):
        evaluate_folder(tmp_path / "elsewhere", dataset)


def test_images_without_ground_truth_are_named_and_counted(tmp_path: Path, dataset: Dataset) -> None:
    records = (dataset.records[0], *(replace(record, mask=None) for record in dataset.records[1:]))
    with pytest.raises(TagmaskError, match=r"'day 1/1' has no ground-truth mask, nor have 3 others of 5"):
        evaluate_folder(tmp_path / "said", replace(dataset, records=records))
    with pytest.raises(TagmaskError, match="no images"):
        evaluate_folder(tmp_path / "said", replace(dataset, records=()))


def test_other_sizes_and_ids_are_named(tmp_path: Path, dataset: Dataset, pairs: list) -> None:
    write(tmp_path / "said" / "day 0" / "0.png", pairs[0][1].T)
    with pytest.raises(TagmaskError, match=r"day 0/0\.png, 5 x 8: does not fit its ground truth"):
        evaluate_folder(tmp_path / "said", dataset)
    write(tmp_path / "said" / "day 0" / "0.png", np.full_like(pairs[0][1], 3))
    with pytest.raises(TagmaskError, match=r"day 0/0\.png.*id 3"):
        evaluate_folder(tmp_path / "said", dataset)


def test_damaged_and_coloured_predictions_are_named(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "said" / "day 0" / "0.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TagmaskError, match=r"0\.png"):
        evaluate_folder(tmp_path / "said", dataset)
    Image.new("RGB", (8, 5)).save(path)
    with pytest.raises(TagmaskError, match=r"0\.png: holds colours"):
        evaluate_folder(tmp_path / "said", dataset)


def evaluated(tmp_path: Path, dataset: Dataset) -> Result:
    conditions = Conditions(
        source="decoder", tags_given=False, scales=(1.0, 1.5), flips=True, refinement="crf", background_score=0.25
    )
    return evaluate_folder(tmp_path / "said", dataset, conditions=conditions)


def test_conditions_are_told_in_words_and_gaps_named(tmp_path: Path, dataset: Dataset) -> None:
    assert describe(evaluated(tmp_path, dataset).conditions) == (
        "split val; labels from decoder; no tags given; scales 1.0, 1.5; with flip; refinement crf;"
        " background score 0.25"
    )
    assert describe(Conditions()).count("not stated") == 6


def test_table_shows_every_class_with_protocol_and_conditions(tmp_path: Path, dataset: Dataset) -> None:
    result = evaluated(tmp_path, dataset)
    console = Console(file=io.StringIO(), width=200)
    render(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for row, name in enumerate(result.classes):
        line = next(line for line in text.splitlines() if name in line)
        assert f"{100 * result.scores.iou[row]:.2f}" in line
        assert f"{result.scores.confusion_ratio[row]:.3f}" in line
    for words in ("protocol seco", "split val", "no tags given", "crf", f"mIoU {100 * result.scores.miou:.2f}%"):
        assert words in text


def test_json_is_strict_and_complete(tmp_path: Path, dataset: Dataset) -> None:
    result = evaluated(tmp_path, dataset)
    ratios = np.array([0.5, np.inf, np.nan])
    values = to_json(replace(result, scores=replace(result.scores, confusion_ratio=ratios)))
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again["miou"] == result.scores.miou
    assert again["unbounded"] == ["cat"]
    assert again["classes"]["dog"]["confusion_ratio"] is None
    assert again["classes"]["background"]["iou"] == result.scores.iou[0]
    assert again["conditions"]["scales"] == [1.0, 1.5]
    assert again["protocol"] == "seco"
