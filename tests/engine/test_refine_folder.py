"""CAMs to masks: what is missing, empty, undecided or too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tagmask import api
from tagmask.data.cam_files import write_cams
from tagmask.data.dataset import Record
from tagmask.engine.refine_folder import _pooled_labels, refine_folder, write_affinity_labels
from tagmask.errors import TagmaskError
from tagmask.methods.affinitynet import Affinity
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import DataConfig
from tagmask.recipes.stages import RefineConfig
from tests.conftest import staged_recipe


def test_walk_without_tags_without_activation_and_at_a_smaller_size(cooccur: Path, tmp_path: Path) -> None:
    """`longest` is what a large image's affinities are bounded by."""
    affinity = Affinity(Backbone(staged_recipe("cam").backbone), 3).eval()
    records = api.open_data(cooccur, DataConfig()).records[:3]
    write_cams(tmp_path / f"{records[0].name}.npz", torch.zeros(0, 8, 8), [])
    write_cams(tmp_path / f"{records[1].name}.npz", torch.zeros(2, 8, 8), [0, 2])
    write_cams(tmp_path / f"{records[2].name}.npz", torch.full((1, 8, 8), 0.9), [1])
    config = RefineConfig(name="affinity", longest=20)
    with (widths := SpiedWidths(affinity)):
        assert refine_folder(tmp_path, records, tmp_path / "walk", config, affinity=affinity) == []
    assert max(widths.seen) <= 24  # 20 and what fills up the last tokens
    assert write_affinity_labels(tmp_path, records, tmp_path / "labels", config, config.affinity) == []
    for place in ("walk", "labels"):
        found = [np.asarray(Image.open(tmp_path / place / f"{record.name}.png")) for record in records]
        assert all(labels.shape == (48, 48) for labels in found)
        assert [np.unique(labels).tolist() for labels in found] == [[0], [0], [2]], place


