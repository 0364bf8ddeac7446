"""The hub, with its client's functions replaced at the boundary: nothing leaves the machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask.api import hub
from tagmask.cli import app
from tagmask.engine.checkpoint import save_model
from tagmask.engine.run import create_run
from tagmask.errors import TagmaskError
from tagmask.methods.registry import build_method
from tagmask.recipes.load import Recipe, load_recipe
from tagmask.recipes.sections import Section, method_names, section_of
from tests.conftest import tiny_recipe
from tests.evaluation.conftest import staged_run

CLASSES = ("cat", "a|b *c*")


class Hub:
    """Repositories as folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.created: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.created.append({"repo_id": repo_id, **options})
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        shutil.copytree(folder_path, self.root / repo_id)

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.asked.append(options)
        if not (self.root / repo_id).is_dir():
            raise FileNotFoundError(f"404: {repo_id}\nmore")
        return str(self.root / repo_id)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    monkeypatch.setattr("tagmask.engine.fetch.hub_answers", lambda *_: True)
    monkeypatch.setattr("tagmask.api.hub.hub_answers", lambda *_: True)
    return fake


@pytest.fixture
def run(tmp_path: Path) -> Path:
    recipe = tiny_recipe("cam", f"data.path={tmp_path}/secret", f"data.masks={tmp_path}/secret/masks")
    opened = create_run(tmp_path / "run", recipe, CLASSES)
    torch.manual_seed(0)
    save_model(opened.folder, build_method(recipe, len(CLASSES)).network)
    (opened.folder / "training_state.pt").write_bytes(b"stays here")
    (opened.folder / "metrics.jsonl").write_text('{"step": 6, "eval/decoder_miou": 41.25}\n')
    return opened.folder


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_pushed_run_predicts_the_same_when_loaded(stored: Hub, run: Path, tmp_path: Path) -> None:
    assert tagmask.push(run, "ada/cats", token="t") == "https://hub/ada/cats"
    assert stored.created == [{"repo_id": "ada/cats", "private": True, "exist_ok": True, "token": "t"}]
    there = {path.name for path in (stored.root / "ada/cats").iterdir()}
    assert there == {"recipe.yaml", "classes.txt", "run.json", "model.safetensors", "README.md"}
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    near, far = tagmask.load(run, device="cpu"), tagmask.load("hf-hub:ada/cats@v1", device="cpu")
    assert far.classes == CLASSES
    assert stored.asked[-1]["revision"] == "v1"
    assert "training_state.pt" not in stored.asked[-1]["allow_patterns"]
    np.testing.assert_array_equal(near.predict(picture), far.predict(picture))


def test_pushed_run_is_evaluated_and_reported_on(stored: Hub, cooccur: Path, tmp_path: Path) -> None:
    run = tagmask.train(
        cooccur, recipe=tiny_recipe("cam", "training.steps=1", "method.decoder_from=0"), output=tmp_path / "trained"
    )
    tagmask.push(run, "ada/shapes")
    near, _ = tagmask.evaluate(run, cooccur, split=["test"])
    far, _ = tagmask.evaluate("hf-hub:ada/shapes", cooccur, split=["test"])
    assert near.scores.miou == far.scores.miou
    with pytest.raises(TagmaskError, match="no data: give a folder"):
        tagmask.evaluate("hf-hub:ada/shapes")
    with pytest.raises(TagmaskError, match=r"hf-hub:ada/shapes: .* --output"):
        tagmask.report("hf-hub:ada/shapes", cooccur)
    before = sorted(path.name for path in (stored.root / "ada/shapes").iterdir())
    assert tagmask.report("hf-hub:ada/shapes", cooccur, output=tmp_path / "far.html", split=["test"]).is_file()
    assert sorted(path.name for path in (stored.root / "ada/shapes").iterdir()) == before


def test_of_several_stages_only_what_predicts_is_pushed(stored: Hub, cooccur: Path, tmp_path: Path) -> None:
    run = staged_run(tmp_path / "staged", cooccur, segmenter=True)
    (run / "affinity").mkdir()
    shutil.copyfile(run / "round1/model.safetensors", run / "affinity/model.safetensors")
    tagmask.push(run, "ada/staged")
    there = stored.root / "ada/staged"
    assert {path.relative_to(there).as_posix() for path in there.rglob("*.safetensors")} == {
        "round1/model.safetensors",
        "segmenter/model.safetensors",
    }
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    near, far = tagmask.load(run, device="cpu"), tagmask.load("hf-hub:ada/staged", device="cpu")
    np.testing.assert_array_equal(near.predict(picture), far.predict(picture))
    (run / "segmenter/model.safetensors").unlink()
    with pytest.raises(TagmaskError, match=r"segmenter/model\.safetensors: missing"):
        tagmask.push(run, "ada/staged")


