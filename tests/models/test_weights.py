"""The registry of weights: complete, asked for mean and std, and telling where to get a file."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors.torch import save_file

from tagmask.errors import TagmaskError
from tagmask.methods.registry import without_weights
from tagmask.models import weights
from tagmask.models.backbone import Backbone
from tagmask.models.weight_files import check_file, read_state
from tagmask.models.weights import (
    CAFFE,
    HALVES,
    IMAGENET,
    WEIGHTS,
    backbone_sections,
    find_weights,
    missing_weights,
    with_normalisation,
)
from tagmask.recipes.load import BackboneConfig, load_recipe, recipe_names

ROOT = Path(__file__).parents[2]
STAGES = [[4], [4], [8], [8], [16]]


def test_every_file_that_recipes_name_is_known_with_its_network() -> None:
    named = [config for name in recipe_names() for _, config in backbone_sections(load_recipe(name)) if config.weights]
    assert len(named) >= 10
    for config in named:
        known = find_weights(config.weights)
        assert known is not None, config.weights
        assert known.network == config.name
        assert config.mean is None, "the registry says it"


def test_every_name_on_the_hub_that_pages_and_code_mention_is_known() -> None:
    files = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("src/tagmask/**/*.py"), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    names = set(re.findall(r"timm/\w+\.\w+", text))
    assert "timm/mobilenetv2_100.ra_in1k" in names
    assert [name for name in names if find_weights(name) is None] == []


def test_names_are_unique_and_hashes_are_those_of_the_names() -> None:
    assert len({known.name for known in WEIGHTS}) == len(WEIGHTS)
    for known in WEIGHTS:
        assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", known.sha256 or "0" * 8)
        if carried := re.search(r"-([0-9a-f]{8})\.pth$", known.name):
            assert known.sha256 == carried[1]


def test_hub_entries_are_normalised_as_timm_says_but_for_seco_s() -> None:
    for known in WEIGHTS:
        if not known.name.startswith("timm/"):
            continue
        config = timm.get_pretrained_cfg(known.name.removeprefix("timm/"))
        assert config is not None
        seco = known.name == "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
        assert known.normalisation == (IMAGENET if seco else (config.mean, config.std))


def test_hash_of_the_mobilenet_at_hand() -> None:
    path = Path(os.environ.get("TAGMASK_SHARED", ""), "weights", "mobilenetv2_100.coral_in1k.safetensors")
    if not path.is_file():
        pytest.skip("the weights are not at hand; set TAGMASK_SHARED")
    check_file(path)


@pytest.mark.parametrize("recipe", ["seco/voc", "seco/coco"])
def test_seco_of_the_paper_starts_from_its_weights_and_their_images(recipe: str) -> None:
    config = with_normalisation(load_recipe(recipe)).backbone
    assert config.weights == "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
    assert (config.mean, config.std) == IMAGENET


def test_mean_and_std_come_from_the_registry_unless_the_recipe_sets_them(tmp_path: Path) -> None:
    path = str(tmp_path / "mobilenetv2_100.coral_in1k.safetensors")
    filled = with_normalisation(BackboneConfig(weights=path, std=(0.1, 0.2, 0.3)))
    assert (filled.mean, filled.std) == (HALVES.mean, (0.1, 0.2, 0.3))
    assert with_normalisation(BackboneConfig(weights="hf-hub:timm/mobilenetv2_100.ra_in1k")).mean == IMAGENET.mean
    assert with_normalisation(BackboneConfig(weights="mine.pth")).mean is None
    recipe = load_recipe("sccam/voc", ["segmenter.backbone.weights=deeplabv1_resnet101-coco.pth"])
    segmenter = with_normalisation(recipe).segmenter
    assert segmenter is not None
    assert segmenter.backbone is not None
    assert segmenter.backbone.mean == CAFFE.mean


def test_a_trained_network_keeps_the_normalisation_of_its_start() -> None:
    config = BackboneConfig(name="vgg16_rca", options={"stages": STAGES}, weights="deeplabv1_resnet101-coco.pth")
    bare = without_weights(config)
    assert (bare.weights, bare.freeze_norm) == (None, True)
    torch.testing.assert_close(Backbone(bare).std.flatten(), torch.tensor(CAFFE.std))


def test_unknown_weights_without_mean_and_std_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "mine.safetensors")
    config = BackboneConfig(name="test_resnet", weights=str(tmp_path / "mine.safetensors"))
    with caplog.at_level(logging.WARNING, "tagmask"):
        Backbone(config.model_copy(update=IMAGENET._asdict()))
        assert not caplog.records
        Backbone(config)
    assert "mine.safetensors: not in the registry of weights" in caplog.text


def test_missing_files_are_listed_for_all_stages_with_address_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = missing_weights(load_recipe("rca/voc"))
    assert [(item.key, item.source) for item in found] == [
        ("backbone.weights", "vgg16-397923af.pth"),
        ("segmenter.backbone.weights", "resnet101-63fe2227.pth"),
    ]
    assert "download it from https://download.pytorch.org/models/vgg16-397923af.pth" in found[0].advice
    assert f"put it at {tmp_path}/resnet101-63fe2227.pth, or name its place by --set segmenter" in found[1].advice
    Path("vgg16-397923af.pth").touch()
    assert [item.source for item in missing_weights(load_recipe("rca/voc"))] == ["resnet101-63fe2227.pth"]
    own = load_recipe("sccam/voc", ["refine.affinity.backbone={name: resnet38, weights: mine.params}"])
    assert "refine.affinity.backbone.weights" in [item.key for item in missing_weights(own)]
    assert missing_weights(load_recipe("seco/voc")) == []  # on the hub


def test_loading_a_missing_file_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TagmaskError, match=r"weights vgg16-397923af\.pth: does not exist; VGG-16.*https://download"):
        Backbone(BackboneConfig(name="vgg16_rca", options={"stages": STAGES}, weights="vgg16-397923af.pth"))
    with pytest.raises(TagmaskError, match=r"ademxapp \(SC-CAM's page links a copy"):
        check_file(Path("ilsvrc-cls_rna-a1_cls1000_ep-0001.params"))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_file_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "known.pth"
    path.write_bytes(b"content")
    digits = hashlib.new(kind, b"content").hexdigest()
    entry = replace(WEIGHTS[0], name="known.pth", sha256=None, md5=None)
    monkeypatch.setattr(weights, "_BY_NAME", {"known.pth": replace(entry, **{kind: digits})})
    check_file(path)
    path.write_bytes(b"contenT")
    with pytest.raises(TagmaskError, match=rf"known\.pth: its {kind} begins with .* with {digits[:8]}; download it"):
        check_file(path)


def test_the_page_of_weights_is_in_step() -> None:
    page = _generator().page()
    assert (ROOT / "docs" / "weights.md").read_text(encoding="utf-8") == page, "run: python docs/generate_weights.py"
    assert all(known.name in page and known.address in page for known in WEIGHTS)


def _generator() -> ModuleType:
    path = ROOT / "docs" / "generate_weights.py"
    specification = importlib.util.spec_from_file_location("generate_weights", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_attempts_to_reach_the_hub_are_not_listed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import logging as hub_logging

    hub = hub_logging.get_logger("huggingface_hub.utils._http")

    def unreachable(*_: object, **__: object) -> str:
        hub.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr("tagmask.models.weight_files.hub_answers", lambda *_: True)
    before = hub_logging.get_verbosity()
    with pytest.raises(TagmaskError, match="the hub did not give"):
        read_state("hf-hub:ada/nothing")
    assert "Retrying" not in caplog.text + "".join(capfd.readouterr())
    assert hub_logging.get_verbosity() == before


def test_without_a_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    from tagmask.engine.fetch import fetch

    asked: list[str] = []

    def no_network(url: str, **options: object) -> None:
        asked.append(url)
        assert options["timeout"] == 5.0
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_network)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waits for another attempt"))
    with pytest.raises(TagmaskError, match=r"the hub cannot be reached, nor is model\.safetensors cached; download it"):
        read_state("hf-hub:ada/nothing")
    with pytest.raises(TagmaskError, match="hf-hub:ada/dogs: the hub cannot be reached, nor is the run cached"):
        fetch("hf-hub:ada/dogs")
    assert len(asked) == 2


def test_a_hub_that_refuses_a_file_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    from tagmask.models.weight_files import hub_answers

    class Refusal(HfHubHTTPError):
        def __init__(self) -> None:
            Exception.__init__(self, "404")

    def refuse(*_: object, **__: object) -> None:
        raise Refusal

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    assert hub_answers("ada/nothing", "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub_answers("ada/nothing", "model.safetensors")
