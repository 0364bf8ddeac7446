from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tagmask.data.dataset import Record
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.report.confusions import excerpt, largest_confusions


def matrix_of(counts: list[list[int]], *, background: bool = True) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(counts) - int(background), background=background)
    matrix.counts += np.array(counts)
    return matrix


def record(*tags: int) -> Record:
    return Record(str(tags), Path("a.png"), tags)


TRAIN_AND_TRACK = [[90, 40, 0], [5, 50, 1], [0, 10, 99]]


def test_largest_confusions_name_eater_and_eaten() -> None:
    found = largest_confusions(matrix_of(TRAIN_AND_TRACK), [record(0, 1), record(0), record(1)], 10)
    assert [(each.eater, each.eaten, each.pixels) for each in found] == [(0, None, 40), (0, 1, 10), (1, 0, 1)]
    background, companion, last = found
    assert background.of_eater == pytest.approx(0.4)
    assert background.of_eaten == pytest.approx(40 / 130)
    assert background.company is None
    assert companion.of_eaten == pytest.approx(10 / 109)
    assert companion.company == pytest.approx(1 / 2)
    assert [each.tagged for each in found] == [2, 2, 2]
    assert last.of_eater == pytest.approx(0.01)


def test_background_eats_no_one_and_count_holds() -> None:
    assert largest_confusions(matrix_of([[10, 0], [90, 10]]), [], 5) == []
    assert len(largest_confusions(matrix_of(TRAIN_AND_TRACK), [], 2)) == 2


def test_without_background_ids_begin_at_one() -> None:
    (found,) = largest_confusions(matrix_of([[8, 0], [2, 5]], background=False), [record(0)], 5)
    assert (found.eater, found.eaten, found.of_eater, found.company) == (0, 1, 0.2, 0.0)
    assert excerpt(matrix_of([[8, 0], [2, 5]], background=False), 5).rows == (1, 2)


def test_excerpt_keeps_the_most_wrong() -> None:
    part = excerpt(matrix_of([[90, 40, 0, 0], [5, 60, 0, 0], [0, 0, 7, 0], [0, 0, 0, 0]]), 2)
    assert part.rows == (0, 1)
    assert part.hidden == 2
    np.testing.assert_allclose(part.fractions, [[90 / 95, 0.4], [5 / 95, 0.6]])
