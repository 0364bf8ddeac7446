"""`tagmask reproduce` on small trees of the official layouts, to their ends, killed and resumed once."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tagmask.api.reproduce import EXPERIMENTS, make_plan, measure, run_plan
from tagmask.api.reproduce.glas import SIDE, places
from tagmask.cli import app
from tagmask.data.masks import PngMask
from tagmask.data.readers.voc import CLASSES
from tagmask.errors import TagmaskError
from tagmask.models.published.resnet38 import LATER_ROUNDS
from tests.api.test_checkpoints import resnet38_state, seco_state
from tests.data.trees import shared_data, write_mask

NAMES = {"train": ["a1", "a2"], "val": ["v1", "v2"], "test": ["t2", "t1"]}
AUGMENTED = ["a1", "a2", "b1", "b2", "b3", "b4"]
VIT = "{name: vit_tiny_patch16_224, options: {img_size: 32, patch_size: 8, embed_dim: 12, depth: 3, num_heads: 2}}"
SHORT = "{steps: 4, batch: 2, workers: 0, log_every: 1, checkpoint_every: 2, precision: 32-true}"
COMMON = (
    f"backbone={VIT}",
    f"training={SHORT}",
    "views={crop: 32, squash: true}",
    "inference.size=32",
    "inference.refine=none",
)
SEGMENTER = (f"segmenter.backbone={VIT}", f"segmenter.training={SHORT}", "segmenter.views={crop: 32, squash: true}")
SECO = tuple(
    f"method.{text}"
    for text in (
        *("scales=[1.0]", "patches=2", "patch_size=16", "projection_hidden=8", "queue=8", "prototypes_from=0"),
        *("ptc_from=0", "contrast_from=1", "decoder_from=2", "region_last_from=0", "pseudo_mask_last_from=0"),
    )
)
SCCAM = ("method.subclasses=2", "method.first_steps=2", "method.rounds=1", "method.scales=[1.0]")
AFFINITY = (
    f"refine.affinity.backbone={VIT}",
    f"refine.affinity.training={SHORT}",
    "refine.affinity.views={crop: 32, squash: true}",
    "refine.affinity.logt=2",
)
RCA = ("method.memory=8", "method.prototypes=2", "method.hidden=4", "method.contrast_from=0", "method.memory_above=0")
OPTIONS = {
    "seco/voc": (*COMMON, *SECO),
    "seco/coco": (*COMMON, *SECO),
    "sccam/voc": (*COMMON, *SCCAM, *AFFINITY, *SEGMENTER),
    "rca/voc": (*COMMON, "views.flip=0", *RCA, "method.gather_from=0", *SEGMENTER),
    "sccam/glas": (*COMMON, *SCCAM, *(f"segmenter.{text}" for text in COMMON)),
}


def photograph(path: Path, seed: int, size: tuple[int, int] = (40, 32)) -> np.ndarray:
    """Write a photograph with a bright square in it; return where it is, (H, W) bool."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    inside = np.zeros(pixels.shape[:2], bool)
    inside[8 : size[1] // 2 + 8, 10 : size[0] // 2 + 10] = True
    pixels[inside] += 120
    Image.fromarray(pixels).save(path)
    return inside


def voc_tree(root: Path) -> Path:
    """A VOC 2012 tree of six images to learn from, two of val, two of test without annotations."""
    for seed, name in enumerate([*AUGMENTED, *NAMES["val"], *NAMES["test"]]):
        inside = photograph(root / "JPEGImages" / f"{name}.jpg", seed)
        if name in NAMES["test"]:
            continue
        label = (8, 15)[seed % 2]
        write_mask(root / "SegmentationClassAug" / f"{name}.png", np.where(inside, label, 0))
        (root / "Annotations").mkdir(exist_ok=True)
        text = f"<annotation><object><name>{CLASSES[label - 1]}</name></object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in NAMES.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def coco_tree(root: Path) -> Path:
    """A COCO 2014 tree of two classes, with the authors' label maps, which say otherwise than the outlines."""
    (root / "annotations").mkdir(parents=True)
    for split, numbers in (("train", range(1, 5)), ("val", (42, 43))):
        images, annotations = [], []
        for number in numbers:
            name = f"COCO_{split}2014_{number:012d}.jpg"
            inside = photograph(root / f"{split}2014" / name, number)
            label = 1 + number % 2
            write_mask(root / "SegmentationClass" / split / f"{number:012d}.png", np.where(inside, label, 0))
            images.append({"id": number, "file_name": name, "height": 32, "width": 40})
            outline = [[0, 0, 3, 0, 3, 3, 0, 3]]
            annotations.append({"id": number, "image_id": number, "category_id": label, "segmentation": outline})
        categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))
    return root


