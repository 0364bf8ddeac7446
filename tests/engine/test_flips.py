"""Inference of a flipped image is the flipped inference, over scales, sizes and tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tagmask.data.images import picture_of
from tagmask.engine import inference, label_map
from tagmask.engine.inference import Item, check_source, predict_pictures, score, stream, to_label_map
from tagmask.engine.photographs import Photograph, network_size
from tagmask.errors import TagmaskError
from tagmask.ops.cam import multiscale_cams
from tagmask.recipes.load import InferenceConfig


class Backbone(nn.Module):
    def normalise(self, images: Tensor) -> Tensor:
        return (images - 0.5) / 0.25


class Lopsided(nn.Module):
    """What inference asks of a method; its network knows left from right and what stands where."""

    def __init__(self, num_classes: int = 3, background: bool = True, contexts: int = 0) -> None:
        super().__init__()
        self.num_classes, self.background = num_classes, background
        generator = torch.Generator().manual_seed(5)
        channels = num_classes + max(contexts, int(background))
        self.kernel = nn.Parameter(torch.randn(channels, 3, 4, 4, generator=generator))
        self.network = nn.Module()
        self.network.backbone = Backbone()
        self.seen: list[tuple[int, ...]] = []

    def scores(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        maps = F.conv2d(images, self.kernel, stride=4)
        return maps * torch.linspace(0.2, 1.8, maps.shape[-1])

    def cams(self, images: Tensor, scales: tuple[float, ...]) -> Tensor:
        (cams,) = multiscale_cams(lambda views: (self.scores(views),), images, scales)
        return cams


PHOTO = np.random.default_rng(3).integers(0, 256, (20, 28, 3), dtype=np.uint8)
IMAGES = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def settings(**values: object) -> InferenceConfig:
    return InferenceConfig.model_validate({"size": None, **values})


@pytest.fixture
def photographs(tmp_path: Path) -> list[Item]:
    """A photograph, its flip, and one of another size."""
    for name, pixels in (("a", PHOTO), ("b", PHOTO[:, ::-1]), ("c", PHOTO[:16])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    return [Item(name, tmp_path / f"{name}.png") for name in "abc"]


@pytest.mark.parametrize("source", ["decoder", "cam"])
@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (1.0, 0.5, 1.5)])
def test_scores_of_flipped_images_are_the_flipped_scores(source: str, scales: tuple[float, ...]) -> None:
    method, config = Lopsided(), settings(scales=scales)
    straight, flipped = (score(method, images, config, source) for images in (IMAGES, IMAGES.flip(-1)))  # pyright: ignore
    torch.testing.assert_close(flipped.flip(-1), straight, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(flipped, straight, atol=0.1)


def test_image_and_flip_are_summed_at_one_scale() -> None:
    method = Lopsided()
    plain, turned = method.scores(IMAGES), method.scores(IMAGES.flip(-1)).flip(-1)
    torch.testing.assert_close(score(method, IMAGES, settings(), "decoder"), plain + turned)
    torch.testing.assert_close(score(method, IMAGES, settings(flip=False), "decoder"), plain)


def test_over_scales_the_largest_counts_at_the_size_of_the_image() -> None:
    method = Lopsided()
    half, twice = (F.interpolate(IMAGES, scale_factor=factor, mode="bilinear") for factor in (0.5, 2.0))
    logits = [F.interpolate(method.scores(each), size=(16, 24), mode="bilinear") for each in (half, IMAGES, twice)]
    given = score(method, IMAGES, settings(scales=(0.5, 1.0, 2.0), flip=False), "decoder")
    torch.testing.assert_close(given, torch.stack(logits).amax(dim=0))
    assert score(method, IMAGES, settings(scales=(0.5,), flip=False), "decoder").shape == (2, 4, 2, 3)


def test_cams_are_taken_at_the_scales_of_the_recipe() -> None:
    method = Lopsided()
    given = score(method, IMAGES, settings(scales=(1.0, 0.5), flip=False), "cam")
    torch.testing.assert_close(given, method.cams(IMAGES, (1.0, 0.5)))


def test_half_precision_is_whole_precision_again_behind_the_network() -> None:
    method = Lopsided()
    for source in ("decoder", "cam"):
        half, whole = (
            score(method, IMAGES, settings(precision=precision), source)  # pyright: ignore
            for precision in ("bf16-mixed", "32-true")
        )
        assert half.dtype == whole.dtype == torch.float32
        assert not torch.equal(half, whole)
        torch.testing.assert_close(half, whole, rtol=0.05, atol=0.3)


def test_label_maps_of_flipped_photographs_are_flipped(photographs: list[Item]) -> None:
    for config in (settings(), settings(scales=(1.0, 0.5)), settings(refine="par")):
        first, second, _ = (each.labels for each in stream(Lopsided(), photographs, config))  # pyright: ignore
        assert first.shape == (20, 28)
        assert len(np.unique(first)) == 4
        assert (first[:, ::-1] == second).mean() > 0.97  # at ties either may win


def test_stream_says_what_predict_pictures_says(photographs: list[Item]) -> None:
    method = Lopsided()
    for prediction in stream(method, photographs, settings(size=16)):  # pyright: ignore
        for image in (prediction.item.path, str(prediction.item.path), Image.open(prediction.item.path)):
            pictures = [picture_of(image)]
            (alone,) = predict_pictures(method, pictures, None, settings(size=16))  # pyright: ignore
            assert np.array_equal(alone.labels, prediction.labels)
            torch.testing.assert_close(alone.scores, prediction.scores)
            assert alone.confidence == pytest.approx(prediction.confidence)
        pictures = [picture_of(prediction.item.path)]
        (tagged,) = predict_pictures(method, pictures, (1,), settings(size=16))  # pyright: ignore
        assert set(np.unique(tagged.labels)) == {0, 2}
        assert (tagged.item.name, tagged.item.tags) == ("0", (1,))
    transparent = picture_of(Image.fromarray(PHOTO).convert("RGBA"))
    (found,) = predict_pictures(method, [transparent], None, settings())  # pyright: ignore
    assert found.labels.shape == (20, 28)


def test_images_of_one_size_go_together_and_all_come_out(photographs: list[Item]) -> None:
    method = Lopsided()
    a, _, c = photographs
    items = [Item(str(place), (c if place in (2, 5) else a).path) for place in range(8)]
    names = [prediction.item.name for prediction in stream(method, items, settings(), batch=4)]  # pyright: ignore
    assert names == ["0", "1", "3", "4", "6", "7", "2", "5"]
    assert method.seen == [(8, 3, 20, 28), (4, 3, 20, 28), (4, 3, 16, 28)]
    method.seen.clear()
    list(stream(method, [Item("a", a.path)] * 9, settings(flip=False)))  # pyright: ignore
    assert method.seen == [(8, 3, 20, 28), (1, 3, 20, 28)]


def test_no_more_images_are_ahead_than_four_batches(photographs: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    open_ahead = inference.open_ahead

    def noted(*arguments: object, **options: int) -> object:
        most.append(options["most"])
        return open_ahead(*arguments, **options)  # pyright: ignore

    monkeypatch.setattr(inference, "open_ahead", noted)
    for options in ({"batch": 2}, {}):
        list(stream(Lopsided(), photographs, settings(), **options))  # pyright: ignore
    assert most == [8, 32]


def test_groups_that_hold_too_many_pixels_do_not_wait_until_they_are_full(
    photographs: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holds 560 pixels and C 448; a group goes as soon as more than 1500 wait."""
    monkeypatch.setattr(inference, "PIXELS_WAITING", 1500)
    a, _, c = photographs
    items = [Item(str(place), (c if place in (1, 4) else a).path) for place in range(7)]
    method = Lopsided()
    names = [prediction.item.name for prediction in stream(method, items, settings(flip=False))]  # pyright: ignore
    assert names == ["0", "2", "3", "5", "6", "1", "4"]


