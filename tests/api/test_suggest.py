from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.api.suggest import choose, suggest
from tagmask.cli import app
from tagmask.data.confidence import CONFIDENCE, read_confidence
from tagmask.data.dataset import Dataset, Record
from tagmask.data.label_maps import write_label_map
from tagmask.data.masks import PngMask
from tagmask.data.mended import with_mended, write_mended
from tagmask.engine.pipeline import stages_of
from tagmask.engine.run import MASKS, SEGMENTER
from tagmask.errors import TagmaskError
from tagmask.recipes.load import DataConfig, load_recipe
from tests.conftest import tiny_recipe

CLASSES = ("cow", "grass", "boat")
STAGED = ("refine.name=none", "segmenter.start=weights", "segmenter.training.steps=2", "method.decoder_from=6")


def tagged(*tags: tuple[int, ...], masked: tuple[int, ...] = ()) -> Dataset:
    mask = PngMask(Path("mask.png"))
    records = [
        Record(f"i{n}", Path(f"i{n}.jpg"), own, split="train", mask=mask if n in masked else None)
        for n, own in enumerate(tags)
    ]
    return Dataset(tuple(records), CLASSES)


def names(dataset: Dataset, doubt: list[float], count: int = 9) -> list[str]:
    given = {f"i{n}": value for n, value in enumerate(doubt) if dataset.records[n].mask is None}
    return [each.name for each in choose(dataset, given, count)]


def test_the_least_sure_comes_first_among_images_of_the_same_tags() -> None:
    assert names(tagged((0,), (0,), (0,)), [0.2, 0.5, 0.3]) == ["i1", "i2", "i0"]


def test_a_class_without_a_mask_comes_before_a_second_mask_of_another() -> None:
    assert names(tagged((0,), (0,), (2,)), [0.5, 0.4, 0.3]) == ["i0", "i2", "i1"]
    assert names(tagged((0,), (0,), (2,), masked=(0,)), [0, 0.4, 0.3]) == ["i2", "i1"]


def test_classes_that_always_come_together_are_shown_together() -> None:
    dataset = tagged(*[(0, 1)] * 10, *[(2,)] * 3)
    (first, *_) = choose(dataset, {"i0": 0.2, "i10": 0.3}, 2)
    assert first.name == "i0"
    assert first.reason == "sure of 80%; first mask with cow, grass; cow and grass always come together"


def test_no_more_than_there_are_and_no_image_without_a_tag() -> None:
    assert names(tagged((0,), ()), [0.1, 0.9]) == ["i0"]
    assert names(tagged((0,), (1,), (2,)), [0.3, 0.2, 0.1], 2) == ["i0", "i1"]


