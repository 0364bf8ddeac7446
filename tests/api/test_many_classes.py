"""More classes than 8 bits hold: 300, of which the 255th on have label ids from 256 on, since 255 means ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.api.export import export_masks
from tagmask.api.onnx import export_onnx
from tagmask.data.cam_files import write_cams
from tagmask.data.check import check_dataset
from tagmask.data.dataset import listed_classes
from tagmask.data.label_maps import write_label_map
from tagmask.data.masks import PngMask
from tagmask.data.readers import read_dataset
from tagmask.engine.fleet.shards import make_mask
from tagmask.engine.pixels import fit_pixels
from tagmask.engine.refine_folder import refine_folder, write_affinity_labels
from tagmask.errors import TagmaskError
from tagmask.evaluation.tables import to_json
from tagmask.recipes.stages import AffinityConfig, RefineConfig
from tests.conftest import tiny_recipe
from tests.data.trees import write_image

NAMES = [f"c{number:03}" for number in range(300)]
LISTED = (*NAMES[:254], "ignored_255", *NAMES[254:])
BORNE = {"a": [253], "b": [254], "c": [299], "d": [0, 254], "e": [253, 299], "f": [254, 299]}  # places in NAMES


def label_of(place: int) -> int:
    return place + 1 if place < 254 else place + 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 48 x 48 with masks of 16 bits: a square of each tag, and a column that nobody knows."""
    folder = tmp_path_factory.mktemp("many")
    for number, (name, places) in enumerate(BORNE.items()):
        write_image(folder / "images" / f"{name}.png", (48, 48), (40 * number, 250 - 40 * number, 90))
        labels = np.zeros((48, 48), np.uint16)
        for left, place in zip((4, 28), places, strict=False):
            labels[10:30, left : left + 16] = label_of(place)
            labels[29, left] = 0  # four corners alone would be a box
        labels[:, 47] = 255
        write_label_map(folder / "masks" / f"{name}.png", labels)
    rows = (f"{name}.png,{';'.join(NAMES[place] for place in places)}\n" for name, places in BORNE.items())
    (folder / "tags.csv").write_text("image,tags\n" + "".join(rows))
    (folder / "classes.txt").write_text("\n".join(LISTED))
    return folder