def glas_tree(root: Path) -> Path:
    """GlaS with two images to learn from and one of each part of the test; glands have numbers of their own."""
    for seed, name in enumerate(("train_1", "train_2", "testA_1", "testB_1")):
        inside = photograph(root / f"{name}.bmp", seed, (180, 150))
        glands = inside * (1 + np.arange(inside.shape[1]) // 60)
        Image.fromarray(glands.astype(np.uint8)).save(root / f"{name}_anno.bmp")
    return root


TREES = {"voc": voc_tree, "coco": coco_tree, "glas": glas_tree}


def arguments(name: str, data: Path, output: Path, *more: str) -> list[str]:
    sets = [part for text in OPTIONS[name] for part in ("--set", text)]
    return ["reproduce", name, "--data", str(data), "-o", str(output), *sets, *more]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_to_its_end_killed_and_resumed_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TREES[EXPERIMENTS[name].tree](tmp_path / "data")
    output = tmp_path / "out"
    plan = make_plan(name, data, output=output, overrides=OPTIONS[name])
    measurable = [row.key for row in plan.experiment.rows if row.measure is not None]

    # Killed once while it trains, and once while it measures the last of its rows.
    real_measure = measure._measured
    with monkeypatch.context() as patch:
        patch.setattr("tagmask.engine.loop.save_model", _killed)
        with pytest.raises(KeyboardInterrupt):
            list(run_plan(plan))
    assert list(output.rglob("*.pt")), "a checkpoint to go on from"
    assert not (output / "rows").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            measure, "_measured", lambda plan, row: _killed() if row.key == measurable[-1] else real_measure(plan, row)
        )
        with pytest.raises(KeyboardInterrupt):
            list(run_plan(plan))
    assert sorted(path.stem for path in output.glob("rows/*")) == sorted(measurable[:-1])
    before = {path: path.stat().st_mtime_ns for path in output.rglob("model.safetensors")}
    assert before
    result = CliRunner().invoke(app, arguments(name, data, output))
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = (output / "table.md").read_text()
    assert "not comparable with what was published" in table
    assert "Not the paper's settings" in table
    for row in plan.experiment.rows:
        line = next(line for line in table.splitlines() if line.startswith(f"| {row.key} |"))
        ours = line.split("|")[4].strip()
        assert (ours == "") == (row.measure is None or row.measure.kind == "archive"), line
        if ours:
            kept = json.loads((output / "rows" / f"{row.key}.json").read_text())
            assert ours == f"{100 * kept['miou']:.2f}"

    # A third start trains nothing and measures nothing.
    monkeypatch.setattr(measure, "train", _killed)
    monkeypatch.setattr(measure, "_measured", _killed)
    assert len(list(run_plan(plan))) == len(plan.experiment.rows)


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_dry_run_prints_every_row_and_writes_nothing(name: str, tmp_path: Path) -> None:
    data = TREES[EXPERIMENTS[name].tree](tmp_path / "data")
    found = CliRunner().invoke(app, ["reproduce", name, "--data", str(data), "-o", str(tmp_path / "out"), "--dry-run"])
    assert found.exit_code == 0, found.output
    for row in EXPERIMENTS[name].rows:
        assert f"  {row.key}: {row.published:g} ({row.source}); {row.what}" in found.output
    assert "tagmask train" in found.output
    assert "RTX 3090" in found.output
    assert "the paper had" in found.output
    assert not (tmp_path / "out").exists()
    for weights in ("ilsvrc-cls_rna-a1_cls1000_ep-0001.params", "vgg16-397923af.pth"):
        wanted = {"sccam/voc": 0, "sccam/glas": 0, "rca/voc": 1}.get(name)
        needed = wanted is not None and weights.startswith(("ilsvrc", "vgg16")[wanted])
        assert ("missing: " in found.output and weights in found.output) == needed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_dry_run_before_the_downloads_prints_every_row_and_what_is_missing(name: str, tmp_path: Path) -> None:
    arguments = ["reproduce", name, "--data", str(tmp_path / "none"), "--weights", str(tmp_path / "weights")]
    found = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out"), "--dry-run"])
    assert found.exit_code != 0
    assert "weights: no such folder" in found.output
    missing = [line for line in found.output.splitlines() if line.startswith("missing: ")]
    assert len(set(missing)) == len(missing)
    for row in EXPERIMENTS[name].rows:
        assert f"  {row.key}: {row.published:g} ({row.source}); {row.what}" in found.output
    assert "left out: no " not in found.output
    assert "; download " in str(found.exception) or ": download " in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_told_before_anything_runs(tmp_path: Path) -> None:
    data = voc_tree(tmp_path / "data")
    found = CliRunner().invoke(app, ["reproduce", "rca/voc", "--data", str(data), "-o", str(tmp_path / "out")])
    assert found.exit_code != 0
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_what_a_tree_lacks_is_named_with_its_address(tmp_path: Path) -> None:
    data = voc_tree(tmp_path / "data")
    (data / "ImageSets/Segmentation/val.txt").unlink()
    (data / "SegmentationClassAug").rename(data / "elsewhere")
    with pytest.raises(TagmaskError, match=r"val\.txt.*VOCtrainval.*SegmentationClassAug.*benchmark\.tgz.*data sbd"):
        make_plan("seco/voc", data)
    with pytest.raises(TagmaskError, match=r"instances_train2014.*annotations_trainval2014\.zip"):
        make_plan("seco/coco", tmp_path)
    with pytest.raises(TagmaskError, match=r"Warwick_QU"):
        make_plan("sccam/glas", tmp_path)
    with pytest.raises(TagmaskError, match=r"no experiment 'toco/voc'; there are: seco/voc"):
        make_plan("toco/voc", data)
    with pytest.raises(TagmaskError, match=r"--only cam: no row of seco/voc; its rows: val, test, masks"):
        make_plan("seco/voc", data, only=["cam"])


