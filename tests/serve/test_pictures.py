from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tagmask.data.label_maps import voc_palette
from tagmask.data.pictures import display_palette, overlay
from tagmask.serve import pictures


def _pictures(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/\w+;base64,([\w+/=]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_palette_gives_a_class_one_colour_in_every_run() -> None:
    order = ["cat", "dog", "cow"]
    palette = pictures.class_palette(["dog", "cow"], order)
    np.testing.assert_array_equal(palette[1:3], display_palette()[2:4])
    np.testing.assert_array_equal(pictures.class_palette(order, order), display_palette())


def test_stage_lays_the_mask_in_its_colours_over_the_photograph() -> None:
    labels = np.zeros((40, 30), np.uint8)
    labels[:20] = 2
    html = pictures.stage(Image.new("RGB", (30, 40), "white"), labels, voc_palette(), describe='a "mask"')
    photo, mask = _pictures(html)
    assert photo.size == mask.size == (30, 40)
    seen = np.asarray(mask.convert("RGBA"))
    np.testing.assert_array_equal(seen[:20, :, :3], np.broadcast_to(voc_palette()[2], (20, 30, 3)))
    assert (seen[:20, :, 3] == 255).all()
    assert (seen[20:, :, 3] == 0).all()
    assert "a &quot;mask&quot;" in html


def test_masks_of_many_classes_repeat_the_colours() -> None:
    classes = [f"c{number}" for number in range(254)] + ["ignored_255", "cat", "dog"]
    labels = np.full((40, 30), 257, np.uint16)
    labels[:20], labels[20:25] = 0, 255
    palette = pictures.class_palette(classes, classes)
    _, mask = _pictures(pictures.stage(Image.new("RGB", (30, 40)), labels, palette, describe=""))
    seen = np.asarray(mask.convert("RGBA"))
    assert seen[0, 0, 3] == 0
    assert [seen[row, 0].tolist() for row in (22, 30)] == [[128, 128, 128, 255], [*display_palette()[2], 255]]
    assert (overlay(np.zeros((40, 30, 3), np.uint8), labels, 1.0)[30, 0] == display_palette()[2]).all()
    html = pictures.legend(labels, classes, palette, tags=["cat"], background=True)
    assert re.findall(r'tm-name">(.*?)<', html) == ["dog", "cat", "background", "ignored"]
    assert pictures.describe(labels, classes) == "mask: dog 37.5%"


def test_large_photographs_are_shown_smaller_and_masks_with_them() -> None:
    photo = Image.new("RGB", (pictures.LONG_SIDE * 2, 100))
    shown, mask = _pictures(pictures.stage(photo, np.ones((100, photo.width), np.uint8), voc_palette(), describe=""))
    assert shown.size == mask.size == (pictures.LONG_SIDE, 50)


def test_uncertainty_is_bright_where_unsure() -> None:
    (shown,) = _pictures(pictures.uncertainty_picture(Image.new("RGB", (60, 20)), np.array([[0.0, 0.0, 1.0]])))
    grey = np.asarray(shown.convert("L")).astype(int)
    assert grey[:, -5:].mean() > grey[:, :5].mean() + 50


def test_legend_names_classes_by_fraction_and_given_tags_without_pixels() -> None:
    labels = np.array([[1, 3, 3, 0, 255]], np.uint8)
    html = pictures.legend(labels, ["cat", "dog", "<cow>"], voc_palette(), tags=["dog"], background=True)
    rows = re.findall(r'tm-name">(.*?)<.*?tm-fraction">(.*?)<', html)
    assert rows == [
        ("&lt;cow&gt;", "40.0%"),
        ("cat", "20.0%"),
        ("dog", "0.0%"),
        ("background", "20.0%"),
        ("ignored", "20.0%"),
    ]
    assert "#808000" in html
    without = pictures.legend(labels[:, 1:3], ["cat", "dog", "cow"], voc_palette(), tags=[], background=False)
    assert re.findall(r'tm-name">(.*?)<', without) == ["cow"]


@pytest.mark.parametrize(("labels", "words"), [([[0, 2]], "mask: dog 50.0%"), ([[0, 0]], "mask: background only")])
def test_mask_in_words(labels: list[list[int]], words: str) -> None:
    assert pictures.describe(np.array(labels, np.uint8), ["cat", "dog"]) == words


def test_gallery_shows_given_tags_first_then_the_probable() -> None:
    cams = np.zeros((3, 4, 4), np.float32)
    cams[2] = 1
    shown = pictures.cam_gallery(
        Image.new("RGB", (40, 20)), cams, np.array([0.2, 0.9, 0.1]), ["cat", "dog", "cow"], ["cow"]
    )
    captions = [re.sub("<.*?>", "", found) for found in re.findall("<figcaption>(.*?)</figcaption>", shown)]
    assert captions == ["cow 10% · given", "dog 90%", "cat 20%"]
    first, second, _ = _pictures(shown)
    assert first.size == (40, 20)
    assert np.asarray(first).mean() > np.asarray(second).mean()


def test_gallery_ends_somewhere() -> None:
    count = pictures.MOST_CAMS + 2
    names = [f"<{index}>" for index in range(count)]
    cams = np.zeros((count, 2, 2), np.float32)
    shown = pictures.cam_gallery(Image.new("RGB", (8, 8)), cams, np.linspace(0, 1, count), names, [])
    assert shown.count("<figure>") == pictures.MOST_CAMS
    assert "2 less probable classes are not shown" in shown
    assert "<0>" not in shown
    assert "&lt;25&gt;" in shown


def test_messages_are_escaped() -> None:
    assert "<b>" not in pictures.alert("<b>") + pictures.note("<b>") + pictures.heading("<b>", "<b>")
