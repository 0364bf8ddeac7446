"""Tags of surroundings: learnt like classes, background in every mask."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.data.cam_files import read_cams, write_cams
from tagmask.data.check import check_dataset
from tagmask.data.dataset import Record
from tagmask.data.readers.voc import CLASSES as VOC
from tagmask.engine import pipeline
from tagmask.engine.pixels import Pixels
from tagmask.engine.refine_folder import refine_folder, write_affinity_labels
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.labels import beside_context
from tagmask.recipes.load import DataConfig, InferenceConfig, Recipe, load_recipe
from tagmask.recipes.stages import AffinityConfig, RefineConfig
from tagmask.serve.photos import find_photos
from tagmask.serve.review import Review, find_candidates
from tests.conftest import staged_recipe

THINGS = ("boat", "train", "cow")
SURROUNDINGS = ("water", "rails", "grass")
SET = "data.context=[water, rails, grass]"


def write_tags(cooccur: Path, folder: Path, classes: Sequence[str] | None) -> Path:
    """The synthetic set with tags of its contexts too, lone ones among them, and an image of water alone."""
    shutil.copytree(cooccur, folder)
    with (cooccur / "tags.csv").open() as file:
        splits = {row["image"]: row["split"] for row in csv.DictReader(file)}
    with (cooccur / "scenes.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = ["image,tags,split"]
    for row in rows:
        names = sorted({*row["objects"].split(";"), *row["contexts"].split(";"), *row["alone"].split(";")} - {""})
        lines.append(f"{row['image']},{';'.join(names)},{splits[row['image']]}")
    for split in ("train", "val"):
        Image.new("RGB", (48, 48), (40, 60, 160)).save(folder / "images" / f"lone-{split}.png")
        Image.new("L", (48, 48)).save(folder / "masks" / f"lone-{split}.png")
        lines.append(f"lone-{split}.png,water;~grass,{split}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    if classes is None:
        shutil.rmtree(folder / "masks")
        (folder / "classes.txt").unlink()
    else:
        (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return folder


@pytest.fixture(scope="module", params=[THINGS, (*SURROUNDINGS, *THINGS)], ids=["things listed", "all listed"])
def tagged(request: pytest.FixtureRequest, cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tags(cooccur, tmp_path_factory.mktemp("context") / "set", request.param)
    if request.param != THINGS:  # then the masks' ids follow the list
        for path in (folder / "masks").iterdir():
            ids = np.asarray(Image.open(path))
            Image.fromarray(np.where(ids > 0, ids + 3, ids + 1).astype(np.uint8)).save(path)  # 1: water, all around
    return folder


@pytest.fixture
def listless(cooccur: Path, tmp_path: Path) -> Path:
    """Without class list and masks."""
    return write_tags(cooccur, tmp_path / "set", None)


def config(**changes: object) -> DataConfig:
    return DataConfig.model_validate({"context": SURROUNDINGS, **changes})


def recipe(method: str = "cam", **changes: Any) -> Recipe:
    sections = {"data": {"context": SURROUNDINGS}, "refine": {"name": "none", "background_score": 0.1}}
    return staged_recipe(method, **{**sections, **changes})


def test_surroundings_are_apart_from_the_classes(tagged: Path, cooccur: Path) -> None:
    plain = api.open_data(cooccur, DataConfig())
    found = api.open_data(tagged, config())
    assert found.classes == plain.classes == THINGS
    assert found.context == SURROUNDINGS
    assert [record.tags for record in found.records] == [*(record.tags for record in plain.records), (), ()]
    with (cooccur / "scenes.csv").open() as file:
        scenes = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
    for own, other in zip(found.records, plain.records, strict=False):
        shown = {*scenes[own.name]["contexts"].split(";"), *scenes[own.name]["alone"].split(";")} - {""}
        assert {SURROUNDINGS[index] for index in own.context} == shown
        assert own.mask is not None
        assert other.mask is not None
        np.testing.assert_array_equal(own.mask.load(48, 48), other.mask.load(48, 48))
    lone = found.records[-1]
    assert (lone.context, lone.unknown, lone.unknown_context) == ((0,), (), (2,))
    both = found.with_context()
    assert both.classes == (*THINGS, *SURROUNDINGS)
    assert both.records[-1].unknown == (5,)
    table = both.tag_matrix()
    np.testing.assert_array_equal(table[:-2, :3], plain.tag_matrix())
    assert table[:, 3:].sum() == sum(len(record.context) for record in found.records)


def test_without_a_class_list_the_other_tags_are_the_classes(listless: Path) -> None:
    found = api.open_data(listless, config())
    assert (found.classes, found.context) == (tuple(sorted(THINGS)), SURROUNDINGS)
    assert api.open_data(listless, config(classes=THINGS)).classes == THINGS
    report = check_dataset(listless, context=SURROUNDINGS)
    assert not report.errors
    assert dict(zip(report.classes, report.class_totals, strict=True))["water"] == sum(
        0 in record.context for record in found.records
    )
    assert report.marks == ("1", "2", "3", "s1", "s2", "s3")
    answer = CliRunner().invoke(app, ["data", "check", str(listless), "--set", SET])
    assert answer.exit_code == 0
    assert "3 classes and context classes (s1 to s3; no mask holds them)" in " ".join(answer.output.split())


def test_a_misspelt_name_of_surroundings(listless: Path) -> None:
    report = check_dataset(listless, classes=list(THINGS), context=("watr", *SURROUNDINGS[1:]))
    assert "context class 'watr' of data.context is in no row of" in str(report.errors[0])
    assert str(report.errors[0]).endswith("did you mean 'water'?")
    unlike = check_dataset(listless, classes=list(THINGS), context=("lava", *SURROUNDINGS))
    assert any("data.context 'lava': no image bears it" in str(warning) for warning in unlike.warnings)


def test_vectors_keep_their_order(tmp_path: Path) -> None:
    """The 20 values of VOC have names of their own, whichever of them are surroundings."""
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / "a.jpg")
    vector = np.zeros(20, np.float32)
    vector[[VOC.index("person"), VOC.index("sofa")]] = 1
    np.save(tmp_path / "cls_labels.npy", np.array({"a": vector}, dtype=object), allow_pickle=True)
    found = api.open_data(tmp_path / "cls_labels.npy", config(context=("sofa", "diningtable")))
    (record,) = found.records
    assert [found.classes[tag] for tag in record.tags] == ["person"]
    assert [found.context[tag] for tag in record.context] == ["sofa"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": (*THINGS, *SURROUNDINGS)}, "names every tag there is"),
        ({"classes": THINGS, "context": ("boat",)}, "'boat' is in data.classes too"),
        ({"context": ("water", "water")}, "'water' stands twice"),
        ({"background": False}, "data.background is false; set it to true"),
    ],
)
def test_what_cannot_be_surroundings(listless: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        api.open_data(listless, config(**changes))


def test_surroundings_that_no_image_bears_are_not_learnt(listless: Path, tmp_path: Path) -> None:
    chosen = recipe(data={"context": ["watr"]})
    with pytest.raises(TagmaskError, match=r"no training image bears the tag 'watr'; did you mean 'water'\?"):
        tagmask.train(listless, recipe=chosen, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("untagged", "count"), [("skip", 26), ("negative", 26), ("error", 26)])
def test_surroundings_alone_are_tags(tagged: Path, untagged: str, count: int) -> None:
    assert len(api.open_data(tagged, config(untagged=untagged))) == count


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
    thresholds = RefineConfig(name="none", background_score=0.3)
    for classes, expected in ((3, [2, 2, 3, 3, 3, 3]), (2, [2, 2, 0, 0, 0, 0])):
        refine_folder(tmp_path / "cams", [record], tmp_path / f"{classes}", thresholds, num_classes=classes)
        labels = np.asarray(Image.open(tmp_path / f"{classes}" / "a.png"))
        np.testing.assert_array_equal(labels, np.tile(np.array(expected, np.uint8), (4, 1)))


@pytest.mark.parametrize(
    ("refine", "lone"),
    [
        (RefineConfig(name="none", band=(0.2, 0.5)), [2, 255, 255, 0, 0]),
        (RefineConfig(name="none", band=(0.5, 0.2)), [2, 255, 255, 0, 0]),
    ],
)
def test_with_a_band_context_classes_are_an_opinion_of_their_own(
    tmp_path: Path, refine: RefineConfig, lone: list[int]
) -> None:
    """Sure: a thing where it wins with and without them, and background where no power gives the pixel to a thing."""
    Image.new("RGB", (5, 4), (90, 90, 90)).save(tmp_path / "a.png")
    cams = torch.tensor([[0.9, 0.6, 0.3, 0.1, 0.1], [0.1, 0.8, 0.1, 0.8, 0.1]])[:, None].expand(2, 4, 5)
    write_cams(tmp_path / "cams" / "a.npz", cams, [1, 2])
    refine_folder(tmp_path / "cams", [Record("a", tmp_path / "a.png", (1,))], tmp_path / "out", refine, num_classes=2)
    labels = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(labels, np.tile(np.array(lone, np.uint8), (4, 1)))


def test_by_a_dense_crf_things_and_context_that_both_claim_a_pixel_leave_it_undecided(tmp_path: Path) -> None:
    """A cow (label 2) on grass: without the grass it wins the right half too, with it the grass does."""
    picture = np.full((24, 32, 3), 40, np.uint8)
    picture[:, 16:] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    cams = torch.zeros(2, 24, 32)
    cams[0, :, :16], cams[0, :, 16:], cams[1, :, 16:] = 0.95, 0.7, 0.9
    write_cams(tmp_path / "cams" / "a.npz", cams, [1, 2])
    records = [Record("a", tmp_path / "a.png", ())]
    for name, band, right in (("one", None, 0), ("three", (1.0, 4.0), 255)):
        refine = RefineConfig(name="crf", alpha=4, band=band)
        refine_folder(tmp_path / "cams", records, tmp_path / name, refine, num_classes=2)
        labels = np.asarray(Image.open(tmp_path / name / "a.png"))
        assert {*labels[:, :14].flat} == {2}
        assert {*labels[:, 18:].flat} == {right}
    affinity = AffinityConfig(low=1, high=4)
    refine = RefineConfig(name="affinity", affinity=affinity)
    write_affinity_labels(tmp_path / "cams", records, tmp_path / "labels", refine, affinity, 2)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels" / "a.png")), labels)


def test_what_is_background_to_both_powers_is_sure(tmp_path: Path) -> None:
    """Water to one and background to the other: no reason to leave a pixel undecided, nor for AffinityNet."""
    picture = np.full((24, 32, 3), 40, np.uint8)
    picture[:, 16:] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    cam = torch.zeros(1, 24, 32)
    cam[:, :, 16:] = 0.45  # 0.55 and 0.17 against it at powers of 1 and 3
    write_cams(tmp_path / "cams" / "a.npz", cam, [2])  # label 3
    records = [Record("a", tmp_path / "a.png", ())]
    for number, refine in enumerate(
        (RefineConfig(name="crf", band=(1, 3)), RefineConfig(name="none", band=(0.2, 0.5)))
    ):
        for classes, undecided in ((3, True), (2, False)):
            place = tmp_path / f"{number}-{classes}"
            refine_folder(tmp_path / "cams", records, place, refine, num_classes=classes)
            assert (255 in ids_in(place)) is undecided
    for classes, ids in ((3, {0, 255}), (2, {0})):
        labels = RefineConfig(name="affinity", affinity=AffinityConfig(low=1, high=3))
        place = tmp_path / f"labels-{classes}"
        write_affinity_labels(tmp_path / "cams", records, place, labels, labels.affinity, classes)
        assert ids_in(place) == ids


def ids_in(folder: Path) -> set[int]:
    return {int(label) for path in folder.rglob("*.png") for label in np.unique(np.asarray(Image.open(path)))}


@pytest.mark.parametrize("method", ["cam", "sccam", "rca", "seco"])
def test_from_tags_to_masks(method: str, tagged: Path, tmp_path: Path) -> None:
    refine = {"name": "fusion", "alpha": 2} if method == "rca" else {"name": "none", "background_score": 0.1}
    run = tagmask.train(tagged, recipe=recipe(method, refine=refine), output=tmp_path / "run")
    assert (run / "classes.txt").read_text().split() == list(THINGS)
    ids = {int(value) for path in (run / "cams").glob("*.npz") for value in read_cams(path)[1]}
    assert max(ids) > len(THINGS)
    assert ids_in(run / "refine") <= {0, 1, 2, 3, 255}
    rows = {row.stage: row.result for row in tagmask.evaluate_stages(run)}
    assert list(rows) == ["cams", "cams-fixed", "refine", "segmenter"]
    held_out, _ = tagmask.evaluate(run)
    assert held_out.scores.miou == rows["segmenter"].scores.miou
    assert len(held_out.scores.iou) == 1 + len(THINGS)
    _, sweep = tagmask.evaluate(run, source="cam", split=["train"])
    assert sweep is not None
    if method == "cam":  # the others' CAMs on disk are gathered, or of other flips
        assert sweep.best.miou == pytest.approx(rows["cams"].scores.miou, abs=0.02)
    labels = tagmask.label(run, tagged, output=tmp_path / "masks", source="cam", save_cams=tmp_path / "saved")
    assert labels.images == 26
    assert ids_in(tmp_path / "masks") <= {0, 1, 2, 3}
    assert max(int(value) for path in (tmp_path / "saved").glob("*.npz") for value in read_cams(path)[1]) <= 3


def test_drawn_masks_teach_the_others_beside_context_classes(
    tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not know the context classes, which are background in them."""
    seen: list[tuple[int, list[int]]] = []
    fit = pipeline.fit_pixels

    def spy(method: Method, records: Sequence[Record], config: InferenceConfig) -> Pixels | None:
        found = fit(method, records, config)
        drawn = sum(record.mask is not None for record in records)
        seen.append((drawn, [] if found is None else found.classifier.labels.tolist()))
        return found

    monkeypatch.setattr(pipeline, "fit_pixels", spy)
    own = recipe(data={"context": SURROUNDINGS, "use_masks": True})
    run = tagmask.train(tagged, recipe=own, output=tmp_path / "run")
    ((drawn, labels),) = seen
    assert drawn > 0
    assert labels == [0, 1, 2, 3]
    assert ids_in(run / "refine") <= {0, 1, 2, 3, 255}


