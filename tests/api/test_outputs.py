"""What the verbs write: nothing of the user's is replaced, nothing wrong is hidden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask.api import open_data
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("outputs") / "run")


@pytest.fixture
def data(cooccur: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cooccur, tmp_path / "set"))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("output", ["masks", ".", "images"])
def test_files_of_others_are_not_written_over(run: Path, data: Path, output: str) -> None:
    before = contents(data)
    with pytest.raises(TagmaskError, match="is there already, not written by `label` or `predict`"):
        tagmask.label(run, data, output=data / output)
    refused = "is there already, not written by `label`" if output == "masks" else "holds the photographs"
    with pytest.raises(TagmaskError, match=refused):
        tagmask.predict(run, data / "images", output=data / ("images" if output == "." else output))
    assert contents(data) == before


def test_masks_are_not_written_among_the_photographs(run: Path, cooccur: Path, tmp_path: Path) -> None:
    """Where no name is taken yet, too: the next start would take the masks for photographs."""
    for photo in sorted((cooccur / "images").iterdir())[:2]:
        Image.open(photo).save(tmp_path / f"{photo.stem}.jpg")
    before = contents(tmp_path)
    for images in (tmp_path, next(tmp_path.iterdir())):
        with pytest.raises(TagmaskError, match="holds the photographs, which masks would lie among"):
            tagmask.predict(run, images, output=tmp_path)
    assert contents(tmp_path) == before


def test_own_masks_are_made_anew_and_are_no_photographs(run: Path, data: Path) -> None:
    images = len(list((data / "images").iterdir()))
    for _ in range(2):
        assert tagmask.predict(run, data / "images", output=data / "images" / "masks").images == images


def test_only_listed_masks_are_made_anew(run: Path, data: Path, tmp_path: Path) -> None:
    """Masks of other photographs, written beside true ones, give no right to the true ones."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(next((data / "images").iterdir()), other / "elsewhere.png")
    tagmask.predict(run, other, output=data / "masks")
    before = contents(data)
    with pytest.raises(TagmaskError, match="is there already, not written by `label` or `predict`"):
        tagmask.predict(run, data / "images", output=data / "masks")
    assert contents(data) == before


def test_masks_of_another_class_list_are_not_mixed_in(run: Path, cooccur: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "masks", tmp_path / "cams"):
        folder.mkdir()
        (folder / "classes.txt").write_text("cow\nbig dog\n")
    (tmp_path / "masks" / "confidence.csv").write_text("image,confidence,classes\na,0.5,cow\n")
    with pytest.raises(TagmaskError, match=r"masks/classes\.txt: lists other classes"):
        tagmask.predict(run, cooccur / "images", output=tmp_path / "masks")
    with pytest.raises(TagmaskError, match=r"cams/classes\.txt: lists other classes"):
        tagmask.label(run, cooccur, output=tmp_path / "new", source="cam", save_cams=tmp_path / "cams")


def test_refine_does_not_fill_up_a_folder_of_true_masks(run: Path, data: Path, tmp_path: Path) -> None:
    tagmask.label(run, data, output=tmp_path / "m", source="cam", save_cams=tmp_path / "cams")
    sorted((data / "masks").iterdir())[0].unlink()
    before = contents(data)
    arguments = ["refine", str(tmp_path / "cams"), str(data), "-o", str(data / "masks"), "--with", "none"]
    result = CliRunner().invoke(app, arguments)
    assert "is there already, not written by `refine`" in str(result.exception)
    assert contents(data) == before


def test_scores_and_reports_replace_nothing_else(run: Path, data: Path, tmp_path: Path) -> None:
    before = contents(data)
    for verb, what in (("evaluate", "holds no scores"), ("report", "is no report")):
        result = CliRunner().invoke(app, [verb, str(run), str(data), "-o", str(data / "tags.csv")])
        assert what in str(result.exception)
    assert contents(data) == before
    for _ in range(2):
        result = CliRunner().invoke(app, ["evaluate", str(run), str(data), "-o", str(tmp_path / "scores.json")])
        assert result.exit_code == 0, result.output
    tagmask.report(run, data, output=tmp_path / "report.html", shown=1)
    tagmask.report(run, data, output=tmp_path / "report.html", shown=1)


