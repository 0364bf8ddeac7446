"""Make the HTML that the page shows, with its pictures inside, so that nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from tagmask.data.label_maps import classes_in
from tagmask.data.pictures import display_palette, heat_map
from tagmask.ops.label_ids import IGNORE, IGNORED_CLASS

LONG_SIDE = 1024
THUMBNAIL = 384
MOST_CAMS = 24


def class_palette(classes: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """Make the (L, 3) uint8 colours of the ids of `classes`, at least 256, each class in that of its place in `order`.

    Where `classes` is `order`, it is `display_palette`. A class that two runs have in common has one colour in both.
    """
    bright = display_palette()
    palette = np.resize(bright, (max(256, len(classes) + 1), 3))
    places = {name: place for place, name in enumerate(name for name in order if name != IGNORED_CLASS)}
    for label, name in enumerate(classes, start=1):
        if name != IGNORED_CLASS:
            palette[label] = bright[1 + places[name] % 254]
    return palette


def fractions(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the fraction of the pixels that has each id, at least 256 of them, in 0..1."""
    return np.bincount(labels.ravel(), minlength=max(256, num_classes + 1)) / labels.size


def stage(photo: Image.Image, labels: np.ndarray, palette: np.ndarray, *, describe: str) -> str:
    """Lay a mask over its photograph; the style variable `--mask-opacity` is the mask's opacity.

    Args:
        photo: (H, W) RGB.
        labels: (H, W) label map.
        palette: as of `class_palette`.
        describe: the mask in words, for those who do not see it.
    """
    shown = shrink(photo, LONG_SIDE)
    layer = Image.fromarray(labels).resize(shown.size, Image.Resampling.NEAREST)
    if labels.dtype == np.uint8:
        layer.putpalette(palette[:256].ravel().tolist())
        layer.info["transparency"] = 0
    else:
        ids = np.asarray(layer)
        layer = Image.fromarray(np.dstack([palette[ids], np.uint8(255) * (ids > 0)]))
    return (
        f'<figure class="tm-stage" style="--long: {max(shown.size)}">'
        f'<img class="tm-photo" alt="photograph" src="{jpeg(shown)}">'
        f'<img class="tm-mask" alt="{escape(describe)}" src="{_png(layer)}">'
        "</figure>"
    )


def photograph(photo: Image.Image) -> str:
    """Show a photograph alone."""
    shown = shrink(photo, LONG_SIDE)
    image = f'<img class="tm-photo" alt="photograph" src="{jpeg(shown)}">'
    return f'<figure class="tm-stage" style="--long: {max(shown.size)}">{image}</figure>'


def uncertainty_picture(photo: Image.Image, uncertainty: np.ndarray) -> str:
    """Paint the uncertainty, (h, w) in [0, 1], over the grey photograph: dark where sure, bright where not."""
    shown = shrink(photo, LONG_SIDE)
    grey = np.asarray(shown.convert("L").convert("RGB"))
    picture = Image.fromarray(heat_map(grey, _enlarged(uncertainty, shown.size), 0.75))
    return (
        '<h4 class="tm-subheading">Uncertainty</h4><div class="tm-uncertainty">'
        f'<figure class="tm-stage"><img class="tm-photo" alt="uncertainty" src="{jpeg(picture)}"></figure>'
        '<p class="tm-scale"><span>sure</span><span class="tm-ramp"></span><span>unsure</span></p></div>'
    )


def legend(
    labels: np.ndarray, classes: Sequence[str], palette: np.ndarray, *, tags: Sequence[str], background: bool
) -> str:
    """List what is in a label map by colour, name and fraction of the pixels, the largest first.

    Classes among `tags` are listed even if no pixel has them; the background is listed where there is one.
    """
    fraction = fractions(labels, len(classes))
    rows: list[tuple[float, str, str]] = [
        (fraction[label], name, _hex(palette[label]))
        for label, name in enumerate(classes, start=1)
        if (fraction[label] > 0 or name in tags) and label != IGNORE
    ]
    rows.sort(key=lambda row: -row[0])
    if background:
        rows.append((fraction[0], "background", "transparent"))
    if fraction[IGNORE] > 0:
        rows.append((fraction[IGNORE], "ignored", _hex(palette[IGNORE])))
    return '<ul class="tm-legend">' + "".join(_legend_row(*row) for row in rows) + "</ul>"


def describe(labels: np.ndarray, classes: Sequence[str]) -> str:
    """Put a label map into words: the classes in it, each with its fraction of the pixels."""
    fraction = fractions(labels, len(classes))
    found = [f"{classes[label - 1]} {fraction[label]:.1%}" for label in classes_in(labels, len(classes))]
    return "mask: " + (", ".join(found) or "background only")


def cam_gallery(
    photo: Image.Image, cams: np.ndarray, tag_scores: np.ndarray, classes: Sequence[str], tags: Sequence[str]
) -> str:
    """Show each class's CAM over the photograph, with its tag's probability: given tags first, then the most probable.

    Args:
        photo: RGB.
        cams: (K, h, w) in [0, 1].
        tag_scores: (K,) in 0..1.
        classes: K names.
        tags: the given ones.

    Returns:
        HTML of at most MOST_CAMS pictures.
    """
    shown = shrink(photo, THUMBNAIL)
    base = np.asarray(shown)
    order = sorted(range(len(classes)), key=lambda index: (classes[index] not in tags, -tag_scores[index]))
    tiles = [
        f'<figure><img alt="CAM of {escape(classes[index])}" '
        f'src="{jpeg(Image.fromarray(heat_map(base, _enlarged(cams[index], shown.size))))}">'
        f"<figcaption><b>{escape(classes[index])}</b> {tag_scores[index]:.0%}"
        + (" · given" if classes[index] in tags else "")
        + "</figcaption></figure>"
        for index in order[:MOST_CAMS]
    ]
    left_out = len(classes) - len(tiles)
    return (
        '<h4 class="tm-subheading">Class activation maps <small>where the network sees a class, and how probable '
        f'its tag is</small></h4><div class="tm-cams">{"".join(tiles)}</div>'
        + (note(f"{left_out} less probable classes are not shown.") if left_out > 0 else "")
    )


def shrink(image: Image.Image, long_side: int) -> Image.Image:
    """Scale a picture down so that its longer side has at most `long_side` pixels."""
    factor = long_side / max(image.size)
    if factor >= 1:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def alert(message: str) -> str:
    """Format an error for the page."""
    return f'<p class="tm-alert" role="alert">{escape(message)}</p>'


def note(message: str) -> str:
    """Format a remark for the page."""
    return f'<p class="tm-note" role="status">{escape(message)}</p>'


def heading(title: str, remark: str) -> str:
    """Format a panel's heading, with a remark beside it."""
    return f'<h3 class="tm-heading">{escape(title)} <small>{escape(remark)}</small></h3>'


def _legend_row(fraction: float, name: str, colour: str) -> str:
    return (
        f'<li><span class="tm-chip" style="background-color: {colour}"></span>'
        f'<span class="tm-name">{escape(name)}</span>'
        f'<span class="tm-bar"><span style="width: {fraction:.2%}; background-color: {colour}"></span></span>'
        f'<span class="tm-fraction">{fraction:.1%}</span></li>'
    )


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _hex(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()


def jpeg(image: Image.Image) -> str:
    """Return a picture as the address of its own content."""
    return _data_uri(image, "JPEG", quality=90)


def _png(image: Image.Image) -> str:
    return _data_uri(image, "PNG")


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