def test_an_image_that_does_not_open_is_told_or_raised(photographs: list[Item], tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    told: list[str] = []
    results = stream(
        Lopsided(),  # pyright: ignore
        photographs,
        settings(),
        on_error=lambda item, error: told.append(f"{item.name}: {error}"),
    )
    assert [prediction.item.name for prediction in results] == ["a", "c"]
    assert len(told) == 1
    assert told[0].startswith("b: ")
    assert "b.png" in told[0]
    with pytest.raises(TagmaskError, match=r"b\.png"):
        list(stream(Lopsided(), photographs, settings()))  # pyright: ignore


def test_cams_of_classes_are_cleared_where_a_context_class_of_the_image_is_higher(photographs: list[Item]) -> None:
    method, path = Lopsided(contexts=2), photographs[0].path
    plain, first, second, both = (
        prediction.scores
        for prediction in stream(
            method,  # pyright: ignore
            [Item(str(context), path, (0, 1, 2), context) for context in ((), (0,), (1,), (0, 1))],
            settings(),
            source="cam",
        )
    )
    pixels = torch.from_numpy(PHOTO).permute(2, 0, 1)[None] / 255
    cams = method.cams(method.network.backbone.normalise(pixels), (1.0,))[0].detach()
    torch.testing.assert_close(plain, cams[:3])
    for given, contexts in ((first, [3]), (second, [4]), (both, [3, 4])):
        highest = cams[contexts].amax(dim=0)
        torch.testing.assert_close(given, torch.where(cams[:3] >= highest, cams[:3], 0.0))
        assert not torch.equal(given, plain)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"size": 32}, (32, 32)),
        ({"size": None}, (60, 40)),
        ({"long_side": 30}, (30, 20)),
        ({"long_side": 90, "size": 8}, (90, 60)),
        ({"long_side": 1}, (1, 1)),
    ],
)
def test_size_of_the_network(values: dict, size: tuple[int, int]) -> None:
    config = InferenceConfig.model_validate(values)
    assert network_size(60, 40, config) == size
    assert network_size(40, 60, config) == size[::-1]
    assert network_size(1000, 1, InferenceConfig(long_side=3)) == (3, 1)
    assert network_size(1, 1000, InferenceConfig(long_side=3)) == (1, 3)


