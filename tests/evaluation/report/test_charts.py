from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from tagmask.evaluation.report.charts import MOST_POINTS, curve, histogram


def test_drawings_take_the_colours_of_the_page() -> None:
    for drawing in (curve([1, 2, 3], [1.0, 0.5, 0.25], "loss <a&b>"), histogram([0.1, 0.9], "confidence")):
        ElementTree.fromstring(drawing)
        assert "currentColor" in drawing
        assert "var(--accent)" in drawing
        assert "DejaVu" not in drawing
        assert "http" not in drawing.replace("http://www.w3.org/", "")


def test_a_drawing_says_what_it_shows() -> None:
    label = ElementTree.fromstring(curve([1, 30], [1.0, 0.25], "loss <a&b>")).get("aria-label")
    assert label == "loss <a&b>: 1 at step 1, 0.25 at step 30"


@pytest.mark.parametrize("length", [1, 5, 3000])
def test_any_length_is_drawn_small_and_with_its_last_value(length: int) -> None:
    values = np.linspace(3, 0.5, length)
    drawing = curve(range(length), values.tolist(), "loss")
    assert len(drawing) < 40 * 2 * MOST_POINTS + 20_000
    assert f"{values[-1]:.4g} at step {length - 1}" in drawing


def test_values_that_are_not_finite_are_gaps() -> None:
    ElementTree.fromstring(curve([1, 2, 3], [float("nan"), float("inf"), 1.0], "loss"))
    ElementTree.fromstring(histogram([float("nan")], "confidence"))
