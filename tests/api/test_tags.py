"""Tags proposed by a network of images and captions: a tiny one with random weights, in open_clip's form."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.api import open_data
from tagmask.api.tags import propose_tags
from tagmask.data.tag_table import read_proposed
from tagmask.errors import TagmaskError
from tagmask.models.zero_shot import NOTHING, TEMPLATES, ZeroShot, parts
from tagmask.recipes.load import load_recipe

open_clip = pytest.importorskip("open_clip", reason="the extra `tags` is not installed")

SIZE = 32
VISION = {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def network(folder: Path, **more: object) -> Path:
    """Save a tiny CLIP, or with `init_logit_bias` a network that learnt by sigmoids."""
    torch.manual_seed(5)
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, **more}
    made = open_clip.CLIP(**config)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True)
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": [SIZE, SIZE]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.jpg", "b.png", "inner/c.jpg"):
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_scores_are_those_of_the_captions_against_nothing(clip: Path) -> None:
    classes = ("cow", "boat")
    own = ZeroShot(str(clip), classes, torch.device("cpu"))
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    made, tokenize = own.network, open_clip.get_tokenizer("ViT-B-16")
    with torch.no_grad():

        def captions(texts: list[str]) -> torch.Tensor:
            return torch.nn.functional.normalize(made.encode_text(tokenize(texts)), dim=-1)

        of_classes = torch.stack([captions([each.format(name) for each in TEMPLATES]).mean(0) for name in classes])
        of_classes = of_classes / of_classes.norm(dim=1, keepdim=True)
        nothing = captions(list(NOTHING))
        best = np.zeros(2)
        for part in parts(image):
            small = np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
            pixels = (torch.from_numpy(small).permute(2, 0, 1)[None] - 0.5) / 0.25
            found = torch.nn.functional.normalize(made.encode_image(pixels), dim=-1)[0]
            for k, caption in enumerate(of_classes):
                scale = made.logit_scale.exp()
                yes, no = (scale * found @ caption).exp(), (scale * nothing @ found).exp().mean()
                best[k] = max(best[k], float(yes / (yes + no)))
    np.testing.assert_allclose(own.scores(image), best, atol=1e-5)


def test_networks_of_sigmoids_score_each_class_by_itself(tmp_path: Path) -> None:
    folder = network(tmp_path / "siglip", init_logit_bias=-3.0)
    alone = ZeroShot(str(folder), ["cow"], torch.device("cpu"))
    together = ZeroShot(str(folder), ["boat", "cow"], torch.device("cpu"))
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (50, 30, 3), dtype=np.uint8))
    np.testing.assert_allclose(together.scores(image)[1], alone.scores(image)[0], rtol=1e-5)
    alone.network.logit_bias.data.fill_(-50.0)
    assert alone.scores(image)[0] < 1e-3, "the bias counts"


def test_a_small_thing_in_a_corner_is_looked_at_by_itself() -> None:
    whole, *corners = parts(Image.new("RGB", (100, 50)))
    assert whole.size == (100, 50)
    assert [corner.size for corner in corners] == [(60, 30)] * 4
    marked = Image.new("RGB", (100, 50))
    marked.putpixel((99, 49), (255, 0, 0))
    assert [corner.getextrema()[0][1] for corner in parts(marked)] == [255, 0, 0, 0, 255]


def test_table_names_every_photograph_and_train_reads_it(
    clip: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        table = propose_tags(photos, "cow, boat", model=str(clip), least=0.0)
    assert table == photos / "tags.csv"
    assert "broken.jpg" in caplog.text
    rows = read_proposed(table)
    assert [row.image for row in rows] == ["a.jpg", "b.png", "inner/c.jpg"]
    assert all(row.tags == ("cow", "boat") and not row.confirmed for row in rows)
    assert all(list(row.scores.values()) == sorted(row.scores.values(), reverse=True) for row in rows)
    dataset = open_data(photos, load_recipe({"method": "cam"}).data)
    assert sorted(dataset.classes) == ["boat", "cow"]
    assert sorted(record.name for record in dataset.records) == ["a", "b", "inner/c"]


def test_photographs_of_a_data_set_are_those_in_its_folder_of_images(clip: Path, photos: Path) -> None:
    photos.rename(photos.parent / "images")
    (photos / "masks").mkdir(parents=True)
    (photos.parent / "images").rename(photos / "images")
    Image.new("L", (60, 40)).save(photos / "masks" / "a.png")
    (photos / "classes.txt").write_text("cow\n", encoding="utf-8")
    table = propose_tags(photos, "cow", model=str(clip), least=0.0)
    assert [row.image for row in read_proposed(table)] == ["a.jpg", "b.png", "inner/c.jpg"]
    dataset = open_data(photos, load_recipe({"method": "cam"}).data)
    assert sorted(record.name for record in dataset.records) == ["a", "b", "inner/c"]
    assert [record.mask is not None for record in dataset.records] == [True, False, False]


def test_only_scores_from_least_on_become_tags(clip: Path, photos: Path) -> None:
    rows = read_proposed(propose_tags(photos, ["cow", "boat"], model=str(clip), least=0.0))
    limit = sorted(score for row in rows for score in row.scores.values())[3] + 0.001
    again = read_proposed(propose_tags(photos, ["cow", "boat"], model=str(clip), least=limit, overwrite=True))
    assert 0 < sum(len(row.tags) for row in again) < 6
    for row in again:
        assert all((score + 0.006 >= limit) for name, score in row.scores.items() if name in row.tags)


def test_a_network_that_cannot_be_fetched_is_told_in_a_sentence(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TagmaskError) as caught:
        propose_tags(photos, "cow,sheep", model="hf-hub:nobody/nothing")
    assert str(caught.value) == (
        "hf-hub:nobody/nothing: the hub cannot be reached, nor is the network cached; download the repository "
        "elsewhere and give its folder with --model"
    )
    assert not (photos / "tags.csv").exists()


def test_wrong_arguments_are_named(clip: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TagmaskError, match="no such folder"):
        propose_tags(tmp_path / "nowhere", "cow", model=str(clip))
    with pytest.raises(TagmaskError, match="class 'cow' stands twice"):
        propose_tags(photos, "cow,cow", model=str(clip))
    with pytest.raises(TagmaskError, match="'a;b' holds ';'"):
        propose_tags(photos, "a;b", model=str(clip))
    with pytest.raises(TagmaskError, match="must be from 0 to 1"):
        propose_tags(photos, "cow", model=str(clip), least=1.5)
    with pytest.raises(TagmaskError, match="write it there"):
        propose_tags(photos, "cow", model=str(clip), output=tmp_path / "tags.csv")
    with pytest.raises(TagmaskError, match="cannot be had"):
        propose_tags(photos, "cow", model=str(tmp_path / "nothing"))
    (photos / "tags.csv").write_text("mine")
    with pytest.raises(TagmaskError, match="is there already"):
        propose_tags(photos, "cow", model=str(clip))
    assert (photos / "tags.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("image,tags\na.jpg,cow\n", "its columns are not"),
        ("image,tags,scores,confirmed\n", "has no rows"),
        ("image,tags,scores,confirmed\na.jpg,cow,cow many,\n", "row 2: not as"),
        ("image,tags,scores,confirmed\na.jpg,cow,cow 1.7,\n", "row 2: not as"),
        ("image,tags,scores,confirmed\na.jpg,cow,cow nan,\n", "row 2: not as"),
        ("image,tags,scores,confirmed\na.jpg,cow\n", "row 2: not as"),
        ("image,tags,scores,confirmed\na.jpg,cat,cow 0.70,\n", "row 2: 'cat' has no score"),
        ("image,tags,scores,confirmed\n../a.jpg,cow,cow 0.70,\n", "row 2: the image's name has a part"),
    ],
)
def test_tables_of_others_are_refused_by_row(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text(content, encoding="utf-8")
    with pytest.raises(TagmaskError, match=told):
        read_proposed(tmp_path / "tags.csv")


def test_names_that_spreadsheets_run_come_back(clip: Path, photos: Path) -> None:
    (photos / "a.jpg").rename(photos / "=1+1.jpg")
    table = propose_tags(photos, ["-cow"], model=str(clip), least=0.0)
    assert all(not cell.startswith(("=", "-")) for row in csv.reader(table.open(encoding="utf-8")) for cell in row)
    assert read_proposed(table)[0].image == "=1+1.jpg"
    assert read_proposed(table)[0].tags == ("-cow",)