def maps(*planes: list[list[float]]) -> Tensor:
    return torch.tensor(planes)


def labelled(scores: Tensor, tags, source, background: bool, size=None, **values: object) -> tuple[list, float]:
    height, width = size or scores.shape[-2:]
    picture = Image.new("RGB", (width, height))
    config = settings(**values)
    labels, confidence = to_label_map(scores, tags, Photograph.of(picture, config), config, source, background)
    assert labels.dtype == np.uint8
    return labels.tolist(), confidence


def test_who_may_win() -> None:
    """Planes of decoders have a background where the data have one; CAMs get one from the recipe."""
    decoder = maps([[3.0, 0, 0, 0]], [[0.0, 3, 0, 1]], [[0.0, 0, 3, 2]])
    assert labelled(decoder, None, "decoder", True)[0] == [[0, 1, 2, 2]]
    assert labelled(decoder, [0], "decoder", True)[0] == [[0, 1, 0, 1]]
    assert labelled(decoder, [1], "decoder", True)[0] == [[0, 0, 2, 2]]
    assert labelled(decoder, [], "decoder", True)[0] == [[0, 0, 0, 0]]
    assert labelled(decoder, None, "decoder", False)[0] == [[1, 2, 3, 3]]
    assert labelled(decoder, [0, 1], "decoder", False)[0] == [[1, 2, 1, 2]]
    assert labelled(decoder, [2], "decoder", False)[0] == [[3, 3, 3, 3]]
    assert labelled(decoder, [], "decoder", False) == ([[255] * 4], 1.0)
    cams = maps([[0.4, 0.6, 0.5, 0.0]], [[0.3, 0.7, 0.0, 0.9]])
    assert labelled(cams, None, "cam", True)[0] == [[0, 2, 0, 2]]
    assert labelled(cams, [0], "cam", True)[0] == [[0, 1, 0, 0]]
    assert labelled(cams, [0, 1], "cam", True, background_score=0.2)[0] == [[1, 2, 1, 2]]
    assert labelled(cams, [], "cam", True)[0] == [[0, 0, 0, 0]]
    assert labelled(cams, None, "cam", False)[0] == [[1, 2, 1, 2]]
    assert labelled(cams, [0], "cam", False)[0] == [[1, 1, 1, 1]]


def test_confidence_is_the_mean_of_the_winners_shares() -> None:
    decoder = maps([[3.0, 0]], [[0.0, 2]])
    shares = [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-2))]
    assert labelled(decoder, None, "decoder", True)[1] == pytest.approx(np.mean(shares))
    cams = maps([[0.4, 0.8]])
    assert labelled(cams, None, "cam", True)[1] == pytest.approx((0.5 + 0.8) / 2)


