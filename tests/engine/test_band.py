"""The powers of the background are chosen by what a classifier still recognises in the masks alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tagmask.data.cam_files import write_cams
from tagmask.data.dataset import Record
from tagmask.engine.band import with_band
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.recipes.load import InferenceConfig
from tagmask.recipes.stages import RefineConfig

AUTO = RefineConfig(name="crf", band="auto")
INFERENCE = InferenceConfig(size=None)


class Sees(Method):
    """Recognises the red and the blue box of `two_things` where it sees at least three quarters of one."""

    def __init__(self, background: bool = True) -> None:
        network = nn.Module()
        network.backbone = nn.Conv2d(1, 1, 1)
        network.backbone.normalise = lambda images: (images - 0.5) / 0.25  # pyright: ignore
        super().__init__(network, 2, background)
        self.seen: list[Tensor] = []

    def tag_logits(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        red, blue = images[:, 0] - images[:, 2], images[:, 2] - images[:, 0]
        fractions = torch.stack([(plane > 1).float().mean(dim=(1, 2)) / (40 * 16 / 48**2) for plane in (red, blue)], 1)
        return 40 * (fractions - 0.75)


class Blind(Method):
    """Has no tag logits."""


def two_things(path: Path, weaker: float) -> list[Record]:
    """Paint a red and a blue box on green, and write CAMs of both, 0.9 and `weaker` high."""
    picture = np.full((48, 48, 3), (60, 160, 60), np.uint8)
    picture[4:44, 4:20], picture[4:44, 28:44] = (220, 30, 30), (30, 30, 220)
    Image.fromarray(picture).save(path / "a.png")
    cams = torch.zeros(2, 48, 48)
    cams[0, 4:44, 4:20], cams[1, 4:44, 28:44] = 0.9, weaker
    records = [Record(f"{number}", path / "a.png", (0, 1)) for number in range(3)]
    for record in records:
        write_cams(path / f"{record.name}.npz", cams, [0, 1])
    return records


@pytest.mark.parametrize(("weaker", "band"), [(0.6, (0.75, 3.0)), (0.4, (2.0, 8.0))])
def test_the_band_begins_where_the_masks_alone_are_recognised(
    tmp_path: Path, weaker: float, band: tuple[float, float]
) -> None:
    """A thing shows where its CAM c exceeds the background (1 - c) ** power, so a weak one needs a high power."""
    records = two_things(tmp_path, weaker)
    assert with_band(AUTO, tmp_path, records, Sees(), INFERENCE).band == band


def test_what_is_no_mask_is_grey(tmp_path: Path) -> None:
    """The classifier sees the whole image, then copies in which every pixel is its own or the mean colour."""
    sees = Sees()
    with_band(AUTO, tmp_path, two_things(tmp_path, 0.6)[:1], sees, INFERENCE)
    whole, *masked = sees.seen
    assert len(masked) == 8
    for image in masked:
        kept = (image != 0).any(dim=1, keepdim=True)
        assert torch.equal(torch.where(kept, image, whole), whole)
        assert not bool(kept[..., :, 22:26].any())  # the green between the things
    areas = [int((image != 0).any(dim=1).sum()) for image in masked]
    assert areas == sorted(areas)


def test_classes_that_are_last_are_not_asked_for(tmp_path: Path) -> None:
    records = two_things(tmp_path, 0.4)
    assert with_band(AUTO, tmp_path, records, Sees(), INFERENCE, last=(2,)).band == (0.5, 2.0)


def test_context_classes_have_no_masks_to_be_recognised_in(tmp_path: Path) -> None:
    records = two_things(tmp_path, 0.4)
    assert with_band(AUTO, tmp_path, records, Sees(), INFERENCE, num_classes=1).band == (0.5, 2.0)


def test_where_nothing_suffices_the_weakest_background_is_taken(tmp_path: Path) -> None:
    records = two_things(tmp_path, 0.05)
    assert with_band(AUTO, tmp_path, records, Sees(), INFERENCE).band == (6.0, 24.0)


def test_another_band_stays_as_it_is(tmp_path: Path) -> None:
    given = RefineConfig(name="crf", band=(1.0, 2.0))
    assert with_band(given, tmp_path, [], Sees(), INFERENCE) is given


def test_without_background_the_greater_power_says_what_no_cam_lays_claim_to(tmp_path: Path) -> None:
    records = two_things(tmp_path, 0.4)
    chosen = with_band(AUTO, tmp_path, records, Sees(background=False), INFERENCE)
    assert chosen == AUTO.model_copy(update={"alpha": 8.0})
    assert with_band(AUTO, tmp_path, records, Sees(), INFERENCE).band == (2.0, 8.0)


def test_a_method_without_tag_logits_says_what_to_give(tmp_path: Path) -> None:
    records = two_things(tmp_path, 0.6)
    blind = Blind(Sees().network, 2, True)
    with pytest.raises(TagmaskError, match=r"Blind has no tag logits.*give it two powers"):
        with_band(AUTO, tmp_path, records, blind, INFERENCE)
