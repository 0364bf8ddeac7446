"""SC-CAM and RCA from tags to a trained segmenter, killed and resumed, on a tiny set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.data.cam_files import read_cams
from tagmask.data.dataset import Dataset
from tagmask.engine import stage as pipeline
from tagmask.engine.checkpoint import STATE_FILE
from tagmask.engine.pipeline import stages_of
from tagmask.engine.refine_folder import refine_folder
from tagmask.engine.stage import DONE, Stage
from tagmask.errors import TagmaskError
from tagmask.evaluation.folder import evaluate_folder
from tagmask.methods.sccam import Sccam
from tagmask.recipes.load import DataConfig, Recipe, load_recipe
from tagmask.recipes.stages import RefineConfig
from tests.conftest import STAGED_SIDE, staged_recipe

STAGES = {
    "sccam": ["round0", "clusters1", "round1", "clusters2", "round2", "cams", "refine", "segmenter"],
    "rca": ["classifier", "cams", "refine", "segmenter"],
    "seco": ["classifier", "cams", "refine", "segmenter"],
    "cam": ["classifier", "cams", "affinity-labels", "affinity", "refine", "segmenter"],
}


def recipe_of(method: str, **changes: Any) -> Recipe:
    if method == "cam":
        changes = {"refine": {"name": "affinity", "alpha": 4, "affinity": {"low": 1, "logt": 2}}, **changes}
    return staged_recipe(method, **changes)


@pytest.fixture(scope="module")
def runs(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: tagmask.train(cooccur, recipe=recipe_of(name), output=folder / name) for name in STAGES}


def masks(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "refine").glob("*.png"))}


@pytest.mark.parametrize("method", list(STAGES))
def test_run_goes_from_tags_to_a_segmenter(method: str, runs: dict[str, Path], cooccur: Path, tmp_path: Path) -> None:
    costs = json.loads((runs[method] / "stages.json").read_text())
    assert list(costs) == STAGES[method]
    assert all(cost["done"] and cost["bytes"] > 0 for cost in costs.values())
    config = staged_recipe(method).data
    records = api.training_split(api.open_data(cooccur, config), config).records
    assert len(masks(runs[method])) == len(records)
    for record in records:
        labels = np.asarray(Image.open(runs[method] / "refine" / f"{record.name}.png"))
        assert set(np.unique(labels)) <= {0, 255, *(tag + 1 for tag in record.tags)}
    model = tagmask.load(runs[method], device="cpu")
    image = next((cooccur / "images").iterdir())
    assert model.predict(image).shape == (48, 48)
    with torch.no_grad():
        cams = model.method.cams(torch.rand(1, 3, STAGED_SIDE, STAGED_SIDE))
    assert cams.shape == (1, 3, STAGED_SIDE, STAGED_SIDE)
    assert 0 <= float(cams.min()) <= float(cams.max()) < 1
    assert tagmask.label(runs[method], cooccur, output=tmp_path / "m", source="cam", save_cams=tmp_path / "c").images
    assert read_cams(next((tmp_path / "c").glob("*.npz")))[0].shape[1:] == (STAGED_SIDE, STAGED_SIDE)


def test_every_stage_is_scored_by_what_it_left(runs: dict[str, Path], cooccur: Path, tmp_path: Path) -> None:
    rows = {row.stage: row for row in tagmask.evaluate_stages(runs["sccam"])}
    assert list(rows) == ["cams", "cams-fixed", "refine", "segmenter"]
    config = staged_recipe("sccam").data
    training = api.training_split(api.open_data(cooccur, config), config)
    masks_alone = evaluate_folder(runs["sccam"] / "refine", training)
    assert rows["refine"].result.scores.miou == masks_alone.scores.miou
    held_out, _ = tagmask.evaluate(runs["sccam"])
    assert rows["segmenter"].result.scores.miou == held_out.scores.miou
    assert rows["segmenter"].result.conditions.tags_given is False
    # No CAM of any background score can be better than the one chosen.
    threshold = rows["cams"].result.conditions.threshold
    assert threshold is not None
    for other in (0.1, threshold, 0.5):
        folder = tmp_path / f"{other}"
        thresholds = RefineConfig(name="none", background_score=other)
        refine_folder(runs["sccam"] / "cams", training.records, folder, thresholds)
        found = evaluate_folder(folder, training).scores.miou
        assert found <= rows["cams"].result.scores.miou + 1e-9
        if other == threshold:
            assert found == pytest.approx(rows["cams"].result.scores.miou, abs=1e-9)
        if other == 0.5:  # the recipe's own
            assert found == pytest.approx(rows["cams-fixed"].result.scores.miou, abs=1e-9)


def test_stages_are_scored_on_the_command_line(runs: dict[str, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(runs["sccam"]), "--stages", "-o", str(tmp_path / "stages.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "stages.json").read_text())
    assert list(written) == ["cams", "cams-fixed", "refine", "segmenter"]
    assert f" {100 * written['refine']['miou']:.2f} " in done.output


def test_a_run_of_one_stage_has_no_stages_to_score(cooccur: Path, tmp_path: Path) -> None:
    values = staged_recipe("cam").model_dump() | {"refine": None, "segmenter": None}
    run = tagmask.train(cooccur, recipe=load_recipe(values), output=tmp_path / "run")
    with pytest.raises(TagmaskError, match="single stage; use tagmask evaluate"):
        tagmask.evaluate_stages(run)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", list(STAGES))
def test_killed_in_each_stage_and_resumed_gives_the_same(
    method: str, runs: dict[str, Path], cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage is killed where it writes for the second time, or at its end where it writes once."""
    import os

    replace_file, recipe, run = os.replace, recipe_of(method), tmp_path / "run"
    killed: set[str] = set()
    writes: dict[str, int] = {}

    def deadly(source: Any, target: Any, **options: Any) -> None:
        name = Path(target).parent.name
        if name in STAGES[method] and name not in killed:
            writes[name] = writes.get(name, 0) + 1
            if writes[name] == 2 or Path(target).name == DONE:
                killed.add(name)
                raise Killed
        replace_file(source, target, **options)

    monkeypatch.setattr(os, "replace", deadly)
    for _ in range(len(STAGES[method]) + 1):
        try:
            tagmask.train(cooccur, recipe=recipe, output=run)
        except Killed:
            torch.manual_seed(len(killed))
    assert killed == set(STAGES[method])
    monkeypatch.undo()
    assert masks(run) == masks(runs[method])
    ours, theirs = (tagmask.load(folder, device="cpu").method for folder in (run, runs[method]))
    for part in ("classifier.network", "segmenter.network"):
        trained, expected = ours.get_submodule(part).state_dict(), theirs.get_submodule(part).state_dict()
        assert [name for name, value in trained.items() if not torch.equal(value, expected[name])] == []


