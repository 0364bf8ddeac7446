"""What is chosen for whom, and that the reasons say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tagmask import api
from tagmask.api.choose import ALARM, choose_recipe
from tagmask.api.machine import GB, Machine, find_weights, in_words, time_forward
from tagmask.api.plans import SCRATCH
from tagmask.data.dataset import Dataset, Record
from tagmask.engine.run import open_run
from tagmask.errors import TagmaskError
from tagmask.recipes.load import BackboneConfig, Recipe

LAPTOP = Machine(cuda=False, memory=16 * GB, cores=8)
H200 = Machine(cuda=True, memory=140 * GB, cores=16)


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """Three records of one photograph of 400 x 300."""
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg")
    return Dataset(tuple(Record(name, tmp_path / "a.jpg", (0,)) for name in "abc"), ("cow", "car"))


def choose(
    dataset: Dataset,
    machine: Machine,
    *overrides: str,
    found: str = "cached",
    forward: float = 0.01,
    lit: float | None = 0.11,
):
    return choose_recipe(
        dataset,
        overrides,
        machine=machine,
        find=lambda name: found,
        forward_seconds=lambda config, side: forward,
        lit=lambda dataset, config: lit,
    )


def test_gpu_gets_seco_on_vit_base_with_weights(photos: Dataset) -> None:
    chosen = choose(photos, H200)
    recipe = chosen.recipe
    assert (recipe.method.name, recipe.backbone.name) == ("seco", "vit_base_patch14_reg4_dinov2")
    assert recipe.backbone.weights == "timm/vit_base_patch14_reg4_dinov2.lvd142m"
    assert recipe.views.crop == 448, "whole patches of 14"
    assert recipe.method.patch_size == 56
    assert any("No result of ours was made with these weights" in reason for reason in chosen.reasons)
    assert not chosen.from_scratch


def test_small_gpu_gets_a_smaller_network(photos: Dataset) -> None:
    assert choose(photos, replace(H200, memory=8 * GB)).recipe.backbone.name == "vit_small_patch14_reg4_dinov2"


def test_cpu_gets_plain_cam_on_a_small_pretrained_network(photos: Dataset) -> None:
    chosen = choose(photos, LAPTOP)
    assert chosen.recipe.method.name == "cam"
    assert chosen.recipe.backbone.weights == "timm/mobilenetv2_100.ra_in1k"
    assert chosen.recipe.views.crop == 224
    assert chosen.recipe.refine is not None
    assert chosen.recipe.refine.band is not None
    assert chosen.recipe.segmenter is not None
    assert chosen.recipe.method.decoder_from >= chosen.recipe.training.steps
    assert any("no GPU (8 cores, 16 GB)" in reason for reason in chosen.reasons)


def test_small_photographs_are_enlarged_for_a_network_that_knows_larger_ones(photos: Dataset, tmp_path: Path) -> None:
    Image.new("RGB", (100, 128)).save(tmp_path / "a.jpg")
    chosen = choose(photos, LAPTOP)
    assert (chosen.recipe.views.crop, chosen.recipe.views.resize_long) == (224, (202, 381))
    assert any(
        reason.startswith("photographs are enlarged to long sides of 202 to 381 pixels") for reason in chosen.reasons
    )
    assert choose(photos, LAPTOP, found="missing").recipe.views.crop == 128, "from scratch no size is known"
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg")
    assert not any("enlarged" in reason for reason in choose(photos, LAPTOP).reasons)


def test_other_sizes_follow_the_crop_that_is_asked_for(photos: Dataset) -> None:
    chosen = choose(photos, LAPTOP, "views.crop=320")
    assert (chosen.recipe.views.crop, chosen.recipe.views.resize_long) == (320, (288, 544))
    assert chosen.recipe.inference.long_side == 480
    assert any("cropped to 320 x 320" in reason for reason in chosen.reasons)


def test_small_things_get_larger_crops(photos: Dataset) -> None:
    chosen = choose(photos, LAPTOP, lit=0.05)
    assert (chosen.recipe.views.crop, chosen.recipe.views.resize_long) == (352, (317, 598))
    (said,) = [reason for reason in chosen.reasons if reason.startswith("things fill little")]
    assert "lights up 5 %." in said
    assert "2.5 times as long; --set views.crop=224 is faster" in said
    for other in (0.1, None):
        assert choose(photos, LAPTOP, lit=other).recipe.views.crop == 224
    assert choose(photos, LAPTOP, "views.crop=224", lit=0.01).recipe.views.crop == 224, "as asked for"
    assert choose(photos, LAPTOP, lit=0.01, found="missing").recipe.views.crop == 128, "from scratch"
    assert choose(photos, H200, lit=0.01).recipe.views.crop == 448, "large enough"


def test_surroundings_get_stages_on_a_gpu_too(photos: Dataset) -> None:
    chosen = choose(replace(photos, context=("water",)), H200)
    assert chosen.recipe.method.name == "seco"
    assert chosen.recipe.segmenter is not None
    assert chosen.recipe.refine is not None
    assert chosen.recipe.refine.band == "auto"
    assert any("data.context" in reason for reason in chosen.reasons)


def test_tags_that_are_left_out_are_offered_as_context_classes(photos: Dataset) -> None:
    left = replace(photos, dropped={"wet grass": 3, "sky": 1})
    said = [reason for reason in choose(left, LAPTOP).reasons if "data.context=[wet grass, sky]" in reason]
    assert len(said) == 1
    for other in (photos, replace(left, context=("sea",)), replace(left, background=False)):
        assert not any("data.context=[" in reason for reason in choose(other, LAPTOP).reasons)


def test_images_of_rare_classes_come_more_often_on_a_cpu_and_the_rarest_is_named(photos: Dataset) -> None:
    rows = [(0,)] * 64 + [(1,)] * 32 + [(2,)] * 8
    records = tuple(replace(photos.records[0], name=f"{n}", tags=tags) for n, tags in enumerate(rows))
    dataset = Dataset(records, ("shoe", "hat", "bag"))
    chosen = choose(dataset, LAPTOP)
    assert chosen.recipe.training.order == "balanced"
    (said,) = [reason for reason in chosen.reasons if reason.startswith("images of rare classes")]
    assert said.startswith("images of rare classes, such as 'bag' (in 8 of 104), are shown up to 2.0 times as often")
    for other in (
        choose(dataset, LAPTOP, "training.order=shuffled"),
        choose(replace(dataset, records=records[:96]), LAPTOP),  # the rarer of two comes 1.2 times as often
        choose(dataset, H200),
    ):
        assert not [reason for reason in other.reasons if reason.startswith("images of rare classes")]
    assert choose(dataset, H200).recipe.training.order == "shuffled"


def test_a_class_of_nearly_all_images_is_learnt_last(photos: Dataset) -> None:
    rows = [(0, 1)] * 20 + [(0, 2)] * 20 + [(1, 2)]
    records = tuple(replace(photos.records[0], name=f"{n}", tags=tags) for n, tags in enumerate(rows))
    dataset = Dataset(records, ("shoe", "hat", "bag"))
    chosen = choose(dataset, LAPTOP)
    assert chosen.recipe.data.last == ("shoe",)
    assert any("shoe in nearly every image" in reason for reason in chosen.reasons)
    assert choose(replace(dataset, records=records[:12]), LAPTOP, "data.last=[]").recipe.data.last == ()
    assert choose(photos, LAPTOP).recipe.data.last == (), "three images say nothing"
    on_gpu = choose(dataset, H200).recipe
    assert (on_gpu.method.name, on_gpu.data.last, on_gpu.staged) == ("seco", ("shoe",), True)
    assert not choose(photos, H200).recipe.staged


@pytest.mark.parametrize("machine", [LAPTOP, H200])
def test_without_weights_it_says_so_loudly_and_learns_from_scratch(photos: Dataset, machine: Machine) -> None:
    chosen = choose(photos, machine, found="missing")
    assert chosen.from_scratch
    assert chosen.recipe.backbone.weights is None
    assert chosen.recipe.backbone.stem == "conv"
    assert [reason for reason in chosen.reasons if reason.startswith(ALARM) and "backbone.weights=FILE" in reason]


def test_given_weights_are_not_looked_for(photos: Dataset) -> None:
    def find(name: str) -> str:
        raise AssertionError("asked")

    for value, expected in (("mine.safetensors", "mine.safetensors"), ("null", None)):
        chosen = choose_recipe(
            photos,
            [f"backbone.weights={value}"],
            machine=LAPTOP,
            find=find,
            forward_seconds=lambda *_: 1.0,
            lit=lambda *_: None,
        )
        assert chosen.recipe.backbone.weights == expected
        assert chosen.from_scratch == (expected is None)


def test_cams_are_joined_where_a_pretrained_network_can_tell_things_from_background(photos: Dataset) -> None:
    def joined(dataset: Dataset, *overrides: str, found: str = "cached") -> bool:
        refine = choose(dataset, LAPTOP, *overrides, found=found).recipe.refine
        assert refine is not None
        return refine.alike

    assert joined(photos)
    assert not joined(photos, "refine.alike=false")
    assert not joined(photos, found="missing")
    assert choose(photos, LAPTOP, lit=0.05).recipe.refine.alike is False  # things are small
    assert not joined(replace(photos, background=False))
    assert not joined(replace(photos, context=("water",)))


@pytest.mark.parametrize(
    ("images", "machine", "steps"), [(3, LAPTOP, 300), (400, LAPTOP, 600), (10_000, LAPTOP, 3000), (3, H200, 2000)]
)
def test_steps_follow_the_number_of_images_within_bounds(
    photos: Dataset, images: int, machine: Machine, steps: int
) -> None:
    many = replace(photos, records=photos.records[:1] * images)
    assert choose(many, machine).recipe.training.steps == steps


def test_phases_follow_the_steps_that_are_asked_for(photos: Dataset) -> None:
    recipe = choose(photos, H200, "training.steps=100").recipe
    assert recipe.training.steps == 100
    assert recipe.segmenter is None
    assert 0 < recipe.method.contrast_from < recipe.method.decoder_from < recipe.method.region_last_from < 100
    assert recipe.optimizer.warmup < 100


def test_expected_time_is_said(photos: Dataset) -> None:
    assert any("about 2 hours" in reason for reason in choose(photos, LAPTOP, forward=0.5).reasons)
    (said,) = [reason for reason in choose(photos, LAPTOP, forward=70.0).reasons if "expected" in reason]
    assert "days" in said
    assert "training.steps=N" in said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "less than a minute"),
        (60, "a minute or two"),
        (600, "about 10 minutes"),
        (9000, "about 2 hours"),
        (1e6, "about 12 days"),
    ],
)
def test_times_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_data_without_background_is_kept_so(photos: Dataset) -> None:
    recipe = choose(replace(photos, background=False), LAPTOP).recipe
    assert recipe.data.background is False
    assert recipe.inference.tag_weight == 0
    assert choose(photos, LAPTOP).recipe.inference.tag_weight == 1


def test_no_images(photos: Dataset) -> None:
    with pytest.raises(TagmaskError, match="no training images"):
        choose(replace(photos, records=()), LAPTOP)


def test_offline_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_weights("timm/no-such-repository") == "missing"


def test_forward_pass_is_timed() -> None:
    config = BackboneConfig.model_validate({**SCRATCH, "options": {**SCRATCH["options"], "img_size": 64, "depth": 3}})
    assert 0 < time_forward(config, 64) < 60


def test_run_that_was_begun_goes_on_with_its_own_recipe(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tagmask")
    overrides = ["backbone.weights=null", "training.steps=2", "training.batch=2", "training.workers=0", "views.crop=64"]
    run = api.train(cooccur, output=tmp_path / "run", overrides=overrides)
    assert ALARM in caplog.text
    caplog.clear()
    recipe: Recipe = open_run(run).recipe
    assert recipe.training.steps == 2
    api.train(cooccur, output=run)
    assert "recipe chosen" not in caplog.text
    assert open_run(run).recipe == recipe
