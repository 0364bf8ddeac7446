"""What the editor of the page asks of the server, without a browser."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tagmask.api import Model, label, open_data, train
from tagmask.data.masks import PngMask
from tagmask.errors import TagmaskError
from tagmask.serve.editor import Editor, routes
from tagmask.serve.photos import Photo, find_photos
from tagmask.serve.review import Review, find_candidates
from tagmask.serve.review_tab import ReviewPage
from tests.conftest import tiny_recipe

SHOWING, FACTS, TAGS, PROGRESS, MESSAGE = 0, 2, 4, 5, 6
SIZE = (48, 48)


@pytest.fixture
def page(model: Model, labelled: Path, tmp_path: Path) -> ReviewPage:
    photos = find_photos(model, None)
    review = Review(find_candidates(labelled, photos, model.classes)[0], tmp_path / "review.csv", model.classes)
    return ReviewPage(review, model, (photos.root, labelled))


@pytest.fixture
def editor(page: ReviewPage) -> Editor:
    return Editor(page)


@pytest.fixture
def showing(page: ReviewPage) -> str:
    first = page.start()
    return page.mend(first[SHOWING], first[TAGS])[SHOWING]


def _labels(editor: Editor, showing: str) -> np.ndarray:
    return np.frombuffer(editor.map(showing), np.uint8).reshape(SIZE).copy()


def test_editor_opens_the_mask_that_is_shown(editor: Editor, page: ReviewPage, showing: str, model: Model) -> None:
    opened = editor.open(showing)
    name = page.name_of(showing)
    assert (opened["name"], opened["height"], opened["width"]) == (name, *SIZE)
    assert [model.classes[own - 1] for own in opened["tags"]] == list(page.review.tags(name))
    assert opened["photo"].startswith("data:image/jpeg;base64,")
    assert opened["colours"][1] == [255, 51, 153]  # the bright palette, not the one of files
    assert (_labels(editor, showing) == PngMask(page.review.candidates[name].mask).ids()).all()
    assert "data-mend" in page.show(name, mend=True)[FACTS]
    assert "data-mend" not in page.show(name)[FACTS]


def test_editor_refuses_more_classes_than_a_byte_holds(editor: Editor, showing: str) -> None:
    editor._classes = tuple(f"c{number}" for number in range(256))
    with pytest.raises(TagmaskError, match=r"up to 254 classes, and this run has more: mend .*\.png by a program"):
        editor.open(showing)


def test_saved_mask_is_decided_and_label_leaves_it(
    editor: Editor, page: ReviewPage, showing: str, run: Path, labelled: Path
) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[4:9, 5:20] = 3
    name = page.name_of(showing)
    editor.map(showing)
    editor.save(showing, labels.tobytes())
    mask = page.review.candidates[name].mask
    assert (PngMask(mask).ids() == labels).all()
    assert page.review.decisions[name].verdict == "edited"
    shown = page.after(showing, "edited")
    assert shown[SHOWING].partition(" ")[2] != name
    assert f"{name}: mended, saved" in shown[MESSAGE]
    assert "1 mended" in shown[PROGRESS]
    assert "mended" in page.show(name)[FACTS]
    rows = list(csv.DictReader(page.review.file.open(encoding="utf-8")))
    assert [row["verdict"] for row in rows if Path(row["image"]).stem == Path(name).stem] == ["edited"]
    with pytest.raises(TagmaskError, match="was changed since it was written"):
        label(run, output=labelled, split=["train"])
    assert (PngMask(mask).ids() == labels).all()


def test_mended_masks_are_trained_on_with_full_supervision(
    editor: Editor, page: ReviewPage, showing: str, cooccur: Path, labelled: Path, tmp_path: Path
) -> None:
    labels = np.full(SIZE, 2, np.uint8)
    editor.map(showing)
    editor.save(showing, labels.tobytes())
    recipe = tiny_recipe("full", "training.steps=1", f"data.masks={labelled}")
    records = {record.name: record for record in open_data(cooccur, recipe.data).records}
    mask = records[page.name_of(showing)].mask
    assert mask is not None
    assert (mask.load(*SIZE) == labels).all()
    assert (train(cooccur, recipe=recipe, output=tmp_path / "full") / "model.safetensors").is_file()


def test_class_that_was_painted_becomes_a_tag(editor: Editor, page: ReviewPage, showing: str, model: Model) -> None:
    name = page.name_of(showing)
    before = page.review.tags(name)
    new = next(own for own in model.classes if own not in before)
    editor.map(showing)
    editor.save(showing, np.full(SIZE, 1 + model.classes.index(new), np.uint8).tobytes())
    assert set(page.review.tags(name)) == {*before, new}


def test_tags_nobody_gave_are_those_of_the_mended_mask(model: Model, labelled: Path, tmp_path: Path) -> None:
    photos = find_photos(model, None)
    for name, photo in photos.by_name.items():
        photos.by_name[name] = Photo(photo.path)
    review = Review(find_candidates(labelled, photos, model.classes)[0], tmp_path / "r.csv", model.classes)
    page = ReviewPage(review, model, (photos.root, labelled))
    editor, showing = Editor(page), page.start()[SHOWING]
    editor.map(showing)
    editor.save(showing, np.full(SIZE, 2, np.uint8).tobytes())
    assert review.tags(page.name_of(showing)) == (model.classes[1],)


def test_next_image_is_painted_with_the_mended_mask(editor: Editor, page: ReviewPage, showing: str) -> None:
    """The page paints the next image ahead; a mask that is mended meanwhile must not be shown as it was."""
    name = page.name_of(showing)
    page._paint_ahead(page.review.beside(name, -1))
    assert name in page._ahead
    editor.map(showing)
    editor.save(showing, np.full(SIZE, 1, np.uint8).tobytes())
    assert "mask: " + page.model.classes[0] + " 100.0%" in page.show(name)[1]


def test_save_is_refused_where_the_page_has_moved_on(editor: Editor, page: ReviewPage, showing: str) -> None:
    labels = _labels(editor, showing)
    page.decide(showing, "keep", page.review.tags(page.name_of(showing)))
    for work in (editor.save, lambda *_: editor.open(showing), lambda *_: editor.map(showing)):
        with pytest.raises(TagmaskError, match="shows another image by now"):
            work(showing, labels.tobytes())
    assert page.review.decisions[page.name_of(showing)].verdict == "keep"
    for strange in ("", "7 nothing", "1 ../../etc/passwd"):
        with pytest.raises(TagmaskError, match="shows another image by now"):
            editor.open(strange)


def test_save_is_refused_where_the_mask_was_changed_meanwhile(editor: Editor, page: ReviewPage, showing: str) -> None:
    labels = _labels(editor, showing)
    mask = page.review.candidates[page.name_of(showing)].mask
    content = mask.read_bytes() + b"\0"
    mask.write_bytes(content)
    with pytest.raises(TagmaskError, match="something else changed the mask"):
        editor.save(showing, labels.tobytes())
    assert mask.read_bytes() == content
    assert not page.review.decisions


def test_refused_save_can_be_tried_again(editor: Editor, page: ReviewPage, showing: str) -> None:
    labels = _labels(editor, showing)
    with pytest.raises(TagmaskError, match="pixels, its image 2304"):
        editor.save(showing, labels.tobytes()[1:])
    labels[0, 0] = 77
    with pytest.raises(TagmaskError, match="ids 77 in the mask are no class"):
        editor.save(showing, labels.tobytes())
    assert not page.review.decisions
    page.review.file.write_text("a letter")
    labels[0, 0] = 1
    with pytest.raises(TagmaskError, match="changed by something else"):
        editor.save(showing, labels.tobytes())
    page.review.file.unlink()
    editor.map(showing)  # the mask itself was written
    editor.save(showing, labels.tobytes())
    assert page.review.decisions[page.name_of(showing)].verdict == "edited"


def test_changed_tags_are_saved_before_the_mask_is_mended(page: ReviewPage, model: Model) -> None:
    first = page.start()
    changed = [own for own in model.classes if own not in first[TAGS]]
    shown = page.mend(first[SHOWING], changed)
    assert "tags were changed" in shown[MESSAGE]
    assert shown[TAGS] == changed
    assert "data-mend" not in shown[FACTS]


def test_region_and_scribble_are_worked_out(editor: Editor, page: ReviewPage, showing: str, model: Model) -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[4:9, 5:20] = 3
    changed = editor.region(showing, labels.tobytes(), x=6, y=5, change="relabel", label=2)
    assert (np.frombuffer(changed, np.uint8).reshape(SIZE) == np.where(labels == 3, 2, 0)).all()
    marks = np.zeros(SIZE, np.uint8)
    marks[30, 10:30] = 2
    refined = editor.scribble(showing, labels.tobytes() + marks.tobytes(), label=1, wanted=True)
    assert (np.frombuffer(refined, np.uint8).reshape(SIZE)[30, 10:30] == 1).all()
    with pytest.raises(TagmaskError, match="id 9 is no class"):
        editor.region(showing, labels.tobytes(), x=6, y=5, change="relabel", label=9)
    with pytest.raises(TagmaskError, match="ignored pixels"):
        editor.scribble(showing, labels.tobytes() + marks.tobytes(), label=255, wanted=True)
    with pytest.raises(TagmaskError, match="marks do not fit"):
        editor.scribble(showing, labels.tobytes() * 2, label=1, wanted=True)


def test_models_probabilities_follow_the_ids(editor: Editor, page: ReviewPage, showing: str, model: Model) -> None:
    found = editor._prediction(showing)
    assert found is not None
    _, probabilities = found
    assert len(probabilities) == len(model.classes) + 1
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_addresses_answer_and_say_what_is_wrong(editor: Editor, page: ReviewPage, showing: str) -> None:
    pytest.importorskip("starlette", reason="the page needs the extra `web`")
    pytest.importorskip("httpx", reason="the client of the test needs httpx")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    client = TestClient(Starlette(routes=routes(editor)))
    asked = {"showing": showing}
    assert client.get("/mend/open", params=asked).json()["width"] == SIZE[1]
    content = client.get("/mend/map", params=asked).content
    assert len(content) == SIZE[0] * SIZE[1]
    query = asked | {"x": "3", "y": "3", "change": "relabel", "label": "2"}
    relabelled = client.post("/mend/region", params=query, content=content)
    assert relabelled.content[3 * SIZE[1] + 3] == 2
    for params, sent, status, message in (
        (query | {"x": "-1"}, content, 409, "lies outside"),
        (query | {"x": "here"}, content, 400, "reload the page"),
        (asked, content, 400, "reload the page"),
        (query, content + bytes(3 * len(content)), 409, "more bytes than the image has pixels"),
        (query | {"showing": "9 x"}, content, 409, "another image by now"),
    ):
        answer = client.post("/mend/region", params=params, content=sent)
        assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    anew = asked | {"source": "cam", "background": "6", "refine": "none"}
    assert client.get("/mend/relabel", params=anew).content == bytes(len(content))
    assert client.get("/mend/relabel", params=anew | {"background": "strong"}).status_code == 400
    assert client.get("/mend/save", params=asked).status_code == 405
    assert client.post("/mend/save", params=asked, content=relabelled.content).status_code == 200
    assert client.post("/mend/save", params=asked, content=content).status_code == 409
    mask = page.review.candidates[page.name_of(showing)].mask
    assert PngMask(mask).ids().tobytes() == relabelled.content


def test_image_is_labelled_anew_within_its_tags(editor: Editor, page: ReviewPage, showing: str, model: Model) -> None:
    name = page.name_of(showing)
    found = model.predict(page.review.candidates[name].image)
    tags = page.review.tags(name)

    def anew(source: str, background: float, refine: str) -> np.ndarray:
        content = editor.relabel(showing, source=source, background=background, refine=refine)
        return np.frombuffer(content, np.uint8).reshape(SIZE)

    np.testing.assert_array_equal(anew("decoder", 1, "none"), found.relabel(tags, background=1, refine="none"))
    np.testing.assert_array_equal(
        anew("cam", -1, "crf"), found.relabel(tags, source="cam", background=-1, refine="crf")
    )
    assert (anew("cam", 6, "none") == 0).all()
    for wrong in (("disk", 0.0, "none"), ("cam", 0.0, "magic"), ("cam", float("nan"), "none"), ("cam", 7.0, "none")):
        with pytest.raises(TagmaskError, match="do not fit"):
            anew(*wrong)
    with pytest.raises(TagmaskError, match="another image by now"):
        editor.relabel("9 other", source="cam", background=0, refine="none")
