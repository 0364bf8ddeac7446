"""The small pictures of the review, without a browser."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.api import Model
from tagmask.data.label_maps import write_label_map
from tagmask.data.pictures import display_palette
from tagmask.errors import TagmaskError
from tagmask.serve import thumbs
from tagmask.serve.photos import find_photos
from tagmask.serve.review import Review, find_candidates
from tagmask.serve.review_tab import ReviewPage
from tagmask.serve.thumbs import Thumbs

SHOWING, FACTS = 0, 2


@pytest.fixture
def page(model: Model, masks: Path, tmp_path: Path) -> ReviewPage:
    labelled = Path(shutil.copytree(masks, tmp_path / "labelled"))
    photos = find_photos(model, None)
    review = Review(find_candidates(labelled, photos, model.classes)[0], tmp_path / "review.csv", model.classes)
    return ReviewPage(review, model, (photos.root, labelled))


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def test_part_lists_chosen_masks_in_their_order(page: ReviewPage) -> None:
    own, names = Thumbs(page), page.review.chosen
    found = own.part(2, 3)
    assert (found["start"], found["total"]) == (2, len(names))
    assert [each["name"] for each in found["items"]] == names[2:5]
    assert own.part(-4, 2)["items"] == own.part(0, 2)["items"]
    assert own.part(len(names), 5)["items"] == []
    page.review.decide(names[0], "redo", page.review.tags(names[0]))
    page.review.choose(verdict="redo")
    assert [(each["name"], each["verdict"]) for each in own.part(0, 9)["items"]] == [(names[0], "redo")]


def test_picture_shows_the_mask_as_it_stands(page: ReviewPage) -> None:
    own, name = Thumbs(page), page.review.chosen[0]
    mask = page.review.candidates[name].mask
    write_label_map(mask, np.full((48, 48), 2, np.uint8))
    whole, before = pixels(own.picture(name)), own.part(0, 1)["items"][0]["stamp"]
    with Image.open(page.review.candidates[name].image) as photo:
        plain = np.asarray(photo.convert("RGB"), np.int64)
    # Half of each pixel is the class's colour; JPEG blurs single pixels, not their mean.
    expected = (plain.mean(axis=(0, 1)) + display_palette()[2]) / 2
    np.testing.assert_allclose(whole.mean(axis=(0, 1)), expected, atol=3)
    write_label_map(mask, np.zeros((48, 48), np.uint8))
    os.utime(mask, ns=(1, 1))
    np.testing.assert_allclose(pixels(own.picture(name)).mean(axis=(0, 1)), plain.mean(axis=(0, 1)), atol=3)
    assert own.part(0, 1)["items"][0]["stamp"] != before


def test_pictures_are_small_and_few_are_kept(page: ReviewPage, monkeypatch: pytest.MonkeyPatch) -> None:
    own, names = Thumbs(page), page.review.chosen[:5]
    sizes = [len(own.picture(name)) for name in names]
    monkeypatch.setattr(thumbs, "MOST_BYTES", sum(sizes[3:]))
    painted: list[str] = []
    paint = own._paint
    monkeypatch.setattr(own, "_paint", lambda name: painted.append(name) or paint(name))
    own.picture(names[4])
    assert painted == []  # it is kept
    own.picture(names[3])
    own.picture(names[0])
    assert painted == [names[0]]  # which was forgotten
    assert own._bytes == sum(len(each) for each in own._painted.values()) <= sum(sizes[3:])


def test_large_photograph_makes_a_small_picture(page: ReviewPage) -> None:
    name = page.review.chosen[0]
    candidate = page.review.candidates[name]
    Image.new("RGB", (900, 600), "red").save(candidate.mask.with_name("large.png"))
    large = candidate.mask.with_name("large.png")
    write_label_map(candidate.mask, np.zeros((600, 900), np.uint8))
    page.photo_folder = large.parent
    page.review.candidates[name] = type(candidate)(**{**vars(candidate), "image": large})
    assert pixels(Thumbs(page).picture(name)).shape == (75, 112, 3)


def test_nothing_else_is_shown(page: ReviewPage, tmp_path: Path) -> None:
    own, name = Thumbs(page), page.review.chosen[0]
    with pytest.raises(TagmaskError, match="is not among the masks under review"):
        own.picture("../../etc/passwd")
    mask = page.review.candidates[name].mask
    mask.rename(tmp_path / "elsewhere.png")
    mask.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(TagmaskError, match="leads out of"):
        own.picture(name)


def test_addresses_answer(page: ReviewPage) -> None:
    pytest.importorskip("starlette", reason="the page needs the extra `web`")
    pytest.importorskip("httpx", reason="the client of the test needs httpx")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    client = TestClient(Starlette(routes=thumbs.routes(Thumbs(page))))
    (item,) = client.get("/thumbs/part", params={"start": 1, "count": 1}).json()["items"]
    assert item["name"] == page.review.chosen[1]
    found = client.get("/thumbs/picture", params=item)
    assert (found.headers["content-type"], pixels(found.content).shape) == ("image/jpeg", (48, 48, 3))
    assert len(client.get("/thumbs/part", params={"start": 0, "count": 10**9}).json()["items"]) == len(page.review)
    assert client.get("/thumbs/part", params={"start": "x", "count": 1}).status_code == 400
    assert client.get("/thumbs/picture", params={"name": "/etc/passwd"}).status_code == 404


def test_jump_shows_an_image_by_name_and_decides_nothing(page: ReviewPage) -> None:
    first = page.start()
    name = page.review.chosen[4]
    shown = page.jump(first[SHOWING], name)
    assert page.name_of(shown[SHOWING]) == name
    assert 'data-place="4"' in shown[FACTS]
    assert f'data-of="{len(page.review)}"' in shown[FACTS]
    assert page.name_of(page.jump(shown[SHOWING], "unknown")[SHOWING]) == name
    assert page.review.decisions == {}