def train(data: Path, output: Path, method: str | dict[str, Any], *overrides: str) -> Path:
    recipe = tiny_recipe(method, "training.steps=4", "training.batch=2", "data.evaluate=[]", *overrides)
    return tagmask.train(data / "tags.csv", recipe=recipe, output=output)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose decoder would give every pixel the id 255 if it could, next 300, and next the ids of the tags."""
    from safetensors.torch import load_file, save_file

    folder = train(data, tmp_path_factory.mktemp("runs") / "cam", "cam")
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.branches.0.bias"][[255, 300, 254, 256, 301]] = torch.tensor([2e3, 1e3, 5e2, 5e2, 5e2])
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_list_of_many_classes_skips_the_id_255(data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(data / "tags.csv")
    assert dataset.classes == LISTED
    assert [record.tags for record in dataset.records][:4] == [(253,), (255,), (300,), (0, 255)]
    mask = dataset.records[3].mask
    assert mask is not None
    labels = mask.load(48, 48)
    assert labels.dtype == np.uint16
    assert np.unique(labels).tolist() == [0, 1, 255, 256]
    # Where the source names 300 classes, nobody has to write the 301st.
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "tags.csv").write_text("image,tags\na.png,c254\n")
    plain = read_dataset(tmp_path / "tags.csv")
    assert (plain.classes, plain.records[0].tags) == (LISTED, (255,))
    # Some of them chosen, masks of 16 bits become such of 8.
    few = read_dataset(data / "tags.csv", classes=("c299", "c254"), untagged="negative")
    mask = few.records[5].mask
    assert mask is not None
    labels = mask.load(48, 48)
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1, 2, 255]


def test_the_name_of_the_ignored_id_is_no_tag_and_no_class(data: Path, tmp_path: Path) -> None:
    for name in ("images", "masks", "classes.txt"):
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "tags.csv").write_text("image,tags\na.png,c000;ignored_255\n")
    with pytest.raises(TagmaskError, match="tag 'ignored_255' is not in the class list"):
        read_dataset(tmp_path / "tags.csv")
    with pytest.raises(
        TagmaskError, match="classes: 'ignored_255' stands for the label id 255, which is ignored; rename"
    ):
        read_dataset(data / "tags.csv", classes=("c000", "ignored_255"))
    with pytest.raises(TagmaskError, match=r"masks, list of .*: 300 classes, and the label id 255 means ignored"):
        read_dataset(data / "tags.csv", mask_classes=NAMES)
    with pytest.raises(TagmaskError, match=r"data\.context: 1 context classes beside 299 classes; together .* 254;"):
        read_dataset(data / "tags.csv", context=("c000",))


def test_the_check_says_nothing_of_the_ignored_id(data: Path) -> None:
    report = check_dataset(data / "tags.csv")
    assert report.ok
    assert not [problem for problem in report.warnings if "ignored_255" in str(problem)]
    assert len([problem for problem in report.warnings if "no image bears it" in str(problem)]) == 300 - 4


def test_masks_of_a_run_have_ids_above_255_and_never_255(data: Path, run: Path, tmp_path: Path) -> None:
    model = tagmask.load(run)
    assert model.classes == LISTED == listed_classes(run / "classes.txt")
    result = model.predict(data / "images" / "a.png")
    assert result.dtype == np.uint16
    assert (result == 300).all()
    told = model.predict(data / "images" / "a.png", ["c254", "ignored_255"])
    assert set(np.unique(told)) <= {0, 256}
    write_image(tmp_path / "large" / "a.png", (100, 60))
    tiled = tagmask.predict(run, tmp_path / "large", output=tmp_path / "tiled", overrides=["inference.tile=64"])
    assert (PngMask(tiled.folder / "a.png").ids() == 300).all()

    written = tagmask.label(run, data / "tags.csv", output=tmp_path / "masks")
    assert written.images == len(BORNE)
    for name, places in BORNE.items():
        with Image.open(written.folder / f"{name}.png") as image:
            assert image.mode == "I;16"
            labels = np.asarray(image)
        assert set(np.unique(labels)) == {label_of(places[-1])} or len(places) > 1
        assert set(np.unique(labels)) <= {label_of(place) for place in places}
        np.testing.assert_array_equal(PngMask(written.folder / f"{name}.png").ids(), labels)
    rows = (written.folder / "confidence.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:5]] == ["c253", "c254", "c299", "c254"]


def test_drawn_masks_teach_ids_above_255(data: Path, run: Path) -> None:
    model = tagmask.load(run, device="cpu")
    pixels = fit_pixels(model.method, read_dataset(data / "tags.csv").records, model.run.recipe.inference)
    assert pixels is not None
    assert pixels.classifier.labels.tolist() == [0, 1, 254, 256, 301]


def test_scores_know_ids_above_255(data: Path, run: Path, tmp_path: Path) -> None:
    for name in BORNE:
        labels = PngMask(data / "masks" / f"{name}.png").ids().astype(np.uint16)
        labels[labels == 255] = 0
        labels[10:20][labels[10:20] == 301] = 256  # the upper half of each 301
        write_label_map(tmp_path / f"{name}.png", labels)
    given = [f"data.classes=[{', '.join(LISTED)}]"]
    result, _ = tagmask.evaluate(tmp_path, data / "tags.csv", overrides=given, protocol="seam")
    found = to_json(result)
    assert list(found["classes"]) == ["background", *NAMES]
    # 256: 3 regions of 319 pixels right, 3 times 160 wrongly taken in. 301: what is left of 3 regions.
    iou = {name: found["classes"][name]["iou"] for name in ("c253", "c254", "c299", "c000")}
    assert iou == pytest.approx({"c253": 1, "c254": 319 / 479, "c299": 159 / 319, "c000": 1})
    assert found["miou"] == pytest.approx((3 + 319 / 479 + 159 / 319) / 301)
    by_run, _ = tagmask.evaluate(run, data / "tags.csv")
    assert by_run.images == len(BORNE)


def test_exports_of_many_classes(data: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in BORNE:
        (masks / f"{name}.png").symlink_to(data / "masks" / f"{name}.png")
    (masks / "classes.txt").write_text("".join(f"{name}\n" for name in LISTED))
    for format in ("voc", "cvat"):
        with pytest.raises(TagmaskError, match=f"{format} has colours for 254 classes.*export coco"):
            export_masks(masks, data / "images", tmp_path / "out", format=format)
    pytest.importorskip("pycocotools")
    for format in ("coco", "yolo"):
        out = export_masks(masks, data / "images", tmp_path / format, format=format).folder
        file = out / "dataset.yaml"
        if format == "coco":
            file = out / "annotations" / "instances_default.json"
            content = json.loads(file.read_text())
            assert [each["id"] for each in content["categories"]] == [*range(1, 255), *range(256, 302)]
            assert {each["category_id"] for each in content["annotations"]} == {1, 254, 256, 301}
        again = read_dataset(file, image_folder=data / "images" if format == "coco" else None)
        assert again.classes == LISTED
        for record in again.records:
            assert record.mask is not None
            labels = PngMask(masks / f"{record.image.stem}.png").ids()
            np.testing.assert_array_equal(record.mask.load(48, 48), np.where(labels == 255, 0, labels))
    export_masks(masks, data / "images", tmp_path / "label-studio", format="label-studio")
    assert (tmp_path / "label-studio" / "label_config.xml").read_text().count('<Label value="c') == 300


def test_run_lengths_and_tar_members_keep_ids_above_255() -> None:
    pytest.importorskip("pycocotools")
    labels = np.full((4, 5), 300, np.uint16)
    labels[0, 0] = 44  # what is left of 300 in 8 bits
    assert [label for label, _ in make_mask("a", labels, 1.0, "parquet").content] == [44, 300]
    assert make_mask("a", labels, 1.0, "tar").labels == (44, 300)


def test_onnx_gives_ids_above_255(run: Path, data: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_onnx(run, tmp_path / "model.onnx", labels=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    pixels = np.asarray(Image.open(data / "images" / "a.png"), np.float32).transpose(2, 0, 1)[None] / 255
    (labels,) = session.run(None, {"image": pixels})
    assert (labels == 300).all()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("method", ["seco", {"name": "full"}, {"name": "full", "copies": [0.5]}])
def test_methods_learn_many_classes(data: Path, tmp_path: Path, method: str | dict, background: bool) -> None:
    if method == "seco" and not background:
        pytest.skip("without background the others say what there is to say")
    folder = train(data, tmp_path / "run", method, f"data.background={str(background).lower()}")
    assert all(np.isfinite(json.loads(line)["loss"]) for line in (folder / "metrics.jsonl").open() if '"loss"' in line)
    assert tagmask.load(folder).predict(data / "images" / "a.png").dtype == np.uint16


def test_stages_write_ids_above_255(data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(data / "tags.csv")
    [record] = [record for record in dataset.records if record.name == "f"]
    cams = torch.zeros(2, 48, 48)
    cams[0, :, :16], cams[1, :, 32:] = 0.9, 0.9
    write_cams(tmp_path / "cams" / "f.npz", cams, record.tags)
    refine_folder(tmp_path / "cams", [record], tmp_path / "masks", RefineConfig(name="none", background_score=0.5))
    labels = PngMask(tmp_path / "masks" / "f.png").ids()
    assert [int(labels[5, column]) for column in (5, 24, 40)] == [256, 0, 301]
    config = RefineConfig(name="crf", alpha=4)
    write_affinity_labels(tmp_path / "cams", [record], tmp_path / "labels", config, AffinityConfig())
    assert set(np.unique(PngMask(tmp_path / "labels" / "f.png").ids())) <= {0, 255, 256, 301}
