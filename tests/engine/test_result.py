from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask import api
from tagmask.api import Model
from tagmask.data.images import open_image
from tagmask.data.masks import PngMask
from tagmask.data.pictures import display_palette, outlines
from tagmask.engine.inference import Item, Source, predict_pictures, stream
from tagmask.engine.model import segmenter_recipe
from tagmask.engine.result import Result, uncertainty
from tagmask.errors import TagmaskError
from tagmask.methods.combined import Combined
from tagmask.methods.registry import build_method
from tagmask.recipes.load import InferenceConfig
from tests.conftest import staged_recipe, tiny_recipe


@pytest.fixture(scope="module")
def model(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return api.load(api.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("runs") / "run"), device="cpu")


def test_labels_and_confidence_are_those_of_the_folder(model: Model, photo: Path) -> None:
    (expected,) = stream(model.method, [Item("a", photo)], model.run.recipe.inference)
    found = model.predict(photo)
    np.testing.assert_array_equal(found, expected.labels)
    assert found.confidence == expected.confidence
    assert found.confidence == pytest.approx(1 - found.uncertainty.mean(), abs=1e-5)


def test_tags_restrict_the_winners(model: Model, photo: Path) -> None:
    second = model.classes[1]
    found = model.predict(photo, [second])
    assert set(np.unique(found)) <= {0, 2}
    (expected,) = stream(model.method, [Item("a", photo, (1,))], model.run.recipe.inference)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.confidence == pytest.approx(1 - found.uncertainty.mean(), abs=1e-5)


def test_it_is_an_array_and_what_comes_of_it_is_a_plain_one(model: Model, photo: Path) -> None:
    found = model.predict(photo)
    assert (found.shape, found.dtype) == ((48, 48), np.uint8)
    assert isinstance(found, np.ndarray)
    for plain in (found == 1, found[3:5], found + 1, np.where(found, 1, 0), np.array(found), found.labels):
        assert type(plain) is np.ndarray
    assert type(found.max()) is np.uint8
    assert np.unique(found).tolist() == np.unique(found.labels).tolist()
    np.testing.assert_array_equal(Image.fromarray(found), found.labels)
    np.testing.assert_array_equal(torch.from_numpy(found.labels), found.labels)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)), found.labels)


def test_one_map_and_one_score_a_class(model: Model, photo: Path) -> None:
    found = model.predict(open_image(photo).resize((70, 50)))
    count = len(model.classes)
    assert found.shape == (50, 70)
    assert found.scores.shape == (count + 1, 6, 6)
    assert found.cams.shape == (count, 48, 48)
    (cams,) = stream(model.method, [Item("a", photo, (0,))], model.run.recipe.inference, source="cam")
    np.testing.assert_allclose(model.predict(photo).cams, cams.scores, atol=1e-6)
    assert found.tag_scores.shape == (count,)
    assert 0 < found.tag_scores.min() < found.tag_scores.max() < 1


def test_cams_may_be_made_at_scales_of_their_own(model: Model, photo: Path) -> None:
    plain = model.run.recipe.inference
    own = plain.model_copy(update={"cam_scales": (0.5, 2.0)})
    item = Item("a", photo, (0,))

    def scores(config: InferenceConfig, source: Source) -> np.ndarray:
        (found,) = stream(model.method, [item], config, source=source)
        return found.scores.numpy()

    expected = scores(plain.model_copy(update={"scales": (0.5, 2.0)}), "cam")
    np.testing.assert_array_equal(scores(own, "cam"), expected)
    assert np.abs(scores(plain, "cam") - expected).max() > 0.01
    np.testing.assert_array_equal(scores(own, "decoder"), scores(plain, "decoder"))


def test_tag_scores_are_of_the_classifier_that_learnt_and_not_of_a_segmenters(photo: Path) -> None:
    """With `copies` nothing teaches the segmenter's own classifier."""
    recipe = staged_recipe("rca", data={"context": ["sky"]})
    methods = [build_method(recipe, 4), build_method(segmenter_recipe(recipe), 3)]
    classifier, segmenter = (method.eval() for method in methods)
    classifier.network.backbone.mean += 0.1  # the two may see images otherwise
    with torch.inference_mode():
        for weight in segmenter.network.classifier.parameters():
            weight.zero_()
    combined = Combined(classifier, segmenter)
    (found,) = predict_pictures(combined, [open_image(photo)], None, recipe.inference)
    scores = Result(found, open_image(photo), ("boat", "train", "cow"), combined, recipe.inference).tag_scores
    with torch.inference_mode():
        small = open_image(photo).resize((32, 32), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
        expected = classifier.tag_logits(classifier.network.backbone.normalise(pixels))[0].sigmoid()
    assert expected.shape == (4,)
    np.testing.assert_allclose(scores, expected[:3].numpy(), atol=1e-5)
    assert (scores != 0.5).all()


def test_overlay_colours_what_the_labels_say_and_is_what_a_notebook_shows(model: Model, photo: Path) -> None:
    found = model.predict(photo)
    found[10:30, 10:30] = 2
    found[30:] = 0
    picture = np.asarray(found.overlay(opacity=1.0))
    np.testing.assert_array_equal(picture[10:30, 10:30], np.broadcast_to(display_palette()[2], (20, 20, 3)))
    np.testing.assert_array_equal(picture[30:], np.asarray(open_image(photo))[30:])
    faint = np.asarray(found.overlay(opacity=0.0))
    changed = (faint != np.asarray(open_image(photo))).any(axis=-1)
    assert not changed[~outlines(found.labels)].any()
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        np.testing.assert_array_equal(shown, found.overlay())


def test_save_writes_ids(model: Model, photo: Path, tmp_path: Path) -> None:
    found = model.predict(photo)
    found.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(PngMask(tmp_path / "mask.png").ids(), found.labels)
    with pytest.raises(TagmaskError, match=r"give a name that ends in \.png"):
        found.save(tmp_path / "mask.jpg")


def test_every_form_of_an_image_gives_the_same_labels(model: Model, photo: Path) -> None:
    expected = model.predict(photo)
    pixels = np.asarray(open_image(photo))
    clear = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    with photo.open("rb") as file:
        forms = [str(photo), photo.read_bytes(), file, Image.open(photo), pixels, pixels / 255, clear]
        for form in forms:
            np.testing.assert_array_equal(model.predict(form), expected, err_msg=str(type(form)))


def test_grey_and_deep_arrays_are_read_as_files_are(model: Model, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    grey[0, 0] = 4095
    Image.fromarray(grey).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(model.predict(grey).image, open_image(tmp_path / "deep.png"))
    shallow = (grey >> 4).astype(np.uint8)
    for form in (shallow, shallow[..., None]):
        np.testing.assert_array_equal(model.predict(form).image, np.dstack([shallow] * 3))
    half = np.dstack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 51, np.uint8)])
    np.testing.assert_array_equal(model.predict(half).image, np.full((4, 4, 3), 204))  # a fifth black on white