def test_cams_that_hold_surroundings_are_refined_where_these_are_named(tagged: Path, tmp_path: Path) -> None:
    run = tagmask.train(tagged, recipe=recipe(), output=tmp_path / "run")
    told = ["refine", str(run / "cams"), str(tagged), "--with", "none", "-o", str(tmp_path / "masks")]
    refused = CliRunner().invoke(app, told)
    assert isinstance(refused.exception, TagmaskError)  # of tags in no list, or of ids no image bears
    for more in (["--run", str(run)], ["--set", SET]):
        place = tmp_path / more[0]
        assert CliRunner().invoke(app, [*told[:-1], str(place), *more]).exit_code == 0
        assert ids_in(place) <= {0, 1, 2, 3}


@pytest.mark.parametrize("source", ["decoder", "cam"])
def test_data_without_such_tags_can_be_evaluated_on(
    source: Literal["decoder", "cam"], tagged: Path, cooccur: Path, tmp_path: Path
) -> None:
    run = tagmask.train(tagged, recipe=recipe(), output=tmp_path / "run")
    here, _ = tagmask.evaluate(run, tagged, split=["test"], source=source)
    there, _ = tagmask.evaluate(run, cooccur, split=["test"], source=source)
    assert (here.scores.miou == there.scores.miou) is (source == "decoder")


