from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tagmask.api import Model
from tagmask.data.images import open_image
from tagmask.engine.inference import predict_one
from tagmask.errors import TagmaskError
from tagmask.serve.explain import _uncertainty, explain


def test_labels_and_confidence_are_those_of_prediction(model: Model, photo: Path) -> None:
    image = open_image(photo)
    expected = predict_one(model.method, photo, None, model.run.recipe.inference)
    found = explain(model, image)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)


def test_tags_restrict_the_winners(model: Model, photo: Path) -> None:
    second = model.classes[1]
    found = explain(model, open_image(photo), [second])
    assert set(np.unique(found.labels)) <= {0, 2}
    np.testing.assert_array_equal(found.labels, model.predict(photo, [second]))
    expected = predict_one(model.method, photo, [1], model.run.recipe.inference)
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)


def test_one_map_and_one_score_a_class(model: Model, photo: Path) -> None:
    found = explain(model, open_image(photo).resize((70, 50)))
    count = len(model.classes)
    assert found.labels.shape == (50, 70)
    assert found.cams.shape == (count, 48, 48)
    assert found.uncertainty.ndim == 2
    assert found.tag_scores.shape == (count,)
    assert found.cams.min() >= 0
    assert found.cams.max() <= 1
    assert found.tag_scores.min() >= 0
    assert found.tag_scores.max() <= 1


def test_strange_tag_is_named(model: Model, photo: Path) -> None:
    with pytest.raises(TagmaskError, match="'unicorn' is no class"):
        explain(model, open_image(photo), ["unicorn"])


@pytest.mark.parametrize(
    ("ids", "background", "left"),
    [(None, True, [0, 1, 2]), ([1], True, [0, 2]), ([0, 2], False, [0, 2]), ([], True, [0])],
)
def test_uncertainty_is_what_the_winner_leaves(ids: list[int] | None, background: bool, left: list[int]) -> None:
    shares = torch.tensor([0.5, 0.3, 0.2])
    kept = shares[left]
    expected = 1 - float(kept.max() / kept.sum())
    found = _uncertainty(shares.log()[:, None, None].expand(3, 2, 4), ids, background)
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)