class SpiedWidths:
    """The widths of the images whose features are asked for."""

    def __init__(self, affinity: Affinity) -> None:
        self.affinity, self.seen = affinity, []

    def __enter__(self) -> SpiedWidths:
        self.handle = self.affinity.network.backbone.register_forward_pre_hook(
            lambda module, inputs: self.seen.append(inputs[0].shape[-1])
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize("how", ["none", "par", "crf", "fusion"])
def test_no_tag_zero_cams_and_damage_are_handled(cooccur: Path, tmp_path: Path, how: str) -> None:
    records = api.open_data(cooccur, DataConfig()).records[:4]
    write_cams(tmp_path / f"{records[0].name}.npz", torch.zeros(0, 8, 8), [])
    write_cams(tmp_path / f"{records[1].name}.npz", torch.zeros(2, 8, 8), [0, 2])
    (tmp_path / f"{records[2].name}.npz").write_bytes(b"no archive")
    skipped = refine_folder(tmp_path, records, tmp_path / "out", RefineConfig(name=how, longest=20))  # pyright: ignore
    assert len(skipped) == 2
    assert "damaged or no file of CAMs" in skipped[0]
    assert "no CAMs of this image" in skipped[1]
    empty = 255 if how == "fusion" else 0
    for record in records[:2]:
        assert np.unique(np.asarray(Image.open(tmp_path / "out" / f"{record.name}.png"))).tolist() == [empty]


def test_cams_of_a_photograph_that_was_replaced_by_one_of_another_shape_are_named(tmp_path: Path) -> None:
    records = []
    for name, size, shape in (("same", (48, 32), (8, 12)), ("turned", (32, 48), (8, 12)), ("square", (32, 48), (8, 8))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
        write_cams(tmp_path / f"{name}.npz", torch.full((1, *shape), 0.9), [0])
        records.append(Record(name, tmp_path / f"{name}.png", (0,)))
    (said,) = refine_folder(tmp_path, records, tmp_path / "out", RefineConfig(name="none"))
    assert "turned.npz: CAMs of 12 x 8 do not fit a photograph of 32 x 48; if the photograph was replaced" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["same.png", "square.png"]


def test_a_photograph_that_does_not_open_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    records = [Record("a", tmp_path / "a.png", (0,))]
    (said,) = refine_folder(tmp_path, records, tmp_path / "out", RefineConfig(name="none"))
    assert said.startswith(str(tmp_path / "a.png"))
    assert "CAMs" not in said


@pytest.mark.parametrize(
    ("how", "key", "band"), [("none", "background_score", (0.3, 0.6)), ("crf", "alpha", (1.0, 4.0))]
)
def test_between_two_backgrounds_pixels_are_undecided(
    cooccur: Path, tmp_path: Path, how: str, key: str, band: tuple[float, float]
) -> None:
    records = api.open_data(cooccur, DataConfig()).records[:1]
    write_cams(tmp_path / f"{records[0].name}.npz", torch.rand(2, 6, 6, generator=torch.manual_seed(0)), [0, 2])
    masks = []
    for settings in ({key: band[0]}, {key: band[1]}, {"band": band}):
        place = tmp_path / str(len(masks))
        refine_folder(tmp_path, records, place, RefineConfig.model_validate({"name": how, **settings}))
        masks.append(np.asarray(Image.open(place / f"{records[0].name}.png")))
    one, other, both = masks
    assert (one != other).any()
    assert (both == np.where(one == other, one, 255)).all()


def test_without_background_what_the_crf_changes_is_undecided(cooccur: Path, tmp_path: Path) -> None:
    records = api.open_data(cooccur, DataConfig()).records[:1]
    write_cams(tmp_path / f"{records[0].name}.npz", torch.rand(2, 6, 6, generator=torch.manual_seed(0)), [0, 2])
    masks = []
    for how, band in (("none", None), ("crf", None), ("crf", "auto")):
        place = tmp_path / str(len(masks))
        config = RefineConfig.model_validate({"name": how, "band": band})
        refine_folder(tmp_path, records, place, config, background=False)
        masks.append(np.asarray(Image.open(place / f"{records[0].name}.png")))
    cams, refined, both = masks
    assert (cams != refined).any()
    assert (both == np.where(cams == refined, cams, 255)).all()


def test_without_background_what_no_cam_lays_claim_to_is_undecided(tmp_path: Path) -> None:
    """One tag, whose CAM is high on the dark left half of the image and low on the bright right half."""
    picture = np.full((24, 32, 3), 40, np.uint8)
    picture[:, 16:] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    cams = torch.full((1, 24, 32), 0.3)
    cams[:, :, :16] = 0.9
    write_cams(tmp_path / "cams" / "a.npz", cams, [4])
    # At 0.3 a background has 0.7 ** alpha: 0.49 wins, and 0.06 does not.
    for alpha, right in ((2.0, 255), (8.0, 5)):
        config = RefineConfig(name="crf", band="auto", alpha=alpha)
        refine_folder(
            tmp_path / "cams", [Record("a", tmp_path / "a.png", (4,))], tmp_path / f"{alpha}", config, background=False
        )
        labels = np.asarray(Image.open(tmp_path / f"{alpha}" / "a.png"))
        assert {*labels[:, :14].flat} == {5}
        assert {*labels[:, 18:].flat} == {right}


def test_without_background_what_a_companion_would_yield_is_undecided(tmp_path: Path) -> None:
    """A car (label 2) on the left half of the image; the road (label 1) has a higher CAM all over it."""
    picture = np.full((24, 32, 3), 40, np.uint8)
    picture[:, 16:] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    cams = torch.zeros(2, 24, 32)
    cams[0], cams[1, :, :16] = 0.9, 0.7
    write_cams(tmp_path / "cams" / "a.npz", cams, [0, 1])
    records, config = [Record("a", tmp_path / "a.png", (0, 1))], RefineConfig(name="crf", band="auto")
    for companions, left in ((None, 1), ({2: (1,)}, 1), ({1: (2,)}, 255), ({1: (3,)}, 1)):
        place = tmp_path / f"{companions}"
        refine_folder(tmp_path / "cams", records, place, config, background=False, companions=companions)
        labels = np.asarray(Image.open(place / "a.png"))
        assert {*labels[:, :14].flat} == {left}
        assert {*labels[:, 18:].flat} == {1}


@pytest.mark.parametrize(("how", "band"), [("none", [0.2, 1.5]), ("crf", [0.0, 4.0])])
def test_band_out_of_range_is_refused(how: str, band: list[float]) -> None:
    with pytest.raises(ValidationError, match=rf"band: .* must be two .* with name {how}"):
        RefineConfig.model_validate({"name": how, "band": band})


def test_without_background_an_image_without_a_tag_is_ignored(cooccur: Path, tmp_path: Path) -> None:
    records = api.open_data(cooccur, DataConfig()).records[:2]
    write_cams(tmp_path / f"{records[0].name}.npz", torch.zeros(0, 8, 8), [])
    write_cams(tmp_path / f"{records[1].name}.npz", torch.rand(2, 8, 8), [0, 2])
    for how in ("none", "crf", "par"):
        refine_folder(tmp_path, records, tmp_path / how, RefineConfig(name=how), background=False)  # pyright: ignore
        first, second = (np.asarray(Image.open(tmp_path / how / f"{record.name}.png")) for record in records)
        assert (first == 255).all()
        assert set(np.unique(second)) <= {1, 3}
    with pytest.raises(TagmaskError, match="needs a background class"):
        refine_folder(tmp_path, records, tmp_path / "walk", RefineConfig(name="fusion"), background=False)


def test_labels_for_affinitynet_are_decided_over_squares_where_the_recipe_says_so() -> None:
    """As released: scores are averaged over the square first, so one sure pixel does not outvote its neighbours."""
    low = torch.zeros(2, 5, 6)
    low[0] = 0.6
    low[1] = 0.4
    low[:, 0, 0] = torch.tensor([0.0, 1.0])  # the class at one pixel of its square
    low[:, 2:4, 2:4] = torch.tensor([0.1, 0.9])[:, None, None]
    alone, pooled = _pooled_labels(low, low, 1), _pooled_labels(low, low, 2)
    assert alone.shape == pooled.shape == (5, 6)
    assert alone[0, 0] == 1
    assert pooled[0, 0] == 1  # mean .45 against .55
    assert pooled[:2, :2].unique().tolist() == [1]
    assert pooled[2:4, 2:4].unique().tolist() == [1]
    assert pooled[:, 4:].unique().tolist() == [0]
    assert pooled[4].unique().tolist() == [0], "what there is of a square at the far side counts"
    assert torch.equal(alone == 1, low[1] > low[0])


def test_classes_of_all_images_get_what_the_others_leave(cooccur: Path, tmp_path: Path) -> None:
    """A map that is high everywhere wins the competition, and takes the other's pixels where it takes part in it."""
    records = api.open_data(cooccur, DataConfig()).records[:1]
    small = torch.zeros(1, 8, 8)
    small[:, 2:5, 2:5] = 0.6
    wide = torch.zeros(1, 8, 8)
    wide[:, :, :6] = 0.9
    write_cams(tmp_path / f"{records[0].name}.npz", torch.cat([wide, small]), [0, 2])
    masks = []
    for last in ((), (1,), (2,)):
        place = tmp_path / f"last{last}"
        refine_folder(tmp_path, records, place, RefineConfig(name="none", background_score=0.3), last=last)
        masks.append(np.asarray(Image.open(place / f"{records[0].name}.png")))
    together, wide_last, absent_last = masks
    assert np.unique(together).tolist() == [0, 1]
    assert np.unique(wide_last).tolist() == [0, 1, 3]
    assert (wide_last == np.where(wide_last == 3, 3, together)).all(), "what the others leave is as it was"
    assert (wide_last == 3).sum() > 200
    assert (absent_last == together).all(), "a class that the image does not bear changes nothing"


def test_without_background_the_last_class_gets_what_others_do_not_claim(cooccur: Path, tmp_path: Path) -> None:
    records = api.open_data(cooccur, DataConfig()).records[:1]
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 0.7
    write_cams(tmp_path / f"{records[0].name}.npz", torch.cat([torch.full((1, 8, 8), 0.9), left]), [0, 2])
    config = RefineConfig(name="none")
    refine_folder(tmp_path, records, tmp_path / "out", config, background=False, last=(1,))
    found = np.asarray(Image.open(tmp_path / "out" / f"{records[0].name}.png"))
    assert (found[:, :20] == 3).all()
    assert (found[:, 30:] == 1).all()


def test_a_band_that_nobody_chose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"refine\.band auto: is chosen by a classifier; name its run \(--run\)"):
        refine_folder(tmp_path, [], tmp_path / "auto", RefineConfig(name="crf", band="auto"))


def test_a_band_is_chosen_for_the_crf_alone() -> None:
    with pytest.raises(ValidationError, match="auto is for name crf, not none"):
        RefineConfig.model_validate({"name": "none", "band": "auto"})
