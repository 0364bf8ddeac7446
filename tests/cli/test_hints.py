"""What the command line says where arguments are of the wrong kind, in the wrong order or given twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tagmask import cli
from tagmask.api.write_masks import Written
from tagmask.cli.apps import tell


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command line, which has to end with status 2 and one line; returns that line."""
    monkeypatch.setattr(sys, "argv", ["tagmask", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("tagmask: ")


@pytest.mark.parametrize("verb", [("train", "photos"), ("data", "check", "photos"), ("evaluate", "run")])
def test_a_key_without_an_equals_sign_is_told_how_to_write_it(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(monkeypatch, capsys, *verb, "--set", "data.separator", ";")
    assert line == (
        "--set data.separator: expected KEY=VALUE, such as --set optimizer.lr=1e-4: an equals sign and no blanks"
    )


@pytest.mark.parametrize("verb", ["label", "predict", "evaluate", "report", "suggest", "refine"])
def test_swapped_paths_and_a_path_given_twice_are_told(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, photos = tmp_path / "run", tmp_path / "my photos"
    run.mkdir()
    photos.mkdir()
    (run / "run.json").write_text("{}")
    line = said(monkeypatch, capsys, verb, photos, run)
    assert line == (f"{run}: was made by tagmask and comes first, {photos} second: tagmask {verb} {run} '{photos}'")
    told = f"is given twice to `tagmask {verb}`; give what tagmask made first, then the data"
    assert said(monkeypatch, capsys, verb, run, run / "../run") == f"{run}/../run: {told}"
    (photos / "run.json").write_text("{}")
    assert said(monkeypatch, capsys, verb, photos, run) == (
        f"{run}: is a run folder, not data; give the data that it is to be used on"
    )


def test_masks_after_the_data_and_a_run_to_train_on_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("masks", "photos", "run"):
        Path(name).mkdir()
    Path("masks/written.jsonl").touch()
    Path("run/run.json").touch()
    assert said(monkeypatch, capsys, "evaluate", "photos", "masks") == (
        "masks: was made by tagmask and comes first, photos second: tagmask evaluate masks photos"
    )
    assert said(monkeypatch, capsys, "export", "masks", "photos", "-f", "coco", "-i", "masks").endswith(
        "photos second: tagmask export masks masks --images photos"
    )
    assert said(monkeypatch, capsys, "train", "run") == (
        "run: is a run folder, not data; to go on with it: tagmask train -o run"
    )
    assert "is given twice to `tagmask export masks`" in said(
        monkeypatch, capsys, "export", "masks", "masks", "-f", "coco", "-i", "masks"
    )


def test_the_page_that_is_proposed_reads_the_data_as_the_labelling_did(capsys: pytest.CaptureFixture[str]) -> None:
    written = Written(Path("masks"), 2, (), lacking=("a",))
    tell(written, run=Path("run"), images="photos", settings=["data.separator=;", "inference.refine=crf"])
    assert (
        "(tagmask serve run --images photos --masks masks --review reviews/first.csv --set 'data.separator=;')"
        in capsys.readouterr().out
    )


def test_a_page_of_tags_has_no_recipe_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(monkeypatch, capsys, "serve", "--tags", "tags.csv", "--set", "data.separator=;")
    assert line == "--set data.separator=;: is of the recipe of a run, and --tags goes without; leave it out"