def test_nothing_of_this_machine_is_pushed(stored: Hub, run: Path, tmp_path: Path) -> None:
    tagmask.push(run, "ada/cats")
    for file in (stored.root / "ada/cats").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_card_holds_classes_recipe_scores_and_licences(stored: Hub, run: Path) -> None:
    tagmask.push(run, "ada/cats", license="cc-by-4.0", private=False)
    assert stored.created[-1]["private"] is False
    card = (stored.root / "ada/cats/README.md").read_text(encoding="utf-8")
    head = front_matter(card)
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "tagmask"
    assert head["pipeline_tag"] == "image-segmentation"
    assert {"cam", "weakly-supervised-semantic-segmentation"} <= set(head["tags"])
    assert "| 0 | background |\n| 1 | cat |\n| 2 | a\\|b \\*c\\* |" in card
    assert "mIoU 41.25 % at step 6: protocol seco; " in card
    assert "`cam` on images with tags, without any mask." in card
    assert "- this model: cc-by-4.0" in card
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["method"]["name"] == "cam"
    assert "zhou2016cam" in card


def test_card_says_how_training_evaluates_and_not_how_the_recipe_predicts(run: Path) -> None:
    further = ("inference.scales=[1.0, 1.5]", "inference.flip=true", "inference.refine=crf", "data.evaluate=[val]")
    recipe = tiny_recipe("cam", *further, "data.averaged=[cat]")
    card = hub.model_card(hub.Run(run, recipe, CLASSES), "ada/cats")
    conditions = "split val; labels from decoder; no tags given; scales 1.0; no flip; refinement none"
    assert f"protocol seco; {conditions}; means over cat and the background." in card


@pytest.mark.parametrize("masks", ["true", "/home/ada/masks"])
def test_card_of_a_run_that_learnt_from_drawn_masks_says_so(masks: str) -> None:
    recipe = load_recipe("cam/default", [f"data.use_masks={masks}"])
    card = hub.model_card(hub.Run(Path("nowhere"), recipe, CLASSES), "ada/cats")
    assert "`cam` on images with tags, and on masks that people drew or mended of some of them." in card
    assert "without any mask" not in card
    assert "/home/ada" not in card


def test_card_prefers_recorded_scores(stored: Hub, run: Path) -> None:
    conditions = {"split": "val", "source": "decoder", "tags_given": False, "scales": [1.0, 1.25]}
    scores = {"protocol": "eps", "conditions": conditions, "images": 9, "miou": 0.375, "mean_confusion_ratio": 0.5}
    (run / "scores.json").write_text(json.dumps(scores))
    tagmask.push(run, "ada/cats")
    card = (stored.root / "ada/cats/README.md").read_text(encoding="utf-8")
    assert (
        "| decoder | 37.50 | 0.50 | 9 | eps; split val; labels from decoder; no tags given; scales 1.0, 1.25;" in card
    )
    assert "license" not in front_matter(card)


def test_card_names_the_weights_it_started_from() -> None:
    values = {"method": "seco", "backbone": {"weights": "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"}}
    recipe = load_recipe(values)
    card = hub.model_card(hub.Run(Path("nowhere"), recipe, CLASSES), "ada/cats")
    assert front_matter(card)["base_model"] == ["timm/vit_base_patch16_224.augreg_in21k_ft_in1k"]
    assert "`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`, licence Apache-2.0\n" in card
    assert "yang2024seco" in card


def test_card_says_where_weights_have_a_licence_that_the_registry_does_not_know() -> None:
    recipe = load_recipe({"method": "seco", "backbone": {"weights": "timm/vit_small_patch14_dinov2.lvd142m"}})
    card = hub.model_card(hub.Run(Path("nowhere"), recipe, CLASSES), "ada/cats")
    assert "licence apache-2.0 as timm names it" in card
    recipe = load_recipe({"method": "seco", "backbone": {"weights": "hf-hub:ada/no_such_network"}})
    assert "licence: see there" in hub.model_card(hub.Run(Path("nowhere"), recipe, CLASSES), "ada/cats")


