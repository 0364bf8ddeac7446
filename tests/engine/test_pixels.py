"""What drawn masks teach about the masks of other images."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tagmask
from tagmask import api
from tagmask.data.cam_files import write_cams
from tagmask.data.dataset import Record
from tagmask.data.masks import PngMask
from tagmask.engine.pixels import Pixels, features_of, fit_pixels, lost_labels
from tagmask.engine.refine_folder import refine_folder, write_affinity_labels
from tagmask.recipes.load import InferenceConfig
from tagmask.recipes.stages import RefineConfig
from tests.conftest import tiny_recipe

GREY, RED, GREEN, BLUE = (120, 120, 120), (230, 20, 20), (20, 230, 20), (20, 20, 230)
SIDE = 32
CONFIG = InferenceConfig(size=SIDE)


class Colours(nn.Module):
    """A backbone whose features are the mean colours of cells of 4 x 4 pixels."""

    def normalise(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor) -> Any:
        means = nn.functional.avg_pool2d(images, 4)
        return SimpleNamespace(patches=means, aux=means)


def colour_method() -> Any:
    """As much of a method as the classifier of pixels asks for."""
    method = nn.Linear(1, 1)
    method.network, method.background = SimpleNamespace(backbone=Colours()), True  # pyright: ignore
    return method


def quarters(folder: Path, name: str, *colours: tuple[int, int, int], labels: tuple[int, ...] = ()) -> Record:
    """Write an image of four squares, and a mask of them."""
    half = SIDE // 2
    pixels = np.array(colours, np.uint8).reshape(2, 2, 3).repeat(half, 0).repeat(half, 1)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    if labels:
        mask = np.array(labels, np.uint8).reshape(2, 2).repeat(half, 0).repeat(half, 1)
        Image.fromarray(mask).save(folder / f"{name}-mask.png")
    source = PngMask(folder / f"{name}-mask.png") if labels else None
    return Record(name, folder / f"{name}.png", (0, 1), mask=source)


@pytest.fixture
def pixels(tmp_path: Path) -> Pixels:
    drawn = quarters(tmp_path, "drawn", GREY, RED, GREEN, GREY, labels=(0, 1, 2, 255))
    found = fit_pixels(colour_method(), [drawn, quarters(tmp_path, "other", GREY, RED, GREEN, BLUE)], CONFIG)
    assert found is not None
    return found


def cells(labels: np.ndarray) -> list[int]:
    """The label in the middle of each quarter."""
    return [int(labels[row, column]) for row in (8, 24) for column in (8, 24)]


def test_features_of_both_scales_lie_on_the_finer_grid(tmp_path: Path) -> None:
    image = Image.open(quarters(tmp_path, "a", GREY, RED, GREEN, BLUE).image).convert("RGB")
    found = features_of(colour_method(), image, CONFIG)
    assert found.shape == (6, 16, 16)
    np.testing.assert_allclose(found[:, 4, 12], np.tile(RED, 2) / 255, atol=1e-6)


def test_one_mask_tells_classes_of_equal_cams_apart(pixels: Pixels, tmp_path: Path) -> None:
    """Both CAMs light up on both things, and a little beside them."""
    record = quarters(tmp_path, "new", GREEN, GREY, GREY, RED)
    cams = torch.tensor([[0.9, 0.6], [0.1, 0.9]]).expand(2, 2, 2)
    write_cams(tmp_path / "new.npz", cams, [0, 1])
    config = RefineConfig(name="none", background_score=0.3)
    for own, expected in ((None, [1, 1, 0, 1]), (pixels, [2, 255, 0, 1])):
        assert refine_folder(tmp_path, [record], tmp_path / f"masks-{own is None}", config, pixels=own) == []
        assert cells(PngMask(tmp_path / f"masks-{own is None}" / "new.png").ids()) == expected
    labels = config.model_copy(update={"name": "affinity"})
    assert write_affinity_labels(tmp_path, [record], tmp_path / "labels", labels, labels.affinity, pixels=pixels) == []
    found = cells(PngMask(tmp_path / "labels" / "new.png").ids())
    assert found[0] == 2
    assert found[3] == 1
    assert found[1] in (0, 255)


def test_a_class_that_no_mask_shows_keeps_its_cams_and_labels(pixels: Pixels, tmp_path: Path) -> None:
    image = Image.open(quarters(tmp_path, "new", BLUE, GREY, RED, GREY).image).convert("RGB")
    cams = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    changed, judged = pixels.corrected(image, cams, torch.tensor([1, 3]), "cam")
    assert torch.equal(changed, cams)  # a class alone has nobody to share with
    assert set(np.unique(judged)) <= {0, 1}
    made = np.full((SIDE, SIDE), 3)
    assert (pixels.agree(made, judged) == 3).all()
    unknown, blank = pixels.corrected(image, cams[:1], torch.tensor([3]), "cam")
    assert torch.equal(unknown, cams[:1])
    assert not blank.any()


def test_masks_that_teach_nothing_are_told_from_those_that_do(tmp_path: Path) -> None:
    colours = GREY, RED, GREEN, GREY
    for labels in ((0, 0, 0, 0), (1, 2, 1, 2), (255, 255, 255, 255)):
        assert fit_pixels(colour_method(), [quarters(tmp_path, "a", *colours, labels=labels)], CONFIG) is None
    assert fit_pixels(colour_method(), [quarters(tmp_path, "b", *colours)], CONFIG) is None


@pytest.mark.parametrize(
    ("unlike", "lost"),
    [
        (0, []),  # green where the CAM says so, as drawn
        (1, []),  # one of four shows it otherwise: three quarters of the images keep it
        (3, [2]),
    ],
)
def test_a_class_that_would_vanish_is_given_up(
    pixels: Pixels, tmp_path: Path, unlike: int, lost: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """In the drawn mask the second class is green; in some of the others it is as grey as the background."""
    others = []
    for number in range(4):
        colour = GREY if number < unlike else GREEN
        others.append(quarters(tmp_path, f"new{number}", GREY, RED, colour, GREY))
        write_cams(tmp_path / f"new{number}.npz", torch.tensor([[[0.0, 1], [0, 0]], [[0, 0], [1, 0]]]), [0, 1])
    config = RefineConfig(name="none", background_score=0.3)
    found = lost_labels(pixels, others, tmp_path, config, ("thing", "leaf"))
    assert found == lost
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [": leaf; draw more" in line for line in said] == [True] * len(lost)
    assert pixels.without(found).classifier.labels.tolist() == [label for label in (0, 1, 2) if label not in lost]


def test_a_smaller_thing_that_every_image_keeps_is_not_given_up(pixels: Pixels, tmp_path: Path) -> None:
    """The CAM covers more than the thing, so that only a third of its area is kept."""
    record = quarters(tmp_path, "new", GREY, GREY, GREEN, GREY)
    write_cams(tmp_path / "new.npz", torch.tensor([[[0.9, 0], [0.9, 0.9]]]), [1])
    config = RefineConfig(name="none", background_score=0.3)
    assert lost_labels(pixels, [record], tmp_path, config, ("thing", "leaf")) == []
    (tmp_path / "new.png").write_bytes(b"no picture")
    assert lost_labels(pixels, [record], tmp_path, config, ("thing", "leaf")) == []


def test_an_image_that_does_not_open_is_left_out(tmp_path: Path) -> None:
    drawn = quarters(tmp_path, "drawn", GREY, RED, GREEN, GREY, labels=(0, 1, 2, 0))
    broken = quarters(tmp_path, "broken", GREY, RED, GREEN, GREY, labels=(0, 1, 2, 0))
    broken.image.write_bytes(b"no picture")
    assert fit_pixels(colour_method(), [broken, drawn], CONFIG) is not None


def test_a_run_makes_its_masks_anew_from_what_drawn_ones_teach(cooccur: Path, tmp_path: Path) -> None:
    options = ("refine.name=none", "segmenter.start=weights", "segmenter.training.steps=2", "method.decoder_from=6")
    drawn = tmp_path / "set"
    shutil.copytree(cooccur, drawn)
    training = api.training_split(api.open_data(drawn, tiny_recipe("cam").data), tiny_recipe("cam").data)
    for record in training.records[6:]:
        (drawn / "masks" / f"{record.name}.png").unlink()
    run = tagmask.train(drawn, recipe=tiny_recipe("cam", *options), output=tmp_path / "run")

    def masks() -> dict[str, np.ndarray]:
        return {record.name: PngMask(run / "refine" / f"{record.name}.png").ids() for record in training.records}

    before = masks()
    for on in (False, True):
        recipe = tiny_recipe("cam", *options, "data.use_masks=true", f"refine.pixel_classifier={on}")
        tagmask.train(drawn, recipe=recipe, output=run, from_stage="refine")
        after = masks()
        same = [np.array_equal(before[name], after[name]) for name in before]
        assert all(same) if not on else not all(same)
