from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tagmask.data.dataset import Dataset, Record
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.report.confusions import largest_confusions
from tagmask.evaluation.report.words import Step, headline, headline_of_tags, next_steps, of_100
from tagmask.evaluation.result import Conditions, Result, result_of
from tagmask.evaluation.study import ImageFacts, Study, tag_agreement

CLASSES = ("cow", "train", "rail")
CONDITIONS = Conditions(refinement="none")


def record(name: str, *tags: int) -> Record:
    return Record(name, Path(f"{name}.png"), tags)


RECORDS = (record("a", 0), record("b", 1, 2), record("c", 1, 2), record("d", 2))


def result(counts: list[list[int]]) -> Result:
    matrix = ConfusionMatrix(len(counts) - 1)
    matrix.counts += np.array(counts)
    return result_of(matrix, Dataset(RECORDS, CLASSES), protocol="seco", conditions=CONDITIONS)


# Rows are ground truth: background, cow, train, rail.
GOOD = [[300, 0, 10, 0], [20, 71, 0, 0], [0, 0, 90, 10], [0, 0, 60, 40]]
POOR = [[300, 80, 0, 0], [20, 71, 0, 0], [0, 0, 100, 0], [0, 0, 95, 5]]


NOTHING = tag_agreement([ImageFacts(record("a"), frozenset(), 0.5, None)], 3)


def looked_at(found: Result | None, *shown: frozenset[int]) -> Study:
    facts = tuple(ImageFacts(own, seen, 0.5, None) for own, seen in zip(RECORDS, shown, strict=False))
    return Study(Dataset(RECORDS, CLASSES), facts, CONDITIONS, found, np.zeros(3, np.int64), (), 1.0)


def test_headline_counts_pixels_of_100() -> None:
    everything, easiest, hardest, few = headline(result(GOOD))
    # Found: 71 of 91, 90 of 100, 40 of 100; right: 71 of 71, 90 of 160, 40 of 50.
    assert "Of 100 pixels of a class, 69 are found." in everything
    assert "give to a class, 79 are right." in everything
    assert easiest == "Easiest: cow. 78 of 100 of its pixels are found; 100 of 100 pixels called so are right."
    assert hardest == "Hardest: rail. 40 of 100 of its pixels are found; 80 of 100 pixels called so are right."
    assert few == "These scores are of 4 images alone: with others they may be quite different."
    assert headline(replace(result(GOOD), images=20)) == [everything, easiest, hardest]
    assert "of one image alone:" in headline(replace(result(GOOD), images=1))[-1]


def test_headline_names_a_class_that_no_mask_shows() -> None:
    counts = [[100, 0, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0], [30, 0, 0, 0]]
    everything, _, hardest, _ = headline(result(counts))
    assert hardest == "Hardest: rail, which no mask shows."
    assert "67 are found" in everything
    assert "100 are right" in everything


def test_headline_of_tags_counts_tags_and_strays() -> None:
    study = looked_at(None, frozenset({0}), frozenset({1}), frozenset({0, 1, 2}), frozenset({2}))
    agreement = tag_agreement(study.images, 3)
    seen, which, what = headline_of_tags(agreement, CLASSES, tags_given=False)
    assert seen.startswith("Of 100 tags, 83 are seen in the mask of their image. Of 100 masks, 25 show a class")
    assert "Least often: rail (in 67)" in which
    assert "nobody knows" in what
    assert "told the tags" in headline_of_tags(agreement, CLASSES, tags_given=True)[0]


def test_tags_of_no_image_leave_only_the_pictures() -> None:
    nothing = tag_agreement([ImageFacts(record("a"), frozenset(), 0.5, None)], 3)
    assert len(headline_of_tags(nothing, CLASSES, tags_given=False)) == 1


def test_steps_name_poor_classes_company_and_spreading() -> None:
    found = result(POOR)
    study = looked_at(found)
    confusions = largest_confusions(found.matrix, RECORDS * 3, 12)
    last = Step("at last", "tagmask predict")
    poor, together, wide, further = next_steps(study, NOTHING, confusions, "runs/my run", further=[last])
    assert poor.why.startswith("Hardly found: rail. ")
    assert poor.command == "tagmask suggest 'runs/my run'"
    assert together.why.startswith("train takes in rail, which is in 6 of the 6 images with train that were looked at")
    assert wide.why.startswith("Spreads over what lies around it: cow. ")
    assert wide.command.startswith("tagmask report 'runs/my run' --set inference.refine=crf")
    assert further == last
    few = largest_confusions(found.matrix, RECORDS * 2, 12)  # four images of a train do not tell its company
    assert together not in next_steps(study, NOTHING, few, "runs/my run")
    assert next_steps(study, NOTHING, few, "runs/my run") == [poor, wide]
    refined = replace(study, conditions=Conditions(refinement="crf"))
    assert wide not in next_steps(refined, NOTHING, confusions, "runs/my run")


def test_steps_without_ground_truth_go_by_tags() -> None:
    study = looked_at(None, frozenset({0}), frozenset({1}), frozenset({1}), frozenset())
    (step,) = next_steps(study, tag_agreement(study.images, 3), [], "run")
    assert step.why.startswith("Hardly found: rail. ")


def test_good_masks_need_nothing_but_what_follows() -> None:
    found = result([[300, 1, 0, 0], [2, 90, 0, 0], [0, 0, 90, 1], [0, 0, 1, 90]])
    assert next_steps(looked_at(found), NOTHING, [], "run") == []


def test_numbers_of_100_are_none_or_all_only_where_they_are() -> None:
    said = [of_100(value) for value in (0.0, 0.001, 0.704, 0.999, 1.0, float("nan"))]
    assert said == ["0", "fewer than 1", "70", "more than 99", "100", "an unknown number"]