def test_from_a_stage_makes_it_and_what_follows_anew(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("cam", segmenter=None)
    run = tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    before = masks(run)
    assert any(Image.open(run / "refine" / name).getextrema()[1] for name in before), "some mask shows an object"
    (run / "refine" / "notes.txt").write_text("mine")
    classifier = (run / "classifier" / "model.safetensors").stat().st_mtime_ns
    changed = staged_recipe("cam", segmenter=None, refine={"name": "none", "background_score": 1.0})
    with pytest.raises(
        TagmaskError, match=r"holds a run with other refine\.name, refine\.background_score, refine\.alpha; choose"
    ):
        tagmask.train(cooccur, recipe=changed, output=run)
    tagmask.train(cooccur, recipe=changed, output=run, from_stage="refine")
    assert all(Image.open(run / "refine" / name).getextrema()[1] == 0 for name in before), "all is background"
    assert (run / "refine" / "notes.txt").read_text() == "mine"
    assert (run / "classifier" / "model.safetensors").stat().st_mtime_ns == classifier
    with pytest.raises(TagmaskError, match="no stage 'refin' in this recipe; its stages: classifier, cams, refine"):
        tagmask.train(cooccur, recipe=changed, output=run, from_stage="refin")


def test_affinity_net_is_trained_and_walked_by(runs: dict[str, Path], cooccur: Path, tmp_path: Path) -> None:
    run = runs["cam"]
    assert list(json.loads((run / "stages.json").read_text())) == STAGES["cam"]
    arguments = ["refine", run / "cams", cooccur, "-o", tmp_path / "masks", "--with", "affinity", "--run", run]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").glob("*.png")} == masks(run)


def test_another_refinement_than_the_runs_has_values_of_its_own(
    runs: dict[str, Path], cooccur: Path, tmp_path: Path
) -> None:
    """Powers of a random walk say nothing about background scores."""
    arguments = ["refine", runs["cam"] / "cams", cooccur, "-o", tmp_path / "masks", "--with", "none", "--run"]
    done = CliRunner().invoke(app, [str(argument) for argument in (*arguments, runs["cam"])], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("stage", "key"), [("refine", "low"), ("affinity", "high")])
def test_what_earlier_stages_were_made_with_is_not_changed_behind_them(
    stage: str, key: str, runs: dict[str, Path], cooccur: Path
) -> None:
    before = (runs["cam"] / "recipe.yaml").read_text()
    changed = recipe_of("cam", refine={"name": "affinity", "alpha": 4, "affinity": {"low": 1, "logt": 2, key: 7}})
    with pytest.raises(TagmaskError, match=rf"holds a run with other refine\.affinity\.{key};"):
        tagmask.train(cooccur, recipe=changed, output=runs["cam"], from_stage=stage)
    larger = recipe_of("cam", inference={"size": 2 * STAGED_SIDE})
    with pytest.raises(TagmaskError, match=r"holds a run with other inference\.size;"):
        tagmask.train(cooccur, recipe=larger, output=runs["cam"])
    assert (runs["cam"] / "recipe.yaml").read_text() == before


def test_a_stage_that_is_none_changes_nothing(cooccur: Path, tmp_path: Path) -> None:
    run = tagmask.train(cooccur, recipe=staged_recipe("cam", segmenter=None), output=tmp_path / "run")
    before = (run / "recipe.yaml").read_text()
    changed = staged_recipe("cam", segmenter=None, refine={"name": "none", "background_score": 1.0})
    with pytest.raises(TagmaskError, match="no stage 'affinity' in this recipe"):
        tagmask.train(cooccur, recipe=changed, output=run, from_stage="affinity")
    assert (run / "recipe.yaml").read_text() == before


def with_method(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"method": recipe.method.model_copy(update=changes)})