@pytest.fixture(scope="module")
def half_masked(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with masks of some training images alone."""
    folder = tmp_path_factory.mktemp("half") / "set"
    shutil.copytree(cooccur, folder)
    training = api.training_split(api.open_data(folder, DataConfig()), DataConfig())
    for record in training.records[3:]:
        (folder / "masks" / f"{record.name}.png").unlink()
    return folder


@pytest.fixture(scope="module")
def run(half_masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tagmask.train(half_masked, recipe=tiny_recipe("cam", *STAGED), output=tmp_path_factory.mktemp("r") / "run")


def test_suggest_names_images_without_a_mask(run: Path, half_masked: Path) -> None:
    found = suggest(run, count=4)
    assert len(found) == 4
    for each in found:
        assert each.image.is_file()
        assert not (half_masked / "masks" / f"{each.name}.png").exists()
    said = CliRunner().invoke(app, ["suggest", str(run), str(half_masked), "-n", "4"]).output.splitlines()
    assert [line.split("\t")[0] for line in said if "\t" in line] == [str(each.image) for each in found]


def test_masks_of_the_suggested_images_are_written_to_be_mended(run: Path, half_masked: Path, tmp_path: Path) -> None:
    draw = tmp_path / "draw"
    arguments = ["suggest", str(run), str(half_masked), "-n", "3", "--masks", str(draw)]
    result = CliRunner().invoke(app, arguments)
    named = [Path(line.split("\t")[0]).stem for line in result.stdout.splitlines()]
    assert named == [each.name for each in suggest(run, count=3)]
    assert sorted(path.stem for path in draw.glob("*.png")) == sorted(named)
    assert f"tagmask serve {run} --images {half_masked} --masks {draw} --review" in result.stderr
    whole = tagmask.api.label(run, half_masked, output=tmp_path / "all")
    for name in named:
        assert (draw / f"{name}.png").read_bytes() == (whole.folder / f"{name}.png").read_bytes()
    # One is mended: it counts as drawn, stays as it is, and another takes its place. The rest is made anew.
    first = PngMask(draw / f"{named[0]}.png").load(48, 48)
    write_label_map(draw / f"{named[0]}.png", np.where(first == 0, 1, 0).astype(np.uint8))
    kept = (draw / f"{named[0]}.png").read_bytes()
    again = [each.name for each in suggest(run, half_masked, count=3, masks=draw)]
    assert named[0] not in again
    assert (draw / f"{named[0]}.png").read_bytes() == kept
    assert {path.stem for path in draw.glob("*.png")} == {*named, *again}
    recipe = tiny_recipe("cam", *STAGED)
    training = api.training_split(api.open_data(half_masked, recipe.data), recipe.data)
    assert [record.name for record in with_mended(training, draw).records if record.mask] == [named[0]]


def test_masks_of_other_classes_are_no_place_for_suggestions(run: Path, half_masked: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("other\n")
    with pytest.raises(TagmaskError, match="lists other classes than"):
        suggest(run, half_masked, masks=tmp_path)


def test_the_recipe_of_the_look_can_be_set(run: Path, half_masked: Path) -> None:
    small = ["--set", "inference.long_side=24", "--set", "inference.scales=[1.0]"]
    said = CliRunner().invoke(app, ["suggest", str(run), str(half_masked), "-n", "40", *small]).stdout
    overrides = small[1::2]
    expected = {each.image: each.reason for each in suggest(run, half_masked, count=40, overrides=overrides)}
    assert dict(line.split("\t") for line in said.splitlines()) == {str(key): text for key, text in expected.items()}
    usual = {each.image: each.reason for each in suggest(run, half_masked, count=40)}
    assert expected.keys() == usual.keys()
    assert expected != usual  # what it is sure of by smaller photographs
    with pytest.raises(TagmaskError, match=r"--set training\.steps: belongs to the trained run"):
        suggest(run, half_masked, overrides=["training.steps=3"])


def test_a_folder_of_somebody_elses_files_is_no_place_for_suggestions(run: Path, half_masked: Path) -> None:
    images = half_masked / "images"
    before = {path: path.read_bytes() for path in images.iterdir()}
    with pytest.raises(TagmaskError, match=r"--masks .*images: holds .*png, which tagmask did not write; name a new"):
        suggest(run, half_masked, masks=images)
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_suggest_says_where_all_have_a_mask(run: Path, cooccur: Path) -> None:
    with pytest.raises(TagmaskError, match="every training image has a mask; there is nothing to suggest"):
        suggest(run, cooccur)


def test_ground_truth_takes_the_place_of_made_masks_where_it_is_asked_for(
    run: Path, half_masked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    learnt: list[Dataset] = []
    monkeypatch.setattr("tagmask.engine.pipeline.run_training", lambda recipe, data, *a, **k: learnt.append(data))
    for use in (False, True):
        recipe = tiny_recipe("cam", *STAGED, f"data.use_masks={use}")
        training = api.training_split(api.open_data(half_masked, recipe.data), recipe.data)
        stages = {stage.name: stage for stage in stages_of(recipe, training, tmp_path / "run")}
        stages[SEGMENTER].make(tmp_path / "run" / SEGMENTER)
        for number, (own, learned) in enumerate(zip(training.records, learnt[-1].records, strict=True)):
            made = PngMask(tmp_path / "run" / MASKS / f"{own.name}.png").load(48, 48)
            expected = own.mask.load(48, 48) if use and number < 3 and own.mask else made
            assert learned.mask is not None
            np.testing.assert_array_equal(learned.mask.load(48, 48), expected)


def test_masks_are_taken_up_by_a_run_that_is_there(run: Path, half_masked: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    recipe = tiny_recipe("cam", *STAGED, "data.use_masks=true")
    model = tmp_path / "run" / SEGMENTER / "model.safetensors"
    before, masks = model.read_bytes(), sorted((tmp_path / "run" / MASKS).iterdir())
    times = [path.stat().st_mtime_ns for path in masks]
    tagmask.train(half_masked, recipe=recipe, output=tmp_path / "run", from_stage="segmenter")
    assert model.read_bytes() != before
    assert [path.stat().st_mtime_ns for path in masks] == times


def test_masks_that_could_not_be_used_are_refused(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="use_masks: masks of a few images teach a segmenter, and this recipe has n"):
        tagmask.train(cooccur, recipe=tiny_recipe("cam", "data.use_masks=true"), output=tmp_path / "run")
    bare = tmp_path / "bare"
    shutil.copytree(cooccur, bare, ignore=shutil.ignore_patterns("masks"))
    with pytest.raises(TagmaskError, match="no training image has a drawn mask; put masks"):
        tagmask.train(bare, recipe=load_recipe("cam/default", ["data.use_masks=true"]), output=tmp_path / "run")


def test_masks_mended_in_a_labelled_folder_are_learnt_from_and_the_others_not(
    run: Path, half_masked: Path, learnt: list[Dataset], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    masks, options = tmp_path / "labelled", (*STAGED, f"data.use_masks={tmp_path / 'labelled'}")
    api.label(run, output=masks, split=["train"])

    def again(*more: str) -> list[Dataset]:
        recipe = tiny_recipe("cam", *options, *more)
        tagmask.train(half_masked, recipe=recipe, output=tmp_path / "run", from_stage="segmenter")
        return learnt

    with pytest.raises(TagmaskError, match=r"no mask in .*labelled was mended; mend some on the page"):
        again()
    first, second, *_ = (row.name for row in read_confidence(masks / CONFIDENCE))
    drawn = np.full((48, 48), 2, np.uint8)
    write_mended(masks, first, drawn, ())
    (learned,) = again()
    assert len(learned) == len(read_confidence(masks / CONFIDENCE))
    for record in learned.records:
        assert record.mask is not None
        made = PngMask(tmp_path / "run" / MASKS / f"{record.name}.png").load(48, 48)
        np.testing.assert_array_equal(record.mask.load(48, 48), drawn if record.name == first else made)
    # What was accepted counts where the table of the review is named.
    image = next(record.image for record in learned.records if record.name == second)
    (tmp_path / "reviews").mkdir()
    review = tmp_path / "reviews" / "first.csv"
    review.write_text(f"image,tags,split,verdict\n{os.path.relpath(image, review.parent)},,,keep\n")
    learned = again(f"data.review={review}")[-1]
    taken = {own.name: own.mask.load(48, 48) for own in learned.records if own.mask}
    np.testing.assert_array_equal(taken[second], PngMask(masks / f"{second}.png").ids())
    np.testing.assert_array_equal(taken[first], drawn)
    assert first not in {each.name for each in suggest(tmp_path / "run", half_masked, count=99)}
