"""Tags of surroundings: learnt like classes, background in every mask."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tagmask
from tagmask import api
from tagmask.cam.files import read_cams, write_cams
from tagmask.cam.labels import beside_context
from tagmask.data.dataset import Record
from tagmask.errors import TagmaskError
from tagmask.recipe import DataConfig, Recipe, load_recipe
from tagmask.recipe_stages import RefineConfig
from tagmask.refinement import refine_folder

THINGS = ("boat", "train", "cow")
SURROUNDINGS = ("water", "rails", "grass")


@pytest.fixture(scope="module")
def tagged(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic set with tags of its contexts too, lone ones among them."""
    folder = tmp_path_factory.mktemp("context") / "set"
    shutil.copytree(cooccur, folder)
    with (cooccur / "tags.csv").open() as file:
        splits = {row["image"]: row["split"] for row in csv.DictReader(file)}
    with (cooccur / "scenes.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = ["image,tags,split"]
    for row in rows:
        names = sorted({*row["objects"].split(";"), *row["contexts"].split(";"), *row["alone"].split(";")} - {""})
        lines.append(f"{row['image']},{';'.join(names)},{splits[row['image']]}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    (folder / "classes.txt").write_text("\n".join((*THINGS, *SURROUNDINGS)) + "\n")
    return folder


def config(**changes: object) -> DataConfig:
    return DataConfig.model_validate({"context": SURROUNDINGS, **changes})


def recipe(*overrides: str) -> Recipe:
    side = 32
    values = {
        "method": {"name": "cam", "decoder_from": 100, "scales": [1.0]},
        "data": {"context": SURROUNDINGS},
        "views": {"crop": side, "squash": True, "flip": 0},
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": side, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2},
        },
        "optimizer": {"lr": 1e-3, "warmup": 0},
        "training": {"steps": 3, "batch": 4, "workers": 0, "log_every": 1, "checkpoint_every": 0},
        "inference": {"size": side},
        "refine": {"name": "none", "threshold": 0.1},
        "segmenter": {"start": "classifier"},
    }
    return load_recipe(values, overrides)


def test_surroundings_are_apart_from_the_classes(tagged: Path, cooccur: Path) -> None:
    plain = api.open_data(cooccur, DataConfig())
    found = api.open_data(tagged, config(), context=True)
    assert found.classes == plain.classes == THINGS
    assert found.context == SURROUNDINGS
    assert [record.tags for record in found.records] == [record.tags for record in plain.records]
    with (cooccur / "scenes.csv").open() as file:
        scenes = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
    for own, other in zip(found.records, plain.records, strict=True):
        shown = {*scenes[own.name]["contexts"].split(";"), *scenes[own.name]["alone"].split(";")} - {""}
        assert {SURROUNDINGS[index] for index in own.context} == shown
        assert own.mask is not None
        assert other.mask is not None
        np.testing.assert_array_equal(own.mask.load(48, 48), other.mask.load(48, 48))
    both = found.with_context()
    assert both.classes == (*THINGS, *SURROUNDINGS)
    table = both.tag_matrix()
    np.testing.assert_array_equal(table[:, :3], plain.tag_matrix())
    assert table[:, 3:].sum() == sum(len(record.context) for record in found.records)
    without = api.open_data(tagged, config())
    assert (without.classes, without.context) == (THINGS, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": ("watr",)}, r"no image bears the tag 'watr'; did you mean 'water'\?"),
        ({"context": (*THINGS, *SURROUNDINGS)}, "names every tag there is"),
        ({"classes": THINGS, "context": ("boat",)}, "'boat' is in data.classes too"),
        ({"context": ("water", "water")}, "'water' stands twice"),
        ({"background": False}, "data.background is false; set it to true"),
    ],
)
def test_what_cannot_be_surroundings(tagged: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        api.open_data(tagged, config(**changes), context=True)


@given(st.integers(0, 3), st.integers(0, 2**31))
def test_a_pixel_belongs_to_what_is_seen_there_most(surroundings: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cams, context = (torch.rand(count, 4, 5, generator=generator) for count in (2, surroundings))
    kept = beside_context(cams, context)
    highest = context.amax(dim=0) if surroundings else torch.zeros(4, 5)
    assert torch.equal(kept, cams * (cams >= highest))


def test_cams_of_surroundings_become_background(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (90, 90, 90)).save(tmp_path / "a.png")
    cams = torch.zeros(2, 4, 6)
    cams[0, :, :4] = 0.6
    cams[1, :, 2:] = 0.9
    write_cams(tmp_path / "cams" / "a.npz", cams, [1, 2])
    record = Record("a", tmp_path / "a.png", (1,))
    thresholds = RefineConfig(name="none", threshold=0.3)
    for classes, expected in ((3, [2, 2, 3, 3, 3, 3]), (2, [2, 2, 0, 0, 0, 0])):
        refine_folder(tmp_path / "cams", [record], tmp_path / f"{classes}", thresholds, classes=classes)
        labels = np.asarray(Image.open(tmp_path / f"{classes}" / "a.png"))
        np.testing.assert_array_equal(labels, np.tile(np.array(expected, np.uint8), (4, 1)))


def ids_in(folder: Path) -> set[int]:
    return {int(label) for path in folder.rglob("*.png") for label in np.unique(np.asarray(Image.open(path)))}


def test_from_tags_to_masks(tagged: Path, tmp_path: Path) -> None:
    run = tagmask.train(tagged, recipe=recipe(), output=tmp_path / "run")
    assert (run / "classes.txt").read_text().split() == list(THINGS)
    cams, ids = (read_cams(next((run / "cams").glob("*.npz")))[index] for index in (0, 1))
    assert len(cams) == len(ids)
    assert max(int(read_cams(path)[1].max()) for path in (run / "cams").glob("*.npz")) > len(THINGS)
    assert ids_in(run / "refine") <= {0, 1, 2, 3, 255}
    rows = {row.stage: row.result for row in tagmask.evaluate_stages(run)}
    assert list(rows) == ["cams", "refine", "segmenter"]
    assert len(rows["segmenter"].scores.iou) == 1 + len(THINGS)
    _, sweep = tagmask.evaluate(run, source="cam", split=["train"])
    assert sweep is not None
    # The CAMs of the verb and those on disk differ by float16 alone.
    assert sweep.best.miou == pytest.approx(rows["cams"].scores.miou, abs=0.02)
    tagmask.label(run, tagged, output=tmp_path / "masks", source="cam", save_cams=tmp_path / "saved")
    assert ids_in(tmp_path / "masks") <= {0, 1, 2, 3}
    tagmask.predict(run, tagged / "images", output=tmp_path / "predicted")
    assert ids_in(tmp_path / "predicted") <= {0, 1, 2, 3}
    assert json.loads((run / "stages.json").read_text())["segmenter"]["done"]


def test_data_without_such_tags_can_be_evaluated_on(tagged: Path, cooccur: Path, tmp_path: Path) -> None:
    run = tagmask.train(tagged, recipe=recipe(), output=tmp_path / "run")
    here, _ = tagmask.evaluate(run, tagged, split=["test"])
    there, _ = tagmask.evaluate(run, cooccur, split=["test"])
    assert here.scores.miou == there.scores.miou


@pytest.mark.parametrize("sections", [{"segmenter": None}, {"segmenter": None, "refine": None}])
def test_a_recipe_without_a_segmenter_is_refused(
    tagged: Path, tmp_path: Path, sections: dict[str, Sequence[str] | None]
) -> None:
    values = recipe().model_dump() | sections
    with pytest.raises(TagmaskError, match=r"data\.context: .* --set segmenter\.start=weights"):
        tagmask.train(tagged, recipe=load_recipe(values), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