@pytest.mark.parametrize(
    ("verb", "name", "content"),
    [
        ("evaluate", "settings.json", '{"server": {"protocol": "http"}}'),
        ("evaluate", "notes.json", '{"protocol": "seco", "mine": 1}'),
        ("evaluate", "deep.json", "[" * 100_000),
        ("report", "mine.html", "<html><title>My tagmask report</title><p>mine</html>"),
    ],
)
def test_what_looks_like_scores_or_a_report_is_kept(
    verb: str, name: str, content: str, run: Path, cooccur: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    result = CliRunner().invoke(app, [verb, str(run), str(cooccur), "-o", str(tmp_path / name)])
    assert isinstance(result.exception, TagmaskError)
    assert "is there already" in str(result.exception)
    assert (tmp_path / name).read_text() == content


def test_scores_with_a_note_of_ones_own_are_kept(run: Path, cooccur: Path, tmp_path: Path) -> None:
    file, verb = tmp_path / "scores.json", ["evaluate", str(run), str(cooccur), "--source", "cam", "-o"]
    assert CliRunner().invoke(app, [*verb, str(file)]).exit_code == 0
    assert CliRunner().invoke(app, [*verb, str(file)]).exit_code == 0
    noted = json.dumps({**json.loads(file.read_text()), "note": "mine"})
    file.write_text(noted)
    assert isinstance(CliRunner().invoke(app, [*verb, str(file)]).exception, TagmaskError)
    assert file.read_text() == noted


def test_masks_of_other_ids_are_not_scored(run: Path, data: Path) -> None:
    (data / "masks" / "classes.txt").write_text("train\nboat\ncow\n")
    with pytest.raises(TagmaskError, match=r"the label ids there stand for train, boat, cow, those of the data for"):
        tagmask.evaluate(data / "masks", data)


def test_images_without_ground_truth_are_left_out_and_counted(run: Path, data: Path) -> None:
    split = ["test"]
    names = [record.name for record in open_data(data, tiny_recipe("cam").data).split(split).records]
    (data / "masks" / f"{names[0]}.png").unlink()
    result, _ = tagmask.evaluate(run, data, split=split)
    assert result.images == len(names) - 1
    assert result.left_out == (f"image {names[0]!r}: no ground-truth mask",)


@pytest.mark.parametrize("verb", ["evaluate", "label"])
def test_a_source_that_there_is_not_is_refused(verb: str, run: Path, cooccur: Path, tmp_path: Path) -> None:
    more = {"output": tmp_path / "masks"} if verb == "label" else {}
    with pytest.raises(TagmaskError, match="source: 'cams' is neither of decoder, cam"):
        getattr(tagmask, verb)(run, cooccur, source="cams", **more)


def test_what_belongs_to_the_trained_run_is_not_set_afterwards(run: Path, cooccur: Path, tmp_path: Path) -> None:
    for key in ("training.steps=5", "data.classes=[cow]", "method.pooling=max"):
        with pytest.raises(TagmaskError, match=f"--set {key.split('=')[0]}: belongs to the trained run"):
            tagmask.label(run, cooccur, output=tmp_path / "masks", overrides=[key])
    assert not (tmp_path / "masks").exists()


def test_photographs_are_found_behind_links_and_true_masks_are_none(run: Path, data: Path, tmp_path: Path) -> None:
    images = len(list((data / "images").iterdir()))
    assert tagmask.predict(run, data, output=tmp_path / "all").images == images
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "folder").symlink_to(data / "images")
    assert tagmask.predict(run, tmp_path / "linked", output=tmp_path / "of-links").images == images


def test_every_photograph_has_a_mask_of_its_own(run: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "a.webp", "a.png.png"):
        Image.open(next((data / "images").iterdir())).save(folder / name)
    written = tagmask.predict(run, folder, output=tmp_path / "masks")
    assert written.images == len(list((tmp_path / "masks").glob("*.png"))) == 3


def test_a_file_in_the_way_is_named(run: Path, cooccur: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("mine")
    with pytest.raises(TagmaskError, match="letter is a file, not a folder"):
        tagmask.predict(run, cooccur / "images", output=tmp_path / "letter" / "masks")
    with pytest.raises(TagmaskError, match=r"^\S+letter is a file, not a folder; choose another"):
        tagmask.predict(run, cooccur / "images", output=tmp_path / "letter")
    with pytest.raises(TagmaskError, match="letter is a file, not a folder"):
        tagmask.train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path / "letter" / "run")
    assert (tmp_path / "letter").read_text() == "mine"