def test_a_review_keeps_the_surroundings(tagged: Path, tmp_path: Path) -> None:
    run = tagmask.train(tagged, recipe=recipe(), output=tmp_path / "run")
    tagmask.label(run, tagged, output=tmp_path / "masks")
    photos = find_photos(tagmask.load(run, device="cpu"), None)
    candidates, left_out = find_candidates(tmp_path / "masks", photos, THINGS)
    assert not left_out
    (tmp_path / "reviews").mkdir()
    for again in (False, True):  # the second takes up the table of the first
        review = Review(candidates, tmp_path / "reviews" / "first.csv", THINGS)
        assert again is bool(review.decisions)
        review.decide("000000", "keep", review.tags("000000"))
    with (tmp_path / "reviews" / "first.csv").open() as file:
        rows = {Path(row["image"]).stem: row["tags"].split(";") for row in csv.DictReader(file)}
    for record in api.open_data(tagged, config()).records:
        expected = {*(THINGS[tag] for tag in record.tags), *(SURROUNDINGS[index] for index in record.context)}
        assert {tag for tag in rows[record.name] if tag and not tag.startswith("~")} == expected
    assert "~grass" in rows["lone-train"]


@pytest.mark.parametrize("sections", [{"segmenter": None}, {"segmenter": None, "refine": None}])
def test_a_recipe_without_a_segmenter_is_refused(
    tagged: Path, tmp_path: Path, sections: dict[str, Sequence[str] | None]
) -> None:
    with pytest.raises(TagmaskError, match=r"data\.context: .* --set segmenter\.start=weights"):
        tagmask.train(tagged, recipe=recipe(**sections), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_full_learns_no_surroundings(tagged: Path, tmp_path: Path) -> None:
    values = recipe().model_dump() | {"method": {"name": "full"}, "refine": None, "segmenter": None}
    with pytest.raises(TagmaskError, match="`full` learns from masks"):
        tagmask.train(tagged, recipe=load_recipe(values), output=tmp_path / "run")
