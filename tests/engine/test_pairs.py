"""Classes that come together are told apart by the images that show one of them alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.cam_files import write_cams
from tagmask.data.dataset import Dataset, Record
from tagmask.data.masks import PngMask
from tagmask.engine.pairs import Pairs, fit_pairs
from tagmask.engine.refine_folder import refine_folder, write_affinity_labels
from tagmask.ops.labels import LEAST_SHARE, told_apart
from tagmask.recipes.stages import RefineConfig
from tests.engine.test_pixels import BLUE, CONFIG, GREEN, GREY, RED, SIDE, Colours, cells, colour_method, quarters

WHITE = (250, 250, 250)
JOINT = torch.tensor([[0.9, 0.1], [0.1, 0.8]])  # of the quarters: what the CAMs of a pair light up on


def photograph(folder: Path, name: str, tags: tuple[int, ...], *colours: tuple[int, int, int]) -> Record:
    """Write an image whose first and last quarters are of the pair, and its CAMs: both are the same."""
    image = quarters(folder, name, *colours).image
    write_cams(folder / f"{name}.npz", JOINT.expand(len(tags), 2, 2).clone(), list(tags))
    return Record(name, image, tags)


def people(
    folder: Path, *, alone: int, faces: int = 0, colours: tuple[tuple[int, int, int], ...] = (RED, GREEN)
) -> Dataset:
    """Twenty images of a red face and a green body, some with a body alone, some with a face alone, and others."""
    face, body = colours
    records = [photograph(folder, f"both{n}", (0, 1), face, GREY, GREY, body) for n in range(20)]
    records += [photograph(folder, f"body{n}", (1,), body, GREY, GREY, body) for n in range(alone)]
    records += [photograph(folder, f"face{n}", (0,), face, GREY, GREY, face) for n in range(faces)]
    records += [photograph(folder, f"car{n}", (2,), BLUE, GREY, GREY, BLUE) for n in range(20)]
    return Dataset(tuple(records), ("face", "body", "car"))


def fitted(folder: Path, dataset: Dataset) -> Pairs | None:
    return fit_pairs(colour_method(), dataset, folder, CONFIG)


@pytest.mark.parametrize(("alone", "faces"), [(3, 0), (0, 3), (2, 1)])
def test_equal_cams_are_told_apart_by_images_of_one_class_alone(tmp_path: Path, alone: int, faces: int) -> None:
    dataset = people(tmp_path, alone=alone, faces=faces)
    pairs = fitted(tmp_path, dataset)
    assert pairs is not None
    assert [pair.labels.tolist() for pair in pairs.classifiers] == [[1, 2]]
    record, config = dataset.records[0], RefineConfig(name="none", background_score=0.3)
    for own, expected in ((None, [1, 0, 0, 1]), (pairs, [1, 0, 0, 2])):
        place = tmp_path / f"masks-{own is None}"
        assert refine_folder(tmp_path, [record], place, config, pairs=own) == []
        assert cells(PngMask(place / f"{record.name}.png").ids()) == expected
    labels = RefineConfig(name="affinity")
    place = tmp_path / "labels"
    assert write_affinity_labels(tmp_path, [record], place, labels, labels.affinity, pairs=pairs) == []
    assert cells(PngMask(place / f"{record.name}.png").ids())[::3] == [1, 2]


def test_images_that_do_not_show_both_keep_their_cams(tmp_path: Path) -> None:
    dataset = people(tmp_path, alone=3)
    pairs = fitted(tmp_path, dataset)
    assert pairs is not None
    image = Image.open(dataset.records[0].image).convert("RGB")
    cams = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert pairs.corrected(image, cams, torch.tensor([2, 3])) is cams
    three = torch.cat([cams, cams[:1]])
    changed = pairs.corrected(image, three, torch.tensor([2, 3, 1]))
    assert torch.equal(changed[1], cams[1])  # of no pair
    # Red is face, which stands last here, whatever the order of the ids.
    assert torch.equal(changed[2, 4:12, 4:12], cams[0, 4:12, 4:12])
    assert (changed[0, 4:12, 4:12] <= LEAST_SHARE).all()


class NearAndFar(Colours):
    """Last features say how bright the image is as a whole; earlier ones are colours."""

    def forward(self, images: Tensor) -> Any:
        early = super().forward(images).aux
        brightness = images.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 2, *early.shape[2:])
        return SimpleNamespace(patches=brightness, aux=early)


def test_clusters_are_those_that_images_of_both_show_together(tmp_path: Path) -> None:
    """Near people stand before white, far ones, those alone among them, before grey: that parts images, not classes."""
    near = [photograph(tmp_path, f"near{n}", (0, 1), RED, WHITE, WHITE, GREEN) for n in range(20)]
    dataset = people(tmp_path, alone=3)
    method = colour_method()
    method.network.backbone = NearAndFar()
    pairs = fit_pairs(method, Dataset((*near, *dataset.records), dataset.classes), tmp_path, CONFIG)
    assert pairs is not None
    for record in (near[0], dataset.records[0]):
        place = tmp_path / "masks"
        assert (
            refine_folder(tmp_path, [record], place, RefineConfig(name="none", background_score=0.3), pairs=pairs) == []
        )
        assert cells(PngMask(place / f"{record.name}.png").ids()) == [1, 0, 0, 2]


@pytest.mark.parametrize(
    ("alone", "faces", "colours"),
    [
        (2, 0, (RED, GREEN)),  # too few images
        (3, 3, (RED, RED)),  # one colour for both
    ],
)
def test_cams_stay_where_nothing_names_the_clusters(
    tmp_path: Path, alone: int, faces: int, colours: tuple[tuple[int, int, int], ...]
) -> None:
    assert fitted(tmp_path, people(tmp_path, alone=alone, faces=faces, colours=colours)) is None


def test_images_of_one_class_that_look_like_both_name_nothing(tmp_path: Path) -> None:
    dataset = people(tmp_path, alone=0)
    mixed = tuple(photograph(tmp_path, f"mixed{n}", (1,), RED, GREY, GREY, GREEN) for n in range(3))
    assert fitted(tmp_path, Dataset((*dataset.records, *mixed), dataset.classes)) is None


def test_pairs_of_which_drawn_masks_show_both_are_left_to_them(tmp_path: Path) -> None:
    dataset = people(tmp_path, alone=3)
    assert fit_pairs(colour_method(), dataset, tmp_path, CONFIG, known=[0, 1, 2]) is None
    assert fit_pairs(colour_method(), dataset, tmp_path, CONFIG, known=[0, 2, 3]) is not None


def test_no_pair_is_looked_for_where_classes_come_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagmask.engine.pairs.tokens_of", None)  # no image goes through the network
    assert fitted(tmp_path, people(tmp_path, alone=10)) is None


def test_an_image_that_does_not_open_is_passed_over(tmp_path: Path) -> None:
    dataset = people(tmp_path, alone=3)
    dataset.records[0].image.write_bytes(b"no image")
    dataset.records[20].image.unlink()
    assert fitted(tmp_path, dataset) is not None


def test_a_pixel_between_both_classes_belongs_to_both() -> None:
    cams = torch.tensor([[[0.9, 0.2, 0.4]], [[0.5, 0.6, 0.4]]])
    found = told_apart(cams, torch.tensor([[0.0, 1.0, 0.5]]))
    np.testing.assert_allclose(found[:, 0], [[0.9, 0.6 * LEAST_SHARE, 0.4], [0.9 * LEAST_SHARE, 0.6, 0.4]], rtol=1e-6)
