"""What tagmask did not write is replaced where somebody says so, and nothing else beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask.api.export import export_masks
from tagmask.api.refine import refine_cams
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("overwrite") / "run")


def edit(mask: Path) -> bytes:
    Image.new("L", Image.open(mask).size, 1).save(mask)
    return mask.read_bytes()


def test_masks_and_tables_of_somebody_else(run: Path, cooccur: Path, tmp_path: Path) -> None:
    out, photos = tmp_path / "masks", cooccur / "images"
    tagmask.predict(run, photos, output=out)
    whole = {path.name: path.read_bytes() for path in out.glob("*.png")}
    name = min(whole)
    edited = edit(out / name)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=f"{name}: was changed since it was written; .*--overwrite"):
        tagmask.predict(run, photos, output=out)
    assert (out / name).read_bytes() == edited
    (out / "confidence.csv").write_text("image,mine\n")
    with pytest.raises(TagmaskError, match=r"confidence\.csv: is there already.*--overwrite"):
        tagmask.predict(run, photos, output=out)
    tagmask.predict(run, photos, output=out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == whole
    assert (out / "notes.txt").read_text() == "mine"
    tagmask.predict(run, photos, output=out)  # they are tagmask's own again

    (out / "classes.txt").write_text("other\nthings\n")
    # The ids of other masks there would change their meaning.
    with pytest.raises(TagmaskError, match="lists other classes"):
        tagmask.predict(run, photos, output=out, overwrite=True)


def test_labels_of_somebody_else(run: Path, cooccur: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    tagmask.label(run, cooccur, output=out, split=["train"])
    whole = {path.name: path.read_bytes() for path in out.rglob("*.png")}
    mask = min(out.rglob("*.png"))
    edited = edit(mask)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=f"{mask.name}: was changed since it was written; .*--overwrite"):
        tagmask.label(run, cooccur, output=out, split=["train"])
    assert mask.read_bytes() == edited
    tagmask.label(run, cooccur, output=out, split=["train"], overwrite=True)
    assert {path.name: path.read_bytes() for path in out.rglob("*.png")} == whole
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("verb", ["evaluate", "report", "onnx"])
def test_one_file_of_somebody_else(verb: str, run: Path, cooccur: Path, tmp_path: Path) -> None:
    out = tmp_path / {"evaluate": "scores.json", "report": "page.html", "onnx": "model.onnx"}[verb]
    if verb == "onnx":
        pytest.importorskip("onnxscript", reason="needs the extra `onnx`")
        command = ["export", "onnx", str(run), "-o"]
    else:
        command = [verb, str(run), str(cooccur), "--split", "test", "-o"]

    def call(output: Path, *more: str) -> str:
        done = CliRunner().invoke(app, [*command, str(output), *more])
        assert bool(done.exit_code) == (done.exception is not None)
        return str(done.exception) if done.exit_code else ""

    out.write_text('{"mine": 1}')
    (tmp_path / "notes.txt").write_text("mine")
    said = call(out)
    assert f"{out}: is there already" in said
    assert "--overwrite" in said
    assert out.read_text() == '{"mine": 1}'
    assert call(out, "--overwrite") == ""
    assert len(out.read_bytes()) > 500
    assert (tmp_path / "notes.txt").read_text() == "mine"
    if verb != "onnx":  # it takes half a minute
        assert call(out) == ""  # it is tagmask's own now
    # A folder of that name is kept in any case.
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    assert f"{tmp_path / 'folder'}: a folder; " in call(tmp_path / "folder", "--overwrite")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"


def test_refined_masks_are_made_anew(run: Path, cooccur: Path, tmp_path: Path) -> None:
    tagmask.label(run, cooccur, output=tmp_path / "labels", source="cam", save_cams=tmp_path / "cams")
    out = tmp_path / "masks"
    refine_cams(tmp_path / "cams", cooccur, out, how="none")
    mask = min(out.rglob("*.png"))
    whole, edited = mask.read_bytes(), edit(mask)
    assert refine_cams(tmp_path / "cams", cooccur, out, how="none").kept == 24
    assert mask.read_bytes() == edited
    assert refine_cams(tmp_path / "cams", cooccur, out, how="none", overwrite=True).kept == 0
    assert mask.read_bytes() == whole


def test_a_touched_export_and_no_other_folder(run: Path, cooccur: Path, tmp_path: Path) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    tagmask.predict(run, cooccur / "images", output=masks)
    export_masks(masks, cooccur / "images", out, format="voc")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=r"holds mine\.txt, .*--overwrite"):
        export_masks(masks, cooccur / "images", out, format="voc")
    export_masks(masks, cooccur / "images", out, format="coco", overwrite=True)
    assert not (out / "mine.txt").exists()
    assert json.loads((out / "tagmask-export.json").read_text())["format"] == "coco"
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(TagmaskError, match="not empty and no earlier export"):
        export_masks(masks, cooccur / "images", other, format="coco", overwrite=True)


def test_an_output_called_as_an_image_is_refused_with_the_mend(run: Path, photo: Path, tmp_path: Path) -> None:
    for verb, source in ((tagmask.predict, photo), (tagmask.label, photo.parents[1])):
        with pytest.raises(TagmaskError) as raised:
            verb(run, source, output=tmp_path / "z.png")
        assert str(raised.value) == (
            f"{tmp_path}/z.png: is called as an image, and the output is a folder; -o {tmp_path}/z writes "
            f"{tmp_path}/z/{photo.stem}.png"
        )
        assert not any(tmp_path.iterdir())
    (tmp_path / "z.png").mkdir()  # whoever made such a folder wants it
    assert tagmask.predict(run, photo, output=tmp_path / "z.png").images == 1
