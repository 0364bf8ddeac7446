"""What the tabs do, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.api import Model, load
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.serve import try_tab
from tagmask.serve.photos import find_photos
from tagmask.serve.review import Review, find_candidates
from tagmask.serve.review_tab import ReviewPage

SHOWING, STAGE, FACTS, LEGEND, TAGS, PROGRESS, MESSAGE = range(7)


def test_view_holds_the_mask_to_download(model: Model, photo: Path, tmp_path: Path) -> None:
    shown = try_tab.view(model, photo, [], model.classes, tmp_path)
    assert shown.mask.name == f"{photo.stem}_mask.png"
    with Image.open(shown.mask) as image:
        assert image.mode == "P"
    np.testing.assert_array_equal(PngMask(shown.mask).ids(), model.predict(photo))
    assert shown.cams.count("<figure>") == len(model.classes)
    assert shown.stage.count("<img") == 2


def test_view_takes_the_tags_that_its_run_knows(model: Model, photo: Path, tmp_path: Path) -> None:
    tags = ["unicorn", model.classes[0]]
    shown = try_tab.view(model, photo, tags, [*model.classes, "unicorn"], tmp_path)
    assert set(np.unique(shown.labels)) <= {0, 1}
    assert "does not know unicorn" in try_tab.remark(tags, [model], [shown])
    with pytest.raises(TagmaskError, match="knows none of these tags"):
        try_tab.view(model, photo, ["unicorn"], model.classes, tmp_path)


def test_runs_agree_where_they_name_the_same_class(model: Model, other: Path, photo: Path, tmp_path: Path) -> None:
    models = [model, load(other, device="cpu")]
    views = [try_tab.view(own, photo, [], model.classes, tmp_path) for own in models]
    share = (views[0].labels == views[1].labels).mean()
    assert try_tab.agreement(views[0].labels, views[1].labels, models) == pytest.approx(share)
    assert f"agree on {share:.1%}" in try_tab.remark([], models, views)


class _Named:
    def __init__(self, *classes: str) -> None:
        self.classes = classes


def test_agreement_goes_by_name_not_by_id() -> None:
    models = [_Named("cat", "dog"), _Named("dog", "cow")]
    assert try_tab.all_classes(models) == ["cat", "dog", "cow"]  # type: ignore[arg-type]
    first = np.array([[0, 2, 1, 255, 2]], np.uint8)
    second = np.array([[0, 1, 1, 255, 2]], np.uint8)
    assert try_tab.agreement(first, second, models) == pytest.approx(3 / 5)  # type: ignore[arg-type]


@pytest.fixture
def review(model: Model, masks: Path, tmp_path: Path) -> ReviewPage:
    photos = find_photos(model, None)
    candidates, left_out = find_candidates(masks, photos, model.classes)
    assert not left_out
    return ReviewPage(Review(candidates, tmp_path / "review.csv", model.classes), model, (photos.root, masks))


def _name(shown: list) -> str:
    return shown[SHOWING].partition(" ")[2]


def test_review_begins_with_the_least_confident(review: ReviewPage) -> None:
    first = review.start()
    name = next(iter(review.review.candidates))
    assert _name(first) == name
    assert first[STAGE].count("<img") == 2
    assert f'data-showing="{first[SHOWING]}"' in first[FACTS]
    assert first[TAGS] == list(review.review.tags(name))
    assert f"1 of {len(review.review)}" in first[FACTS]
    assert first[MESSAGE] == ""


def test_decision_leads_to_the_next(review: ReviewPage) -> None:
    names = list(review.review.candidates)
    first = review.start()
    shown = review.decide(first[SHOWING], "keep", first[TAGS])
    assert _name(shown) == names[1]
    assert "1 of" in shown[PROGRESS]
    assert "kept, saved" in shown[MESSAGE]
    back = review.step(shown[SHOWING], -1)
    assert _name(back) == names[0]
    assert "kept" in back[FACTS]


def test_image_painted_ahead_is_the_one_that_is_shown(review: ReviewPage) -> None:
    first = review.start()
    shown = review.decide(first[SHOWING], "keep", first[TAGS])
    assert shown[STAGE] == review.show(_name(shown))[STAGE] != first[STAGE]


def test_press_that_overtook_the_page_changes_no_decision(review: ReviewPage) -> None:
    first = review.start()
    second = review.decide(first[SHOWING], "keep", first[TAGS])
    late = review.decide(first[SHOWING], "redo", first[TAGS])
    assert "not stored" in late[MESSAGE]
    assert {name: own.verdict for name, own in review.review.decisions.items()} == {_name(first): "keep"}
    review.decide(second[SHOWING], "redo", second[TAGS])
    review.step(late[SHOWING], 1)
    assert "not stored" in review.decide(late[SHOWING], "redo", late[TAGS])[MESSAGE]
    verdicts = {name: own.verdict for name, own in review.review.decisions.items()}
    assert verdicts == {_name(first): "keep", _name(second): "redo"}
    again = review.step(second[SHOWING], -1)
    review.decide(again[SHOWING], "redo", again[TAGS])  # looked at once more, it can be decided anew
    assert review.review.decisions[_name(first)].verdict == "redo"


def test_refused_decision_stays_with_the_tags_as_chosen(review: ReviewPage, model: Model) -> None:
    first = review.start()
    name = _name(first)
    changed = [tag for tag in model.classes if tag not in review.review.tags(name)]
    shown = review.decide(first[SHOWING], "keep", changed)
    assert (_name(shown), shown[TAGS]) == (name, changed)
    assert "tags were changed" in shown[MESSAGE]
    assert not review.review.file.exists()
    review.decide(shown[SHOWING], "tags", shown[TAGS])
    assert review.review.tags(name) == tuple(changed)


def test_end_of_the_review_is_said(review: ReviewPage) -> None:
    shown = review.start()
    for _ in range(len(review.review)):
        shown = review.decide(shown[SHOWING], "redo", shown[TAGS])
    assert "All are decided" in shown[MESSAGE]
    assert "All are decided" in review.start()[MESSAGE]


def test_pair_that_cannot_be_shown_is_said_and_can_be_left(review: ReviewPage, tmp_path: Path) -> None:
    name = _name(review.start())
    review.mask_folder = tmp_path
    shown = review.show(name)
    assert "leads out of" in shown[STAGE]
    assert _name(review.step(shown[SHOWING], 1)) != name


def test_only_some_are_shown(review: ReviewPage) -> None:
    first = review.start()
    shown = review.decide(first[SHOWING], "redo", first[TAGS])
    shown = review.choose(shown[SHOWING], "", "to redo", 1.0)
    assert _name(shown) == _name(first)
    assert f"1 of 1 chosen, {len(review.review)} in all" in shown[FACTS]
    shown = review.decide(shown[SHOWING], "keep", shown[TAGS])
    assert "All are decided" in shown[MESSAGE]
    shown = review.choose(shown[SHOWING], "", "mended", 1.0)
    assert "No image is like that" in shown[MESSAGE]
    assert f" of {len(review.review)}<br>" in shown[FACTS]
