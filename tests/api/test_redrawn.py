"""Masks that a person draws or changes between two starts of one run: none is lost, and none is passed over."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import tagmask
from tagmask.api.suggest import suggest
from tagmask.data.label_maps import write_label_map
from tagmask.data.masks import PngMask
from tagmask.engine.run import AFFINITY, CAMS, LABELS, MASKS, SEGMENTER
from tagmask.engine.stage import DONE
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe

STAGED = ("refine.name=none", "segmenter.start=weights", "segmenter.training.steps=1", "training.steps=1")
ALONE = (*STAGED, "method.decoder_from=6")


@pytest.fixture
def photos(cooccur: Path, tmp_path: Path) -> Path:
    """The set with two masks."""
    folder = tmp_path / "photos"
    shutil.copytree(cooccur, folder)
    for path in sorted((folder / "masks").iterdir())[2:]:
        path.unlink()
    return folder


def train(photos: Path, run: Path, *overrides: str, start: str | None = None) -> Path:
    return tagmask.train(photos, recipe=tiny_recipe("cam", *ALONE, *overrides), output=run, from_stage=start)


def test_masks_drawn_since_are_not_passed_over(photos: Path, cooccur: Path, tmp_path: Path) -> None:
    run, asked = tmp_path / "run", "data.use_masks=true"
    train(photos, run, asked)
    before = (run / SEGMENTER / "model.safetensors").read_bytes()
    train(photos, run, asked)  # nothing new
    shutil.copytree(cooccur / "masks", photos / "masks", dirs_exist_ok=True)
    with pytest.raises(TagmaskError, match="run: the masks to learn from were others; add --from refine to learn from"):
        train(photos, run, asked)
    train(photos, run, asked, start=SEGMENTER)
    assert (run / SEGMENTER / "model.safetensors").read_bytes() != before
    train(photos, run, asked)
    train(photos, run, start=SEGMENTER)  # without them again
    train(photos, run)


def test_masks_of_another_ground_truth_are_not_passed_over_by_full(cooccur: Path, tmp_path: Path) -> None:
    photos = tmp_path / "whole"
    shutil.copytree(cooccur, photos)
    recipe = tiny_recipe("full", "training.steps=1")
    tagmask.train(photos, recipe=recipe, output=tmp_path / "run")
    tagmask.train(photos, recipe=recipe, output=tmp_path / "run")
    mask = sorted((photos / "masks").iterdir())[0]
    write_label_map(mask, np.where(PngMask(mask).ids() == 0, 1, 0).astype(np.uint8))
    with pytest.raises(TagmaskError, match="the masks to learn from were others; choose another output"):
        tagmask.train(photos, recipe=recipe, output=tmp_path / "run")


def test_a_mask_changed_in_the_run_is_kept(photos: Path, tmp_path: Path) -> None:
    run = train(photos, tmp_path / "run")
    mask, other = sorted((run / MASKS).glob("*.png"))[:2]
    before = other.read_bytes()
    later = time.time() + 60  # a minute after the stage was done
    drawn = np.where(PngMask(mask).ids() == 0, 1, 0).astype(np.uint8)
    write_label_map(mask, drawn)

    os.utime(mask, (later, later))
    train(photos, run, start=MASKS)
    kept = run / f"{MASKS}-changed" / mask.name
    np.testing.assert_array_equal(PngMask(kept).ids(), drawn)
    assert [path.name for path in kept.parent.iterdir()] == [mask.name]
    assert other.read_bytes() == before
    assert mask.exists()  # made anew
    train(photos, run, f"data.use_masks={kept.parent}", start=MASKS)
    assert kept.exists()


def test_masks_in_the_folder_of_a_stage_are_not_taken_for_drawn_ones(photos: Path, tmp_path: Path) -> None:
    run = train(photos, tmp_path / "run")
    before = {path: path.read_bytes() for path in (run / MASKS).iterdir()}
    with pytest.raises(TagmaskError, match=r"data.use_masks .*refine: holds what this run makes and replaces; copy"):
        train(photos, run, f"data.use_masks={run / MASKS}", start=MASKS)
    assert {path: path.read_bytes() for path in (run / MASKS).iterdir()} == before
    with pytest.raises(TagmaskError, match=r"data.use_masks .*refine: holds what a run made, which nobody drew; copy"):
        train(photos, tmp_path / "other", f"data.use_masks={run / MASKS}")


def test_the_order_of_the_ids_may_be_said_when_masks_are_added(photos: Path, tmp_path: Path) -> None:
    order = (photos / "classes.txt").read_text().split()
    run = train(photos, tmp_path / "run")
    train(photos, run, "data.use_masks=true", f"data.mask_classes=[{','.join(order)}]", start=MASKS)
    with pytest.raises(TagmaskError, match=r"other training\.order.*; or, as they .* --from classifier to train"):
        train(photos, run, "training.order=listed", start=SEGMENTER)
    with pytest.raises(TagmaskError, match=r"for the segmenter alone: segmenter\.training\.order, with --from"):
        train(photos, run, "training.order=listed")


def test_stages_that_a_recipe_has_no_more_are_forgotten_with_those_before_them(photos: Path, tmp_path: Path) -> None:
    walk = ("refine.name=affinity", "refine.affinity.training.steps=1")
    run = train(photos, tmp_path / "run", *walk)
    assert (run / AFFINITY / DONE).exists()
    train(photos, run, "training.seed=5", start="classifier")
    assert not (run / AFFINITY / DONE).exists()
    assert not (run / AFFINITY / "model.safetensors").exists()
    assert not list((run / LABELS).glob("*.png"))
    train(photos, run, "training.seed=5", "segmenter=null", start=CAMS)
    assert not (run / SEGMENTER / DONE).exists()


def test_a_made_mask_with_a_strange_id_is_named(photos: Path, tmp_path: Path) -> None:
    run = train(photos, tmp_path / "run")
    mask = sorted((run / MASKS).glob("*.png"))[0]
    write_label_map(mask, np.full_like(PngMask(mask).ids(), 77))
    for path in sorted((run / MASKS).glob("*.png"))[1:]:
        path.unlink()
    with pytest.raises(TagmaskError, match=rf"{mask.name}.*77"):
        train(photos, run, start=SEGMENTER)


def test_wrong_drawn_masks_are_told_before_the_first_training(photos: Path, tmp_path: Path) -> None:
    for path in (photos / "masks").iterdir():
        write_label_map(path, PngMask(path).ids()[:5])
    with pytest.raises(TagmaskError, match=r"data.use_masks: .*masks/.*; mend or remove them"):
        train(photos, tmp_path / "run", "data.use_masks=true")
    assert not (tmp_path / "run").exists()


def test_suggest_names_what_does_not_open(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(photos, tmp_path / "run")
    images = sorted((photos / "images").iterdir())
    for path in images[3:]:
        path.write_bytes(path.read_bytes()[:40])
    found = suggest(run, photos, count=100)
    assert 0 < len(found) <= 3
    assert images[3].name in caplog.text
    for path in images:
        path.write_bytes(b"")
    with pytest.raises(TagmaskError, match="images without a mask opens; mend them"):
        suggest(run, photos, count=100)


def test_a_folder_of_masks_with_other_names_is_told_the_right_ones(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    mask = sorted((photos / "masks").iterdir())[0]
    shutil.copy(mask, tmp_path / "own" / f"{mask.stem}_mask.png")
    with pytest.raises(
        TagmaskError, match=r"own: holds no mask of a training image; for '\d+' expected \d+\.png in it"
    ):
        train(photos, tmp_path / "run", f"data.use_masks={tmp_path / 'own'}")


def test_changed_tags_are_told_how_to_train_anew(photos: Path, tmp_path: Path) -> None:
    train(photos, tmp_path / "run")
    table = photos / "tags.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    (sorted((photos / "images").iterdir())[-1]).unlink()
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if ",train" not in line or line != lines[1]) + "\n")
    with pytest.raises(TagmaskError, match="or add --from classifier to train all anew"):
        train(photos, tmp_path / "run")


def test_a_score_of_the_background_alone_is_said(
    cooccur: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "white"
    shutil.copytree(cooccur, photos)
    run = train(photos, tmp_path / "run")
    tagmask.evaluate(run, photos)
    assert "the ground truth shows none of the classes" not in caplog.text
    for path in (photos / "masks").iterdir():
        write_label_map(path, np.where(PngMask(path).ids() > 0, 255, 0).astype(np.uint8))
    tagmask.evaluate(run, photos)
    assert "the ground truth shows none of the classes: the score is of the background alone" in caplog.text


def test_masks_named_from_one_folder_are_found_from_another(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (photos / "masks").rename(tmp_path / "drawn")
    monkeypatch.chdir(tmp_path)
    train(photos, Path("run"), "data.masks=drawn", "data.use_masks=true")
    described = (tmp_path / "run/recipe.yaml").read_text()
    train(photos, Path("run"), "data.masks=drawn", "data.use_masks=true")  # the same run, not another one
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(suggest(tmp_path / "run", photos, count=1)) == 1
    train(photos, tmp_path / "run", f"data.masks={tmp_path / 'drawn'}", "data.use_masks=true")
    assert (tmp_path / "run/recipe.yaml").read_text() == described
    # A run of before, whose recipe names the folder from where it was started.
    (tmp_path / "run/recipe.yaml").write_text(described.replace(str(tmp_path / "drawn"), "drawn"))
    monkeypatch.chdir(tmp_path)
    train(photos, Path("run"), "data.masks=drawn", "data.use_masks=true")