def test_every_pair_has_a_map_after_the_last_whole_epoch(cooccur: Path, tmp_path: Path) -> None:
    """Steps beyond whole epochs see a few images only, and must not be the only ones that are sure to be gathered."""
    training = {"steps": 9, "batch": 4, "workers": 0, "log_every": 1, "checkpoint_every": 0}  # 36 of 17 images each
    recipe = with_method(staged_recipe("rca", training=training, segmenter=None), gather_above=1.0)
    run = tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    state = torch.load(run / "classifier" / STATE_FILE, weights_only=True)["method"]
    assert state["gathered.written"][:-1].all()


def test_gathering_from_an_epoch_that_never_comes_is_refused(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match=r"method\.gather_from 1: 4 steps of 4 end in epoch 0 of 17 images"):
        tagmask.train(cooccur, recipe=with_method(staged_recipe("rca"), gather_from=1), output=tmp_path / "run")


@pytest.mark.parametrize("method", ["sccam", "rca", "cam"])
def test_every_stage_trains_in_mixed_precision(method: str, cooccur: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"refine": {"name": "affinity", "affinity": {"logt": 2}}} if method == "cam" else {}
    recipe = staged_recipe(method, **changes)
    mixed = recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": "bf16-mixed"})})
    run = tagmask.train(cooccur, recipe=mixed, output=tmp_path / "run")
    losses = [
        json.loads(line)["loss"]
        for metrics in run.rglob("metrics.jsonl")
        for line in metrics.read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert len(losses) >= 8
    assert np.isfinite(losses).all()
    decoder, _ = api.evaluate(run)
    assert decoder.images > 0


def test_stage_done_before_is_skipped_and_costs_add_up(tmp_path: Path) -> None:
    calls: list[str] = []

    def make(place: Path) -> None:
        calls.append(place.name)
        (place / "product").write_text("x")
        if calls == ["one", "two"]:
            raise Killed

    stages = [Stage(name, lambda place: [place / "product"], make) for name in ("one", "two")]
    with pytest.raises(Killed):
        pipeline.run_stages(tmp_path, stages)
    assert not pipeline.read_costs(tmp_path)["two"]["done"]
    pipeline.run_stages(tmp_path, stages)
    assert calls == ["one", "two", "two"]
    assert all(cost["done"] for cost in pipeline.read_costs(tmp_path).values())


def test_classes_with_few_images_and_images_without_tags_are_trained(cooccur: Path, tmp_path: Path) -> None:
    """One class has a single image for two clusters, one image has no tag, and no mask shows anything."""
    dataset = api.open_data(cooccur, DataConfig()).split("train")
    rare = [replace(record, tags=tuple(tag for tag in record.tags if tag != 2)) for record in dataset.records]
    rare[0] = replace(rare[0], tags=(2,))
    rare[1] = replace(rare[1], tags=())
    recipe = staged_recipe("sccam", refine={"name": "none", "background_score": 1.0})
    pipeline.run_stages(tmp_path, stages_of(recipe, Dataset(tuple(rare), dataset.classes), tmp_path))
    assert (tmp_path / "segmenter" / "model.safetensors").exists()
    with np.load(tmp_path / "clusters1" / "clusters.npz") as arrays:
        assert arrays["assignment"][0].tolist() == [-1, -1, 0]
        assert arrays["assignment"][1].tolist() == [-1, -1, -1]


def test_clusters_of_other_data_are_refused(runs: dict[str, Path], cooccur: Path) -> None:
    dataset = api.open_data(cooccur, DataConfig()).split("test")
    stage = stages_of(staged_recipe("sccam"), dataset, runs["sccam"])[2]
    with pytest.raises(TagmaskError, match="of other training data; cluster anew with --from clusters1"):
        stage.make(runs["sccam"] / "round1")


def test_rca_gathers_over_whole_images_only(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("rca", views={"crop": STAGED_SIDE})
    with pytest.raises(TagmaskError, match=r"set views\.squash=true and views\.flip=0"):
        tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cams_for_masks_have_scales_of_their_own(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("cam", segmenter=None)
    run = tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    changed = staged_recipe("cam", segmenter=None, inference={"size": STAGED_SIDE, "cam_scales": [1.0, 1.5]})
    with pytest.raises(TagmaskError, match=r"holds a run with other inference\.cam_scales;"):
        tagmask.train(cooccur, recipe=changed, output=run)
    tagmask.train(cooccur, recipe=changed, output=run, from_stage="cams")
    model, data = tagmask.load(run, device="cpu"), api.open_data(cooccur, changed.data)
    record = next(record for record in api.training_split(data, changed.data).records if record.tags)
    image = Image.open(record.image).resize((STAGED_SIDE, STAGED_SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = model.method.cams(model.method.network.backbone.normalise(pixels), (1.0, 1.5))[0]
    cams, ids = read_cams(run / "cams" / f"{record.name}.npz")
    torch.testing.assert_close(cams, expected[list(record.tags)], atol=2e-3, rtol=0)
    assert ids.tolist() == [tag + 1 for tag in record.tags]


def test_gathered_maps_have_no_scales(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("rca", inference={"size": STAGED_SIDE, "cam_scales": [1.0, 1.5]})
    with pytest.raises(TagmaskError, match=r"remove it, or set method\.cam_source=final"):
        tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")


def test_from_needs_stages(cooccur: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="this recipe has a single stage"):
        tagmask.train(cooccur, recipe=load_recipe({"method": "full"}), output=tmp_path, from_stage="refine")


def test_loaded_round_has_no_decoder(runs: dict[str, Path]) -> None:
    method = tagmask.load(runs["sccam"], device="cpu").method
    classifier = method.get_submodule("classifier")
    assert isinstance(classifier, Sccam)
    with pytest.raises(TagmaskError, match="Sccam has no decoder"):
        classifier.scores(torch.rand(1, 3, STAGED_SIDE, STAGED_SIDE))


def test_a_stop_that_rounds_do_not_know_is_refused(cooccur: Path, tmp_path: Path) -> None:
    recipe = staged_recipe("sccam")
    stopped = recipe.model_copy(update={"training": recipe.training.model_copy(update={"stop": 2})})
    with pytest.raises(TagmaskError, match="a round of SC-CAM ends by"):
        tagmask.train(cooccur, recipe=stopped, output=tmp_path / "run")