def test_labels_are_taken_from_enlarged_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many planes are enlarged and rows compared at a time, and where two are equal, the first wins."""
    scores = torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(2)) * 4
    scores[5] = scores[1]
    large = F.interpolate(scores[None], size=(9, 10), mode="bilinear")[0]
    for elements, band in ((1, 1), (90, 25), (629, 40), (1, 1 << 20), (630, 1), (1 << 24, 1)):
        monkeypatch.setattr(label_map, "ENLARGED", elements)
        monkeypatch.setattr(label_map, "BAND", band)
        labels, confidence = labelled(scores, None, "decoder", True, size=(9, 10))
        assert labels == large.argmax(dim=0).tolist()
        assert confidence == pytest.approx(float(scores.softmax(dim=0).amax(dim=0).mean()))


def test_one_plane_of_a_large_image_is_enlarged_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    enlarge = label_map.resize

    def noted(planes: Tensor, size: tuple[int, int]) -> Tensor:
        sizes.append(planes.shape[1])
        return enlarge(planes, size)

    monkeypatch.setattr(label_map, "resize", noted)
    monkeypatch.setattr(label_map, "ENLARGED", 250)
    labelled(torch.rand(7, 3, 4), None, "decoder", True, size=(9, 10))
    assert sizes == [1] * 7


def test_what_refinement_gets_are_shares_of_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the picture's size: decoder logits as softmax, CAMs as they are; for the CRF they sum to 1."""
    given: dict[str, Tensor] = {}

    def par(image: Tensor, scores: Tensor) -> Tensor:
        given.update(par=scores[0], colours=image[0])
        return scores * 2

    def crf(image: Tensor, scores: Tensor, preset: str) -> Tensor:
        given.update(crf=scores, photograph=image)
        assert preset == "irn"
        return scores

    monkeypatch.setattr(label_map, "pixel_adaptive_refinement", par)
    monkeypatch.setattr(label_map, "dense_crf", crf)
    picture = Image.fromarray(PHOTO[:6, :8])
    for source in ("decoder", "cam"):
        scores = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(2)) * 0.3
        large = F.interpolate(scores[None], size=(6, 8), mode="bilinear")[0]
        shares = large if source == "cam" else large.softmax(dim=0)
        for refine in ("par", "crf"):
            given.clear()
            config = settings(refine=refine, crf="irn")
            labels, confidence = to_label_map(
                scores, None, Photograph.of(picture, config), config, source, source == "decoder"
            )  # pyright: ignore
            assert labels.tolist() == (shares.argmax(dim=0) + (source == "cam")).tolist()
            assert confidence == pytest.approx(float((shares / shares.sum(dim=0)).amax(dim=0).mean()))
            photograph = torch.from_numpy(PHOTO[:6, :8].copy())
            if refine == "par":
                assert set(given) == {"par", "colours"}
                torch.testing.assert_close(given["par"], shares)
                assert torch.equal(given["colours"], photograph.permute(2, 0, 1).float())
            else:
                assert set(given) == {"crf", "photograph"}
                torch.testing.assert_close(given["crf"], shares / shares.sum(dim=0))
                assert torch.equal(given["photograph"], photograph)


def test_sources_that_are_none_are_refused() -> None:
    check_source("cam")
    check_source("decoder")
    with pytest.raises(TagmaskError, match=r"'masks' .*decoder, cam"):
        check_source("masks")


def test_the_network_sees_the_photograph_resized_bilinearly_and_normalised(photographs: list[Item]) -> None:
    method, small = Lopsided(), Image.fromarray(PHOTO).resize((16, 16), Image.Resampling.BILINEAR)
    images = (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    expected = score(method, images, settings(), "decoder")[0].detach()  # pyright: ignore
    (prediction,) = stream(method, photographs[:1], settings(size=16))  # pyright: ignore
    torch.testing.assert_close(prediction.scores, expected)


def test_no_scale_makes_an_image_vanish() -> None:
    class Means(Lopsided):
        def scores(self, images: Tensor) -> Tensor:
            self.seen.append(tuple(images.shape))
            return images

    method = Means()
    score(method, IMAGES, settings(scales=(0.05, 0.1, 1.0), flip=False), "decoder")  # pyright: ignore
    assert method.seen == [(2, 3, 1, 1), (2, 3, 1, 2), (2, 3, 16, 24)]
