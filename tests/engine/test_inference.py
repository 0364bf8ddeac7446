"""Scores of one image to its label map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tagmask.engine import inference, label_map
from tagmask.engine.inference import to_label_map
from tagmask.engine.photographs import Photograph
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.recipes.load import InferenceConfig
from tests.conftest import staged_recipe, tiny_recipe


@pytest.mark.parametrize("refine", ["par", "crf"])
@pytest.mark.parametrize("longest", [30, 1024])
def test_large_images_are_refined_smaller_and_labelled_at_their_own_size(
    refine: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    for name in ("dense_crf", "pixel_adaptive_refinement"):
        run = getattr(label_map, name)

        def noted(image, scores, run=run, **options):
            seen.append(tuple(scores.shape[-2:]))
            return run(image, scores, **options)

        monkeypatch.setattr(label_map, name, noted)
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 40:] = 200  # the edge that the scores, whose own is at 30, are to be drawn to
    logits = torch.zeros(2, 8, 12)
    logits[0, :, :6] = logits[1, :, 6:] = 2.0
    config = InferenceConfig(refine=refine, longest=longest)  # pyright: ignore[reportArgumentType]
    labels, confidence = to_label_map(
        logits, None, Photograph.of(Image.fromarray(picture), config), config, "decoder", True
    )
    assert seen == [(20, 30) if longest == 30 else (40, 60)]
    assert labels.shape == (40, 60)
    assert labels.dtype == np.uint8
    assert (labels[:, 45:] == 1).all()
    assert (labels[:, :15] == 0).all()
    assert 0.5 < confidence <= 1


def test_pixels_without_any_activation_do_not_spoil_the_others() -> None:
    cams = torch.zeros(2, 8, 12)
    cams[0, :, :4], cams[1, :, 8:] = 0.9, 0.8  # nothing between them
    for refine in ("par", "crf"):
        config = InferenceConfig(refine=refine)
        photograph = Photograph.of(Image.new("RGB", (60, 40)), config)
        labels, confidence = to_label_map(cams, None, photograph, config, "cam", False)
        assert (labels[:, :15] == 1).all()
        assert (labels[:, 45:] == 2).all()
        assert 0 < confidence <= 1


def test_scales_are_made_from_the_photograph_where_the_recipe_says_so() -> None:
    """Each scale sees the photograph itself at that multiple of `size`, and scores are compared at its own size."""
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    seen: list[torch.Tensor] = []

    class Watching(Method):
        def scores(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images[:, :2]

        def cams(self, images: torch.Tensor, scales: Sequence[float] = (1.0,)) -> torch.Tensor:
            seen.append(images)
            return images[:, :2]

    method = Watching(torch.nn.Linear(1, 1), 1, True)
    config = InferenceConfig(size=32, scales=(1.0, 1.5), flip=False, scale_from="photograph")
    photograph = Photograph.of(Image.fromarray(picture), config)
    assert photograph.pixels.shape == (3, 50, 70)
    images = photograph.pixels[None].float()
    scores = inference.score(method, images, config, "decoder")
    expected = [F.interpolate(images, (side, side), mode="bilinear", align_corners=False) for side in (32, 48)]
    assert all(torch.equal(own, wanted) for own, wanted in zip(seen, expected, strict=True))
    each = [F.interpolate(wanted[:, :2], (50, 70), mode="bilinear", align_corners=False) for wanted in expected]
    torch.testing.assert_close(scores, torch.maximum(*each))
    seen.clear()
    inference.score(method, images, config, "cam")
    assert torch.equal(seen[0], expected[0])
    # By default the larger scale is enlarged from the smaller image, which is another picture.
    plain = Photograph.of(Image.fromarray(picture), config.model_copy(update={"scale_from": "size"}))
    assert plain.pixels.shape == (3, 32, 32)
    seen.clear()
    inference.score(method, plain.pixels[None].float(), config.model_copy(update={"scale_from": "size"}), "decoder")
    assert seen[1].shape[-1] == 48
    assert not torch.equal(seen[1], expected[1])


def test_another_head_s_cams_are_asked_for_by_name() -> None:
    images = torch.randn(2, 3, 48, 48)
    recipe = tiny_recipe("seco")
    seco = build_method(recipe, 3).eval()
    config = InferenceConfig(size=48, cam_head="auxiliary")
    found = inference.score(seco, images, config, "cam")
    maps = seco.network.aux_classifier(seco.network.backbone(images).aux)
    flipped = seco.network.aux_classifier(seco.network.backbone(images.flip(-1)).aux).flip(-1)
    enlarged = [F.interpolate(each, (48, 48), mode="bilinear", align_corners=False) for each in (maps, flipped)]
    wanted = torch.maximum(*enlarged).relu()
    wanted = wanted - wanted.amin(dim=(2, 3), keepdim=True)
    wanted = wanted / (wanted.amax(dim=(2, 3), keepdim=True) + 1e-5)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(
        found, inference.score(seco, images, config.model_copy(update={"cam_head": "class"}), "cam")
    )

    sccam = build_method(staged_recipe("sccam"), 3).eval()
    views = torch.randn(2, 3, 32, 32)
    sub = inference.score(sccam, views, InferenceConfig(size=32, cam_head="subclasses"), "cam")
    both = [sccam.network.heads.maps(sccam.network.backbone(each).patches)[1] for each in (views, views.flip(-1))]
    enlarged = [F.interpolate(each, (32, 32), mode="bilinear", align_corners=False) for each in both]
    largest = (enlarged[0] + enlarged[1].flip(-1)).unflatten(1, (3, 2)).amax(dim=2)
    torch.testing.assert_close(sub, largest / (largest.amax(dim=(2, 3), keepdim=True) + 1e-5), atol=1e-4, rtol=1e-4)

    with pytest.raises(TagmaskError, match="Seco has no head 'subclasses'"):
        inference.score(seco, images, InferenceConfig(cam_head="subclasses"), "cam")
    first = build_method(staged_recipe("sccam"), 3, number=0).eval()
    with pytest.raises(TagmaskError, match="Sccam has no head 'subclasses'"):
        inference.score(first, views, InferenceConfig(cam_head="subclasses"), "cam")


def test_pictures_keep_their_order_where_those_of_one_size_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "score", lambda method, images, config, source: images[:, :2])
    sizes = [(8, 6) if number % 3 else (6, 8) for number in range(12)]
    pictures = [Image.new("RGB", size) for size in sizes]
    method = build_method(tiny_recipe("cam"), 1).eval()
    found = inference.predict_pictures(method, pictures, None, InferenceConfig(size=None))
    assert [prediction.labels.shape for prediction in found] == [size[::-1] for size in sizes]


def test_images_go_through_the_network_with_none_beyond_their_window(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever divides the work at windows has the same batches, so the same bytes, also where an image is damaged."""
    monkeypatch.setattr(inference, "WINDOW", 5)
    items = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8) if number != 6 else (6, 8)).save(path)
        items.append(inference.Item(str(number), path))
    items[2].path.write_bytes(b"no image")
    batches: list[int] = []

    def scores(method, images, config, source):
        batches.append(len(images))
        return images[:, :2]

    monkeypatch.setattr(inference, "score", scores)
    method = build_method(tiny_recipe("cam"), 1).eval()

    def label(some: Sequence[inference.Item]) -> list[str]:
        skipped: list[str] = []
        config = InferenceConfig(size=None)
        found = inference.stream(method, some, config, batch=3, on_error=lambda item, _: skipped.append(item.name))
        return [prediction.item.name for prediction in found] + skipped

    names = label(items)
    assert batches == [3, 1, 3, 1, 1, 2]
    assert sorted(names, key=int) == [item.name for item in items]
    whole = batches.copy()
    batches.clear()
    label(items[:5])
    label(items[5:])
    assert batches == whole
