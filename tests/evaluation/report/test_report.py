from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask import api
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tagmask.evaluation.report.words import headline
from tests.evaluation.conftest import staged_run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a page holds, and that its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.folds: set[str] = set()  # ids of the sections that have something to open
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]
        if tag == "details":
            self.folds.add(self.ids[-1])
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    file = tagmask.report(untrained, output=tmp_path_factory.mktemp("reports") / "new" / "report.html", shown=2)
    return Page(file.read_text(encoding="utf-8"))


def test_page_stands_alone(page: Page) -> None:
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#") and len(link) < 14} <= set(page.ids)


def test_pictures_have_words_and_open(page: Page, untrained: Path) -> None:
    titles = {"photograph", "CAM", "mask", "ground", "uncertainty,"}
    assert {(picture["alt"] or "").split(" ")[0] for picture in page.images} == titles
    for picture in page.images[:5]:
        code = (picture["src"] or "").removeprefix("data:image/webp;base64,")
        assert max(Image.open(io.BytesIO(base64.b64decode(code))).size) == 288


def test_page_has_the_numbers_of_evaluate_with_their_conditions(page: Page, untrained: Path) -> None:
    result, _ = api.evaluate(untrained)
    text = " ".join(page.text)
    assert f"{100 * result.scores.miou:.1f}" in text
    assert "protocol seco" in text
    assert "split val; labels from decoder; no tags given; scales 1.0; with flip; refinement none" in text
    for name in api.load(untrained).classes:
        assert name in text
    assert "Zhou, Bolei" in text
    assert "decoder mIoU %" in text


def test_page_says_in_words_what_was_found_and_what_to_do_next(page: Page, untrained: Path) -> None:
    result, _ = api.evaluate(untrained)
    text = " ".join(page.text)
    assert headline(result)[0] in text
    assert "specks under 1 % of the image aside" in text
    assert f"tagmask predict {untrained} NEW_PHOTOS -o new_masks" in text
    assert f"tagmask serve {untrained} --images" in text
    assert {"Typical", "Best", "Least certain"} <= set(page.text)
    assert page.ids.index("next") < page.ids.index("pictures") < page.ids.index("classes")


def test_curves_costs_and_entries_to_cite_are_folded(page: Page) -> None:
    assert {"curves", "costs", "recipe", "cite"} <= page.folds
    assert not {"classes", "confusions", "tags", "next"} & page.folds


def test_recipe_is_whole(page: Page, untrained: Path) -> None:
    recipe = next(text for text in page.text if text.startswith("method:"))
    assert yaml.safe_load(recipe) == yaml.safe_load((untrained / "recipe.yaml").read_text())


def test_without_ground_truth_tags_and_certainty_stand_in(untrained: Path, cooccur: Path, tmp_path: Path) -> None:
    for image in sorted((cooccur / "images").iterdir())[:4]:
        (tmp_path / image.name).write_bytes(image.read_bytes())
    first, second, *_ = api.load(untrained).classes
    names = sorted(file.name for file in tmp_path.iterdir())
    rows = [f"{name},{first if place % 2 else second}" for place, name in enumerate(names)]
    (tmp_path / "tags.csv").write_text("image,tags\n" + "\n".join(rows) + "\n")
    file = tagmask.report(untrained, tmp_path / "tags.csv", output=tmp_path / "report.html", shown=1)
    page = Page(file.read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "No image has ground truth" in text
    assert "How well the outlines fit, nobody knows" in text
    assert {"Typical certainty", "Most certain", "Least certain"} <= set(page.text)
    assert "split all; labels from decoder" in text
    assert not {"classes", "confusions"} & set(page.ids)
    assert {"tags", "certainty", "pictures", "curves", "costs", "recipe", "cite"} <= set(page.ids)
    assert {(picture["alt"] or "").split(" ")[0] for picture in page.images} == {
        "photograph",
        "CAM",
        "mask",
        "uncertainty,",
    }


def test_names_are_text_not_markup(untrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in untrained.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    own = (run / "classes.txt").read_text().splitlines()
    (run / "classes.txt").write_text("\n".join(["<script>a&b", *own[1:]]) + "\n")
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (20, 30), "red").save(images / "a.png")
    (images / "tags.csv").write_text("image,tags\na.png,<script>a&b\n")
    page = Page(tagmask.report(run, images / "tags.csv").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert any("<script>a&b" in text for text in page.text)


def test_a_run_without_decoder_is_judged_by_its_cams(cooccur: Path, tmp_path: Path) -> None:
    run = staged_run(tmp_path / "run", cooccur, segmenter=False)
    accounts = {"round1": {"seconds": 3700.0, "bytes": 5000, "done": True}}
    (run / "stages.json").write_text(json.dumps(accounts))
    (run / "round1" / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n')
    page = Page(tagmask.report(run, shown=1).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "labels from cam; tags given; scales 1.0; with flip; refinement none; background score 0.5" in text
    assert not any((picture["alt"] or "").startswith("uncertainty") for picture in page.images)
    assert "1 h 1 min" in text
    assert "5.0 kB" in text
    assert "Stage round1" in text
    assert "Chang, Yu-Ting" in text


def test_command_line_writes_into_the_run_and_names_errors(untrained: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(untrained), "--shown", "1", "--split", "test"])
    assert done.exit_code == 0, done.output
    assert (untrained / "report.html").is_file()
    with pytest.raises(TagmaskError, match="a folder; give the name"):
        tagmask.report(untrained, output=tmp_path)