def test_many_are_in_order_whatever_their_sizes(model: Model, cooccur: Path) -> None:
    paths = sorted((cooccur / "images").rglob("*.png"))[:5]
    images = [open_image(path).resize((40 + 8 * (index % 2), 40)) for index, path in enumerate(paths)]
    found = model.predict_many(iter(images), batch=2)
    assert all(isinstance(own, Result) for own in found)
    for own, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(own.image, image)
        np.testing.assert_array_equal(own, model.predict(image))
    assert model.predict_many([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(3, 8, 8),
            "is a Tensor; expected a path, bytes, a Pillow picture or an array",
        ),
        (["a.jpg"], "is a list; .* several images go to predict_many"),
        (np.zeros((3, 8, 8), np.uint8), r"array of shape \(3, 8, 8\); expected .* the colours last"),
        (np.zeros((0, 8, 3), np.uint8), r"array of shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), 200.0), "floating point pixels outside 0..1"),
        (np.zeros((8, 8), np.int64), "pixels of int64; expected uint8"),
        (np.zeros((8, 8, 3), np.uint16), "pixels of uint16"),
        (b"no picture", r"\(image in memory\): these bytes are no image of the formats"),
        (io.BytesIO(b""), r"\(image in memory\)"),
    ],
)
def test_what_is_no_image_is_told_with_what_is(model: Model, image: object, message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        model.predict(image)  # pyright: ignore


def test_wrong_tags_and_a_single_image_are_named(model: Model, photo: Path) -> None:
    with pytest.raises(TagmaskError, match="'unicorn' is no class"):
        model.predict(photo, ["unicorn"])
    with pytest.raises(TagmaskError, match="an empty list leaves nothing but background; leave tags out"):
        model.predict(photo, [])
    with pytest.raises(TagmaskError, match="is one image; give a list of images, or call predict"):
        model.predict_many(photo)  # pyright: ignore


def test_a_model_says_what_it_is(model: Model) -> None:
    said = repr(model)
    assert f"cam on vit_tiny_patch16_224, 0.0 million weights, 3 classes: {', '.join(model.classes)}" in said
    assert repr(tagmask.load(model.run.folder, device="cpu")) == said


@pytest.mark.parametrize(
    ("ids", "background", "left"),
    [(None, True, [0, 1, 2]), ([1], True, [0, 2]), ([0, 2], False, [0, 2]), ([], True, [0])],
)
def test_uncertainty_is_what_the_winner_leaves(ids: list[int] | None, background: bool, left: list[int]) -> None:
    fractions = torch.tensor([0.5, 0.3, 0.2])
    kept = fractions[left]
    expected = 1 - float(kept.max() / kept.sum())
    found = uncertainty(fractions.log()[:, None, None].expand(3, 2, 4), ids, background)
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_background_is_made_stronger_and_weaker(model: Model, photo: Path) -> None:
    found = model.predict(photo)
    np.testing.assert_array_equal(found.relabel(), found.labels)
    least, less, more, most = (int((found.relabel(background=by) == 0).sum()) for by in (-30, -1, 1, 30))
    assert least == 0
    assert least <= less <= int((found == 0).sum()) <= more <= most
    assert most == found.size
    # Twice the odds of the background are log 2 more in its logit.
    scores = torch.from_numpy(found.scores)[None].clone()
    scores[:, 0] += 2 * torch.log(torch.tensor(2.0))
    expected = torch.nn.functional.interpolate(scores, size=found.shape, mode="bilinear", align_corners=False)
    assert (found.relabel(background=2) == expected[0].argmax(0).numpy()).mean() > 0.99


def test_relabelling_goes_by_tags_maps_and_refinement(model: Model, photo: Path) -> None:
    found, second = model.predict(photo), model.classes[1]
    assert set(np.unique(found.relabel([second], background=-30))) == {2}
    threshold = model.run.recipe.inference.background_score
    cam = torch.nn.functional.interpolate(
        torch.from_numpy(found.cams[1])[None, None], size=found.shape, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    for by in (-1, 0, 0.5):
        own = found.relabel([second], source="cam", background=by)
        assert ((own == 2) == (cam > threshold * 2**by)).mean() > 0.99
    assert (found.relabel(source="cam", background=30) == 0).all()
    config = model.run.recipe.inference.model_copy(update={"refine": "crf"})
    (expected,) = stream(model.method, [Item("a", photo)], config)
    np.testing.assert_array_equal(found.relabel(refine="crf"), expected.labels)