def test_paths_leave_every_section_and_weights_are_named_once() -> None:
    values = {
        "method": "rca",
        "data": {"image_folder": "/home/ada/images"},
        "backbone": {"name": "resnet38d", "weights": "/home/ada/resnet38.params"},
        "refine": {"name": "fusion", "saliency": "/home/ada/saliency"},
        "segmenter": {"backbone": {"name": "resnet101", "weights": "timm/resnet101.tv_in1k"}},
    }
    recipe = load_recipe(values)
    assert "/home/ada" in recipe.dump()
    assert "/home/ada" not in hub.without_paths(recipe).dump()
    assert hub.started_from(recipe) == ["/home/ada/resnet38.params", "timm/resnet101.tv_in1k"]
    assert hub.started_from(hub.without_paths(recipe)) == ["timm/resnet101.tv_in1k"]


def path_keys(section: type[Section], *above: str) -> Iterator[tuple[str, ...]]:
    """Find the keys of a section and its parts that may hold a path."""
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if kind is Path:
                yield (*above, name)
            elif isinstance(kind, type) and issubclass(kind, Section):
                yield from path_keys(kind, *above, name)


def test_a_recipe_with_any_path_can_be_read_again_without_it() -> None:
    methods = [section for name in method_names() if (section := section_of(name))]
    keys = [*path_keys(Recipe), *(key for section in methods for key in path_keys(section, "method"))]
    assert {("data", "path"), ("data", "use_masks"), ("data", "review"), ("refine", "saliency")} <= set(keys)
    for key in keys:
        recipe = load_recipe({"method": "cam"}, [f"{'.'.join(key)}=/home/ada/folder"])
        assert "/home/ada" in recipe.dump()
        cleaned = hub.without_paths(recipe)
        assert "/home/ada" not in cleaned.dump()
        assert load_recipe(yaml.safe_load(cleaned.dump())) == cleaned, key


def test_local_weights_leave_the_recipe_but_frozen_norms_stay() -> None:
    recipe = load_recipe({"method": "cam", "backbone": {"weights": "/home/ada/weights.pth"}})
    cleaned = hub.without_paths(recipe)
    assert cleaned.backbone.weights is None
    assert cleaned.backbone.freeze_norm is True
    assert hub.without_paths(load_recipe({"method": "cam"})).backbone.freeze_norm is None


@pytest.mark.parametrize("name", ["cats", "ada/cats/more", "../cats", "ada/", "ada/c ats"])
def test_names_that_are_none(run: Path, name: str, stored: Hub) -> None:
    with pytest.raises(TagmaskError, match="expected OWNER/NAME"):
        tagmask.push(run, name)
    with pytest.raises(TagmaskError, match="expected OWNER/NAME"):
        tagmask.load(f"hf-hub:{name}")


def test_a_hub_that_refuses_is_one_line(run: Path, stored: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TagmaskError, match=r"hf-hub:ada/dogs: the hub did not give the run \(FileNotFoundError: 404"):
        tagmask.load("hf-hub:ada/dogs")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("403")

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuse)
    with pytest.raises(TagmaskError, match=r"ada/cats: the hub did not take the run \(PermissionError: 403\)"):
        tagmask.push(run, "ada/cats")


def test_without_a_network_nothing_is_uploaded(run: Path, stored: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagmask.api.hub.hub_answers", lambda *_: False)
    with pytest.raises(TagmaskError, match=r"ada/cats: the hub cannot be reached, so nothing was uploaded"):
        tagmask.push(run, "ada/cats")
    assert not (stored.root / "ada").exists()


def test_a_repository_of_something_else(stored: Hub) -> None:
    (stored.root / "ada/other").mkdir(parents=True)
    with pytest.raises(TagmaskError, match=r"holds no recipe\.yaml, so it is no run"):
        tagmask.load("hf-hub:ada/other")


def test_unfinished_run_is_not_pushed(run: Path, stored: Hub) -> None:
    (run / "model.safetensors").unlink()
    with pytest.raises(TagmaskError, match=r"model\.safetensors: missing"):
        tagmask.push(run, "ada/cats")
    assert not stored.created


def test_command_line(run: Path, stored: Hub) -> None:
    done = CliRunner().invoke(app, ["push", str(run), "ada/cats", "--public"])
    assert done.exit_code == 0, done.output
    assert "pushed: https://hub/ada/cats" in done.output