def test_the_archive_is_what_the_server_takes(tmp_path: Path) -> None:
    """Paths as VOC's server wants them, and its own ids where the run has other classes."""
    data = voc_tree(tmp_path / "data")
    for path in (data / "SegmentationClassAug").glob("*.png"):
        write_mask(path, np.where(PngMask(path).ids() > 0, 15, 0))
        (data / "Annotations" / f"{path.stem}.xml").write_text(
            "<annotation><object><name>person</name></object></annotation>"
        )
    options = (*OPTIONS["seco/voc"], "data.classes=[person]")
    plan = make_plan("seco/voc", data, output=tmp_path / "out", only=["test"], overrides=options)
    (outcome,) = run_plan(plan)
    assert outcome.ours is None
    assert "2 label maps" in outcome.note
    with tarfile.open(tmp_path / "out" / "results.tgz") as archive:
        assert archive.getnames() == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in ("t2", "t1")
        ]
    folder = tmp_path / "out" / "results/VOC2012/Segmentation/comp6_test_cls"
    masks = [PngMask(folder / f"{name}.png").ids() for name in NAMES["test"]]
    assert {mask.shape for mask in masks} == {(32, 40)}
    assert set(np.unique(masks)) <= {0, 15}


def test_authors_checkpoint_takes_the_place_of_training(tmp_path: Path) -> None:
    data = voc_tree(tmp_path / "data")
    torch.save(seco_state(20), tmp_path / "seco.pth")
    plan = make_plan(
        "seco/voc", data, output=tmp_path / "out", only=["log-aux", "log-cam"], checkpoint=tmp_path / "seco.pth"
    )
    assert plan.steps() == [f"tagmask import seco {tmp_path / 'seco.pth'} -o {tmp_path / 'out' / 'run'}"]
    outcomes = {each.row.key: each for each in run_plan(plan)}
    assert outcomes["log-aux"].ours is not None
    assert "labels from cam, auxiliary; tags given" in outcomes["log-aux"].note


def test_patches_cover_the_image_and_vote(tmp_path: Path) -> None:
    for height, width in ((112, 112), (150, 180), (168, 113)):
        seen = np.zeros((height, width), int)
        for top, left in places(height, width):
            assert top + SIDE <= height
            assert left + SIDE <= width
            seen[top : top + SIDE, left : left + SIDE] += 1
        assert seen.min() >= 1


def test_a_part_of_the_real_data_is_counted_as_it_is() -> None:
    data = shared_data("voc12_animals")
    plan = make_plan("sccam/voc", data)
    assert [(count.what, count.found, count.expected) for count in plan.tree.counts] == [
        ("train", 0, 1464),
        ("train_aug", 931, 10_582),
        ("val", 231, 1449),
    ]
    assert not plan.tree.complete
    assert "data.tag_source=masks" in plan.overrides


def test_stages_follow_the_authors_classifier(tmp_path: Path) -> None:
    """SC-CAM's released round 3 is imported, walk and segmenter are trained after it, and a second start goes on."""
    data = voc_tree(tmp_path / "data")
    torch.save(resnet38_state(LATER_ROUNDS, 20, 40), tmp_path / "sccam.pth")
    options = [
        text for text in OPTIONS["sccam/voc"] if not text.startswith(("backbone", "method.first", "method.round"))
    ]
    plan = make_plan(
        "sccam/voc",
        data,
        output=tmp_path / "out",
        only=["walk", "val", "subcam-train"],
        checkpoint=tmp_path / "sccam.pth",
        overrides=["method.rounds=1", *options],
    )
    assert len(plan.steps()) == 2
    assert "--from cams" in plan.steps()[1]
    outcomes = list(run_plan(plan))
    assert [each.ours is not None for each in outcomes] == [True, True, True]
    model = (tmp_path / "out/run/round1/model.safetensors").stat().st_mtime_ns
    (tmp_path / "out/rows/val.json").unlink()
    assert [each.ours for each in run_plan(plan)] == [each.ours for each in outcomes]
    assert (tmp_path / "out/run/round1/model.safetensors").stat().st_mtime_ns == model
