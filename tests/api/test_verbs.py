"""Each verb once, end to end, on a tiny set."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe
from tests.conftest import tiny_recipe
from tests.golden_checks import load as load_vectors

SMALL = ("views.crop=64", "views.resize_long=null", "inference.long_side=64")
SHORT = ("backbone.weights=null", "training.steps=2", "training.workers=0", *SMALL)


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tagmask.train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path_factory.mktemp("runs") / "cam")


def test_run_folder_holds_what_it_promises(run: Path, cooccur: Path) -> None:
    assert {"recipe.yaml", "classes.txt", "run.json", "metrics.jsonl", "model.safetensors", "training_state.pt"} <= {
        path.name for path in run.iterdir()
    }
    assert (run / "classes.txt").read_text() == (cooccur / "classes.txt").read_text()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["eval/decoder_miou"] <= 100


def test_finished_run_is_not_trained_again(run: Path, cooccur: Path) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    for how_not_what in ((), ("training.compile=true", "training.workers=1", "inference.precision=auto")):
        tagmask.train(cooccur, recipe=tiny_recipe("cam", *how_not_what), output=run)
        assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_run_of_another_recipe_is_not_overwritten(run: Path, cooccur: Path) -> None:
    with pytest.raises(TagmaskError, match=r"holds a run with other optimizer\.lr; choose"):
        tagmask.train(cooccur, recipe=tiny_recipe("cam", "optimizer.lr=0.5"), output=run)


def test_folder_that_is_no_run_is_not_touched(cooccur: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(TagmaskError, match="not empty and no run folder"):
        tagmask.train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_label_writes_only_own_tags_and_background(run: Path, cooccur: Path, tmp_path: Path) -> None:
    for source in ("decoder", "cam"):
        written = tagmask.label(run, cooccur, output=tmp_path / source, split=["train"], source=source)
        dataset = api.open_data(cooccur, tiny_recipe("cam").data).split("train")
        assert written.images == len(dataset)
        for record in dataset.records:
            labels = np.asarray(Image.open(tmp_path / source / f"{record.name}.png"))
            assert labels.shape == (48, 48)
            assert set(np.unique(labels)) <= {0, *(tag + 1 for tag in record.tags)}


def test_predict_keeps_size_and_skips_what_does_not_open(run: Path, cooccur: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "deep"
    photos.mkdir(parents=True)
    first = sorted((cooccur / "images").iterdir())[0]
    Image.open(first).resize((70, 31)).save(photos / "wide.jpg")
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    written = tagmask.predict(run, tmp_path / "photos", output=tmp_path / "masks")
    assert written.images == 2
    assert len(written.skipped) == 1
    assert "broken.jpg" in written.skipped[0]
    assert Image.open(tmp_path / "masks" / "deep" / "wide.png").size == (70, 31)
    assert Image.open(tmp_path / "masks" / "deep" / "dot.png").size == (1, 1)
    rows = (tmp_path / "masks" / "confidence.csv").read_text().splitlines()
    assert rows[0] == "image,confidence,classes"
    assert len(rows) == 3


@pytest.mark.parametrize("refine", ["none", "par", "crf"])
def test_model_predicts_one_image(run: Path, cooccur: Path, refine: str) -> None:
    model = tagmask.load(run, device="cpu")
    model.run = type(model.run)(
        model.run.folder,
        model.run.recipe.model_copy(
            update={"inference": model.run.recipe.inference.model_copy(update={"refine": refine})}
        ),
        model.run.classes,
    )
    image = Image.open(sorted((cooccur / "images").iterdir())[0])
    assert model.predict(image).shape == (48, 48)
    assert set(np.unique(model.predict(image, tags=[model.classes[1]]))) <= {0, 2}
    assert np.array_equal(model.predict(np.asarray(image)), model.predict(image))
    with pytest.raises(TagmaskError, match="'dragon' is no class"):
        model.predict(image, tags=["dragon"])
    with pytest.raises(TagmaskError, match=r"give a list of class names, as \['cow'\]"):
        model.predict(image, tags="cow")


def test_written_masks_and_run_have_the_same_score(run: Path, cooccur: Path, tmp_path: Path) -> None:
    from_run, _ = tagmask.evaluate(run, cooccur, split=["test"])
    tagmask.predict(run, cooccur / "images", output=tmp_path)
    from_folder, _ = tagmask.evaluate(tmp_path, cooccur, split=["test"])
    assert from_run.scores.miou == from_folder.scores.miou
    np.testing.assert_array_equal(from_run.matrix.counts, from_folder.matrix.counts)


def test_cams_are_swept(run: Path, cooccur: Path) -> None:
    result, sweep = tagmask.evaluate(run, cooccur, split=["test"], source="cam")
    assert sweep is not None
    at_own = sweep.miou[int(np.argmin(abs(sweep.thresholds - result.conditions.background_score)))]
    assert at_own == pytest.approx(result.scores.miou, abs=0.01)
    assert sweep.best.miou >= at_own


def test_imported_checkpoint_gives_the_reference_outputs(tmp_path: Path) -> None:
    vectors = load_vectors(Path(__file__).parents[1] / "golden" / "seco_network.npz")
    state = {
        "module." + name.removeprefix("state_"): torch.from_numpy(value)
        for name, value in vectors.items()
        if name.startswith("state_")
    }
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    run = tagmask.import_checkpoint("seco", tmp_path / "published.pth", tmp_path / "run")
    model = tagmask.load(run, device="cpu")
    with torch.no_grad():
        logits = model.method.network(torch.from_numpy(vectors["in_image"])).logits
    np.testing.assert_allclose(logits, vectors["out_logits"], rtol=1e-4, atol=1e-5)
    assert len(model.classes) == 5


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(TagmaskError, match=r"other\.pth: 'features\.0\.weight' is no tensor of a SeCo network"):
        tagmask.import_checkpoint("seco", tmp_path / "other.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pickle_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    torch.save({"state": Path("anything")}, tmp_path / "evil.pth")
    with pytest.raises(TagmaskError, match=r"evil\.pth: not a file of tensors alone"):
        tagmask.import_checkpoint("seco", tmp_path / "evil.pth", tmp_path / "run")


def invoke(*arguments: object) -> tuple[int, str]:
    try:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    except TagmaskError as error:
        return 2, str(error)
    return result.exit_code, result.output


def test_bad_input_run_folder_of_another_version(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "run.json").write_text('{"format": 99, "tagmask": "7.0"}')
    code, output = invoke("predict", other, tmp_path)
    assert code == 2
    assert "a run of format 99, written by tagmask 7.0" in output


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not json"])
def test_bad_input_damaged_run_folder(run: Path, tmp_path: Path, content: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "run.json").write_text(content)
    code, output = invoke("predict", other, tmp_path)
    assert code == 2
    assert "run.json: damaged" in output


def test_bad_input_directory_without_a_run(tmp_path: Path) -> None:
    code, output = invoke("predict", tmp_path, tmp_path / "photos")
    assert code == 2
    assert "no run folder (run.json is missing)" in output


def test_cli_trains_labels_predicts_evaluates(cooccur: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe("seco").dump())
    run = tmp_path / "run"
    assert invoke("train", cooccur, "-r", recipe, "-o", run, "--set", "training.steps=4")[0] == 0
    code, output = invoke("label", run, "-o", tmp_path / "labels", "--split", "test")
    assert code == 0, output
    code, output = invoke("predict", run, cooccur / "images", "-o", tmp_path / "masks")
    assert (code, output.split()[0]) == (0, "24")
    code, output = invoke("evaluate", run, "--split", "test", "-o", tmp_path / "scores.json")
    assert code == 0, output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "seco" in json.dumps(scores)
    code, output = invoke("evaluate", run, "--source", "cam")
    assert "best of the sweep" in output


def test_cli_makes_and_checks_data(tmp_path: Path) -> None:
    assert invoke("data", "make", "cooccur", "-o", tmp_path / "set", "--images", 6, "--size", 48)[0] == 0
    assert invoke("data", "check", tmp_path / "set")[0] == 0
    sorted((tmp_path / "set" / "images").iterdir())[0].write_bytes(b"")
    code, output = invoke("data", "check", tmp_path / "set")
    assert code == 1
    assert "000000.png" in output.replace("\n", "")


@pytest.mark.parametrize(
    "verb",
    [
        (),
        ("train",),
        ("label",),
        ("predict",),
        ("evaluate",),
        ("import", "seco"),
        ("demo",),
        ("data", "make"),
        ("data", "check"),
    ],
)
def test_help_has_an_example_for_each_verb(verb: tuple[str, ...]) -> None:
    code, output = invoke(*verb, "--help")
    assert code == 0
    assert "tagmask " + " ".join(verb) in output.replace("`", "")


def test_predict_takes_the_images_of_a_list_alone(run: Path, cooccur: Path, tmp_path: Path) -> None:
    names = [path.stem for path in sorted((cooccur / "images").glob("*.png"))][:2]
    (tmp_path / "list.txt").write_text(f"{names[1]}\n{names[0]}.png\n")
    written = tagmask.predict(run, cooccur / "images", output=tmp_path / "masks", names=tmp_path / "list.txt")
    assert written.images == 2
    assert sorted(path.stem for path in (tmp_path / "masks").glob("*.png")) == names
    (tmp_path / "list.txt").write_text(f"{names[1]}\nelsewhere\n")
    with pytest.raises(TagmaskError, match=r"list\.txt row 2: no image 'elsewhere' in .*; 1 of 2 are missing"):
        tagmask.predict(run, cooccur / "images", output=tmp_path / "more", names=tmp_path / "list.txt")


def test_train_ends_with_time_score_and_the_next_command(cooccur: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_recipe("cam", "training.steps=2", "method.decoder_from=0").dump())
    told = CliRunner().invoke(app, ["train", str(cooccur), "-r", str(recipe), "-o", str(tmp_path / "run")]).output
    assert "minutes)" in told
    assert re.search(r"score: mIoU \d+\.\d % on \d+ held-out images, without tags", told)
    assert f"next: tagmask predict {tmp_path / 'run'} NEW_PHOTOS -o masks" in told


def test_next_step_of_a_run_with_cams_alone_is_to_label(cooccur: Path, tmp_path: Path) -> None:
    recipe = load_recipe("sccam/default", [*SHORT, "segmenter=null", "refine=null"])
    lines = api.next_steps(api.train(cooccur, recipe=recipe, output=tmp_path / "run"))
    assert lines[0] == f"next: tagmask label {tmp_path / 'run'} {cooccur} --source cam -o masks"
    untaught = tiny_recipe("cam", "training.steps=2", "method.decoder_from=2")
    lines = api.next_steps(api.train(cooccur, recipe=untaught, output=tmp_path / "untaught"))
    assert lines[0] == f"next: tagmask label {tmp_path / 'untaught'} {cooccur} --source cam -o masks"


@pytest.mark.parametrize("method", ["cam", "full", "rca", "sccam"])
def test_default_recipe_of_each_method_trains_on_ones_own_folder(cooccur: Path, tmp_path: Path, method: str) -> None:
    # Plain CAM's recipe joins CAMs by what a pretrained network sees, and these networks have no weights.
    apart = ["refine.alike=false"] if method == "cam" else []
    recipe = load_recipe(f"{method}/default", [*SHORT, *apart])
    run = api.train(cooccur, recipe=recipe, output=tmp_path / "run")
    assert api.predict(run, cooccur / "images", output=tmp_path / "masks").images == 24


def test_where_a_run_goes_that_nobody_named_is_said_before_it_ends(
    cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", logger="tagmask"):
        folder = tagmask.train(cooccur, recipe=tiny_recipe("cam"))
        assert f"run folder: {folder}" in caplog.messages
        caplog.clear()
        tagmask.train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path / "named")
    assert not any("run folder" in message for message in caplog.messages)


def test_bad_input_images_without_ground_truth_are_told_where_it_goes(cooccur: Path, tmp_path: Path, run: Path) -> None:
    shutil.copytree(cooccur / "images", tmp_path / "images")
    shutil.copy(cooccur / "tags.csv", tmp_path)
    with pytest.raises(TagmaskError, match=r"none of the \d+ images .* palette PNGs, \w+\.png .*data\.masks=FOLDER"):
        tagmask.evaluate(run, tmp_path)
