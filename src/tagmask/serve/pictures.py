"""What the page shows, as HTML with its pictures inside, so that nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from tagmask.data.label_maps import voc_palette
from tagmask.evaluation.pictures import heat_map
from tagmask.ops.label_ids import IGNORE

LONG_SIDE = 1024
THUMBNAIL = 384
MOST_CAMS = 24


def class_palette(classes: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """A (256, 3) uint8 palette for label maps of `classes`, each class in the colour of its place in `order`.

    With `classes` equal to `order` it is VOC's. Two runs with other classes share the colours of those they share.
    """
    voc = voc_palette()
    palette = voc.copy()
    for label, name in enumerate(classes, start=1):
        palette[label] = voc[1 + order.index(name) % 254]
    return palette


def shares(labels: np.ndarray) -> np.ndarray:
    """The (256,) share of the pixels that bear each id."""
    return np.bincount(labels.ravel(), minlength=256) / labels.size


def stage(photo: Image.Image, labels: np.ndarray, palette: np.ndarray, *, describe: str) -> str:
    """The photograph with its mask as a layer above, whose opacity is the style variable `--mask-opacity`.

    Args:
        photo: (H, W) RGB.
        labels: (H, W) uint8 label map.
        palette: (256, 3) uint8.
        describe: the mask in words, for those who do not see it.
    """
    shown = shrink(photo, LONG_SIDE)
    layer = Image.fromarray(labels).resize(shown.size, Image.Resampling.NEAREST)
    layer.putpalette(palette.ravel().tolist())
    return (
        f'<figure class="tm-stage" style="--long: {max(shown.size)}">'
        f'<img class="tm-photo" alt="photograph" src="{_jpeg(shown)}">'
        f'<img class="tm-mask" alt="{escape(describe)}" src="{_png(layer, transparency=0)}">'
        "</figure>"
    )


def uncertainty_picture(photo: Image.Image, uncertainty: np.ndarray) -> str:
    """The photograph, grey, under its uncertainty (h, w) in [0, 1]: dark where sure, bright where not."""
    shown = shrink(photo, LONG_SIDE)
    grey = np.asarray(shown.convert("L").convert("RGB"))
    picture = Image.fromarray(heat_map(grey, _enlarged(uncertainty, shown.size), 0.75))
    return (
        '<h4 class="tm-subheading">Uncertainty</h4><div class="tm-uncertainty">'
        f'<figure class="tm-stage"><img class="tm-photo" alt="uncertainty" src="{_jpeg(picture)}"></figure>'
        '<p class="tm-scale"><span>sure</span><span class="tm-ramp"></span><span>unsure</span></p></div>'
    )


def legend(
    labels: np.ndarray, classes: Sequence[str], palette: np.ndarray, *, tags: Sequence[str], background: bool
) -> str:
    """Colours, names and pixel shares of what is in a label map, the largest first; of `tags` even if nothing is."""
    share = shares(labels)
    rows: list[tuple[float, str, str]] = [
        (share[label], name, _hex(palette[label]))
        for label, name in enumerate(classes, start=1)
        if share[label] > 0 or name in tags
    ]
    rows.sort(key=lambda row: -row[0])
    if background:
        rows.append((share[0], "background", "transparent"))
    if share[IGNORE] > 0:
        rows.append((share[IGNORE], "ignored", _hex(palette[IGNORE])))
    return '<ul class="tm-legend">' + "".join(_legend_row(*row) for row in rows) + "</ul>"


def describe(labels: np.ndarray, classes: Sequence[str]) -> str:
    """A label map in words: the classes in it with their pixel shares."""
    share = shares(labels)
    found = [f"{name} {share[label]:.1%}" for label, name in enumerate(classes, start=1) if share[label] > 0]
    return "mask: " + (", ".join(found) or "background only")


def cam_gallery(
    photo: Image.Image, cams: np.ndarray, tag_scores: np.ndarray, classes: Sequence[str], tags: Sequence[str]
) -> str:
    """The CAM of each class over the photograph with the probability of its tag: given tags first, then by that.

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
        f'src="{_jpeg(Image.fromarray(heat_map(base, _enlarged(cams[index], shown.size))))}">'
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
    """The picture with its longer side at most `long_side` pixels."""
    factor = long_side / max(image.size)
    if factor >= 1:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def alert(message: str) -> str:
    """An error as the page shows it."""
    return f'<p class="tm-alert" role="alert">{escape(message)}</p>'


def note(message: str) -> str:
    """A remark as the page shows it."""
    return f'<p class="tm-note" role="status">{escape(message)}</p>'


def heading(title: str, remark: str) -> str:
    """A panel's heading with a remark beside it."""
    return f'<h3 class="tm-heading">{escape(title)} <small>{escape(remark)}</small></h3>'


def _legend_row(share: float, name: str, colour: str) -> str:
    return (
        f'<li><span class="tm-chip" style="background-color: {colour}"></span>'
        f'<span class="tm-name">{escape(name)}</span>'
        f'<span class="tm-bar"><span style="width: {share:.2%}; background-color: {colour}"></span></span>'
        f'<span class="tm-share">{share:.1%}</span></li>'
    )


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _hex(colour: np.ndarray) -> str:
    return "#" + bytes(colour.tolist()).hex()


def _jpeg(image: Image.Image) -> str:
    return _data_uri(image, "JPEG", quality=90)


def _png(image: Image.Image, **options: int) -> str:
    return _data_uri(image, "PNG", **options)


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
