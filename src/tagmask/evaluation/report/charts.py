"""Draw curves and histograms as SVG that takes the colours of the page it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, LINE = "#010203", "#010204"  # stand-ins that no drawing needs otherwise
SIZE = (3.6, 1.9)  # inches
MOST_POINTS = 400
SMOOTHED_OVER = 0.08  # of the curve's length
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tagmask",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}


def curve(steps: Sequence[float], values: Sequence[float], name: str) -> Markup:
    """Draw values over steps, as they are and, where there are many, smoothed; values that are not finite are gaps."""
    places, heights = np.asarray(steps, float), np.asarray(values, float)
    stride = -(-len(places) // MOST_POINTS)
    places, heights = places[::-1][::stride][::-1], heights[::-1][::stride][::-1]

    def draw(axes: Axes) -> None:
        window = 2 * round(SMOOTHED_OVER * len(heights) / 2) + 1  # odd, or the mean would lag
        if window > 1 and np.isfinite(heights).all():
            axes.plot(places, heights, color=LINE, linewidth=0.7, alpha=0.35)
            axes.plot(places, _smoothed(heights, window), color=LINE, linewidth=1.6)
        else:
            axes.plot(places, heights, color=LINE, linewidth=1.6, marker="o" if len(places) < 15 else "", markersize=3)
        axes.set_xlabel("step")
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)

    return _svg(draw, f"{name}: {heights[0]:.4g} at step {places[0]:.0f}, {heights[-1]:.4g} at step {places[-1]:.0f}")


def histogram(values: Sequence[float], name: str) -> Markup:
    """Draw how many images lie in each of 20 bins of [0, 1]."""
    finite = [value for value in values if np.isfinite(value)]

    def draw(axes: Axes) -> None:
        axes.hist(finite, bins=20, range=(0, 1), color=LINE, rwidth=0.9)
        axes.set_xlim(0, 1)
        axes.set_xlabel(name)
        axes.set_ylabel("images")
        axes.yaxis.get_major_locator().set_params(integer=True)  # pyright: ignore

    return _svg(draw, f"histogram of {name}: median {np.median(finite) if finite else float('nan'):.3f}")


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean over the window around each value; the window is cut off at the ends."""
    total = np.convolve(values, np.ones(window), mode="same")
    return total / np.convolve(np.ones(len(values)), np.ones(window), mode="same")


def _svg(draw: Callable[[Axes], None], description: str) -> Markup:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # pyright: ignore
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = re.sub(r' id="[a-z]+[a-z0-9]*_\d+"', "", text)  # of groups; they would stand twice on a page
    text = text.replace(INK, "currentColor").replace(LINE, "var(--accent)")
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", label, 1))