def test_a_decoder_that_will_never_learn_is_spoken_of_at_the_start(
    cooccur: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=100")
    tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "method.decoder_from is 100 and training ends after 2 steps: the run will have CAMs alone" in said
    assert "decoder_miou" not in said


def test_a_decoder_that_never_learnt_is_not_used(cooccur: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=2")
    run = tagmask.train(cooccur, recipe=recipe, output=tmp_path / "run")
    with pytest.raises(TagmaskError, match=r"decoder never learnt: method\.decoder_from is 2, .* after 2 steps"):
        tagmask.predict(run, cooccur / "images", output=tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    assert tagmask.label(run, cooccur, output=tmp_path / "masks", source="cam").images == 24


def test_held_out_images_that_do_not_open_are_left_out_and_said(data: Path, tmp_path: Path) -> None:
    rows = (data / "tags.csv").read_text().splitlines()[1:]
    splits = {split: [row.split(",")[0] for row in rows if row.endswith(split)] for split in ("val", "test")}
    held_out = [splits["val"][0], splits["test"][0], *splits["val"][1:], *splits["test"][1:]]
    broken = data / "images" / held_out[0]
    broken.write_bytes(broken.read_bytes()[:60])
    Image.new("L", (3, 3)).save(data / "masks" / f"{Path(held_out[1]).stem}.png")
    recipe = tiny_recipe("cam", "training.steps=3", "training.evaluate_every=1", "method.decoder_from=0")
    run = tagmask.train(data, recipe=recipe, output=tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval/decoder_miou" in line] == [1, 2, 3]
    for source in ("decoder", "cam"):
        result, _ = tagmask.evaluate(run, data, split=["val", "test"], source=source)
        assert result.images == len(held_out) - 2
        assert sorted(Path(held_out[0]).stem in reason for reason in result.left_out) == [False, True]
    answer = CliRunner().invoke(app, ["evaluate", str(run), str(data), "--split", "val", "--split", "test"])
    assert answer.output.count("skipped:") == 2


def test_results_say_where_the_tags_come_from(run: Path, cooccur: Path) -> None:
    result, _ = tagmask.evaluate(run, cooccur, split=["test"])
    assert result.conditions.tag_source == "tags given in tags.csv"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "--split", "val"], "--stages scores what each stage left; leave"),
        (["--recipe", "seco/default"], "a run has its own"),
        (["-o", "."], "a folder; name a JSON file"),
    ],
)
def test_options_that_would_be_ignored_are_refused(run: Path, options: list[str], message: str) -> None:
    refused = CliRunner().invoke(app, ["evaluate", str(run), *options])
    assert message in str(refused.exception)


def test_masks_have_no_source(cooccur: Path) -> None:
    with pytest.raises(TagmaskError, match="a folder of masks, which have no source"):
        tagmask.evaluate(cooccur / "masks", cooccur, source="cam")


def test_a_run_without_class_names_is_named(run: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    (broken / "classes.txt").unlink()
    with pytest.raises(TagmaskError, match=r"classes\.txt is missing"):
        tagmask.load(broken)


def test_other_training_images_are_another_run(cooccur: Path, data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("cam", "training.steps=1", "method.decoder_from=0")
    run = tagmask.train(data, recipe=recipe, output=tmp_path / "run")
    tagmask.train(data, recipe=recipe, output=run)
    lines = (data / "tags.csv").read_text().splitlines()
    (data / "tags.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    with pytest.raises(TagmaskError, match="its training images or their tags were others"):
        tagmask.train(data, recipe=recipe, output=run)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": {"name": "cam", "pseudo_mask": {"low": 0.8, "high": 0.5}}}, "low 0.8 is above high 0.5"),
        ({"views": {"scale": [2, 1]}}, "runs backwards"),
        ({"views": {"resize_long": [512, 256]}}, "runs backwards"),
        ({"views": {"weak_area": [-1, 5]}}, "weak_area"),
        ({"views": {"jitter": [0.4, 0.4, 0.2, 0.7]}}, "jitter"),
    ],
)
def test_values_out_of_range_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(TagmaskError, match=message):
        tagmask.load_recipe({"method": {"name": "cam"}, **overrides})
