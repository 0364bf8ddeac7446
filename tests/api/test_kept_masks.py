"""Masks and CAMs that a person changed, or that tagmask did not write, are never replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask.api import open_data, write_masks
from tagmask.cli import app
from tagmask.data import ledger
from tagmask.data.cam_files import read_cams
from tagmask.data.ledger import LEDGER
from tagmask.engine.inference import Prediction
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("kept") / "run")


@pytest.fixture
def photos(cooccur: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sorted((cooccur / "images").iterdir())[:4]:
        shutil.copy(photo, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(mask: Path, *, time: int | None = None) -> bytes:
    """Paint the mask over; its clock shows `time`, as after `cp -p` or `unzip`, else now."""
    Image.new("L", Image.open(mask).size, 1).save(mask)
    if time is not None:
        os.utime(mask, ns=(time, time))
    return mask.read_bytes()


def stop_after(masks: int, monkeypatch: pytest.MonkeyPatch, *, before_the_file: bool = False) -> None:
    """End the next labelling within a mask, as a kill does, before or after its file is in place."""
    original: Callable[..., None] = ledger.write_bytes
    left = [masks]

    def stopping(path: Path, content: bytes) -> None:
        if left[0] == 0 and before_the_file:
            raise KeyboardInterrupt
        original(path, content)
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1

    monkeypatch.setattr(ledger, "write_bytes", stopping)


def test_rows_of_others_stay_and_a_changed_mask_is_kept_whatever_its_clock(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    first, second, *_ = sorted(photos.iterdir())
    masks = tmp_path / "masks"
    tagmask.predict(run, first, output=masks)
    tagmask.predict(run, second, output=masks)
    rows = (masks / "confidence.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["image", first.stem, second.stem]
    changed = masks / f"{first.stem}.png"
    edited = edit(changed, time=changed.stat().st_mtime_ns)
    with pytest.raises(TagmaskError, match=rf"{first.stem}\.png: was changed since it was written"):
        tagmask.predict(run, photos, output=masks)
    assert changed.read_bytes() == edited
    assert tagmask.predict(run, second, output=masks).images == 1


@pytest.mark.parametrize("before_the_file", [True, False])
def test_a_mask_changed_after_a_kill_is_kept_and_the_others_are_resumed(
    before_the_file: bool, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, names = tmp_path / "masks", [photo.stem for photo in sorted(photos.iterdir())]
    tagmask.predict(run, photos, output=tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(1, patch, before_the_file=before_the_file)
        with pytest.raises(KeyboardInterrupt):
            tagmask.predict(run, photos, output=masks)
    assert (masks / f"{names[0]}.png").is_file()
    assert (masks / f"{names[1]}.png").is_file() is not before_the_file
    assert tagmask.predict(run, photos, output=masks).images == 4
    assert contents(masks) == contents(tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(1, patch, before_the_file=before_the_file)
        with pytest.raises(KeyboardInterrupt):
            tagmask.predict(run, photos, output=masks)
    edited = edit(masks / f"{names[0]}.png")
    with pytest.raises(TagmaskError, match="was changed since it was written"):
        tagmask.predict(run, photos, output=masks)
    assert (masks / f"{names[0]}.png").read_bytes() == edited


def test_a_line_that_a_kill_cut_off_is_passed_over(run: Path, photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    tagmask.predict(run, photos, output=masks)
    whole = contents(masks)
    with (masks / LEDGER).open("a") as file:
        file.write('["cut", "8d3')
    assert tagmask.predict(run, photos, output=masks).images == 4
    assert contents(masks) == whole


def test_masks_of_version_0_1_are_made_anew_unless_they_are_newer_than_their_table(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    masks, first = tmp_path / "masks", sorted(photos.iterdir())[0]
    tagmask.predict(run, photos, output=masks)
    (masks / LEDGER).unlink()
    assert tagmask.predict(run, photos, output=masks).images == 4
    (masks / LEDGER).unlink()
    later = (masks / "confidence.csv").stat().st_mtime_ns + 10**9
    edited = edit(masks / f"{first.stem}.png", time=later)
    others = [photo for photo in sorted(photos.iterdir()) if photo != first]
    assert tagmask.predict(run, others[0], output=masks).images == 1  # writes the table anew
    with pytest.raises(TagmaskError, match="was changed since it was written"):
        tagmask.predict(run, first, output=masks)
    assert (masks / f"{first.stem}.png").read_bytes() == edited


def test_cams_of_others_are_not_written_over(run: Path, cooccur: Path, tmp_path: Path) -> None:
    cams, classes = tmp_path / "cams", (cooccur / "classes.txt").read_text()
    cams.mkdir()
    (cams / "classes.txt").write_text(classes)
    name = sorted((cooccur / "images").iterdir())[0].stem
    np.savez(cams / f"{name}.npz", measured=np.arange(3))
    before = contents(cams)
    with pytest.raises(TagmaskError, match=rf"{name}\.npz: is there already, not written by `label`"):
        tagmask.label(run, cooccur, output=tmp_path / "masks", source="cam", save_cams=cams)
    assert contents(cams) == before
    assert not (tmp_path / "masks").exists()
    for _ in range(2):
        tagmask.label(run, cooccur, output=tmp_path / "masks", source="cam", save_cams=tmp_path / "own")
    assert read_cams(tmp_path / "own" / f"{name}.npz")[0].ndim == 3


def test_label_counts_the_masks_that_lack_a_tag(run: Path, cooccur: Path, tmp_path: Path) -> None:
    written = tagmask.label(run, cooccur, output=tmp_path)
    records = open_data(cooccur, tiny_recipe("cam").data).records
    shown = {record.name: set(np.asarray(Image.open(tmp_path / f"{record.name}.png")).flat) for record in records}
    lacking = [record.name for record in records if not {tag + 1 for tag in record.tags} <= shown[record.name]]
    assert 0 < len(lacking) < len(records)
    assert sorted(written.lacking) == sorted(lacking)
    said = CliRunner().invoke(app, ["label", str(run), str(cooccur), "-o", str(tmp_path)]).output
    assert f"{len(lacking)} of {len(records)} masks hold nothing of one or more of their tags" in said
    page = f"(tagmask serve {run} --images {cooccur} --masks {tmp_path} --review reviews/first.csv)"
    assert page in said


@pytest.mark.parametrize("blind", [False, True])
def test_predict_says_when_every_mask_is_background(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    stream = write_masks.stream

    def plain(*told: Any, **more: Any) -> Iterator[Prediction]:
        for index, prediction in enumerate(stream(*told, **more)):
            yield replace(prediction, labels=np.full_like(prediction.labels, not blind and index == 0))

    monkeypatch.setattr(write_masks, "stream", plain)
    for given in (photos, sorted(photos.iterdir())[0]):
        masks = tmp_path / f"masks of {given.stem}"
        said = CliRunner().invoke(app, ["predict", str(run), str(given), "-o", str(masks)]).output
        count = 4 if given == photos else 1
        page = f"(tagmask serve {run} --images {photos} --masks '{masks}' --review reviews/first.csv)"
        told = f"{count} of {count} masks hold nothing of any class, all is background: look at them first {page}"
        assert (told in said) == blind
        assert f"{count} masks: {masks}" in said
