from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tagmask.api.export import MaskFormat, export_masks
from tagmask.api.mask_folder import MaskFolder
from tagmask.data import files
from tagmask.data.confidence import MaskRow
from tagmask.data.label_maps import write_label_map
from tagmask.data.readers import read_dataset
from tagmask.data.writers.coco import write_coco
from tagmask.data.writers.cvat import write_cvat
from tagmask.data.writers.labelled import LabelledImage
from tagmask.data.writers.voc import write_voc
from tagmask.data.writers.yolo import write_yolo
from tagmask.errors import TagmaskError
from tests.data.trees import write_image
from tests.data.writers.test_label_studio import decoded

CLASSES = ("cat", "Käfer", "dog & bone")
FORMATS: tuple[MaskFormat, ...] = ("coco", "coco-polygons", "yolo", "voc", "label-studio", "cvat")


def label_maps() -> dict[str, np.ndarray]:
    """A ring around a pixel with a second part, a class of one image only, ignored pixels, no class at all."""
    ring = np.zeros((9, 12), dtype=np.uint8)
    ring[1:8, 1:8] = 1
    ring[3:6, 3:6] = 0
    ring[4, 4] = 2
    ring[0, 11] = ring[2:4, 10] = 1
    only = np.zeros((7, 5), dtype=np.uint8)
    only[3, 2] = 3
    ignored = np.full((6, 8), 2, dtype=np.uint8)
    ignored[:, 4:] = 255
    return {"a": ring, "sub/ü é": only, "sub/deep/ignored": ignored, "none": np.zeros((4, 4), dtype=np.uint8)}


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of masks and photographs."""
    masks, photos = tmp_path / "masks", tmp_path / "photos"
    for name, labels in label_maps().items():
        write_label_map(masks / f"{name}.png", labels)
        write_image(photos / f"{name}{'.png' if name == 'none' else '.jpg'}", labels.shape[::-1])
    (masks / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")
    with (masks / "confidence.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [["image", "confidence", "classes"], ["a", "0.8125", "cat;Käfer"], ["sub/ü é", "0.5", ""], ["none", "", ""]]
        )
    return masks, photos


def known(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 255, 0, labels)


def assert_read_back(dataset, expected: dict[str, np.ndarray]) -> None:
    """The tool's own reader gives the tags and label maps."""
    assert dataset.classes == CLASSES
    assert {record.name for record in dataset.records} == set(expected)
    for record in dataset.records:
        labels = expected[record.name]
        assert set(record.tags) == {label - 1 for label in np.unique(labels) if 0 < label < 255}
        assert record.mask is not None
        np.testing.assert_array_equal(record.mask.load(*labels.shape), labels)


@pytest.mark.parametrize("format", ["coco", "coco-polygons"])
def test_coco_is_read_back_by_pycocotools_and_by_our_reader(labelled, tmp_path, format) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    done = export_masks(*labelled, tmp_path / "out", format=format)
    assert (done.images, done.skipped) == (4, ())
    assert done.notes == (f"1 of 4 masks hold ignored pixels (255), which {format} lacks: they are background now",)
    file = tmp_path / "out/annotations/instances_default.json"
    found = coco.COCO(str(file))
    assert {number: category["name"] for number, category in found.cats.items()} == dict(enumerate(CLASSES, start=1))
    names = {os.path.splitext(image["file_name"])[0]: image for image in found.imgs.values()}
    assert (names["none"]["file_name"], names["sub/ü é"]["file_name"]) == ("none.png", "sub/ü é.jpg")
    for name, labels in label_maps().items():
        back = np.zeros_like(labels)
        for annotation in found.imgToAnns[names[name]["id"]]:
            inside = found.annToMask(annotation).astype(bool)
            back[inside] = annotation["category_id"]
            assert annotation["area"] == inside.sum()
            assert annotation["iscrowd"] == 0
        np.testing.assert_array_equal(back, known(labels))
    assert [annotation["bbox"] for annotation in found.imgToAnns[names["a"]["id"]]] == [
        [11, 0, 1, 1],
        [1, 1, 7, 7],
        [10, 2, 1, 2],
        [4, 4, 1, 1],
    ]
    dataset = read_dataset(tmp_path / "out", image_folder=labelled[1], untagged="negative")
    assert_read_back(dataset, {name: known(labels) for name, labels in label_maps().items()})


@pytest.mark.parametrize("format", ["coco", "coco-polygons"])
def test_coco_is_read_back_by_supervision(labelled, tmp_path, format) -> None:
    supervision = pytest.importorskip("supervision")
    export_masks(*labelled, tmp_path / "out", format=format)
    dataset = supervision.DetectionDataset.from_coco(
        str(labelled[1]), str(tmp_path / "out/annotations/instances_default.json"), force_masks=True
    )
    assert dataset.classes == list(CLASSES)
    for path, detections in dataset.annotations.items():
        name = os.path.splitext(Path(path).relative_to(labelled[1].resolve()).as_posix())[0]
        assert_within_a_rim(detections, known(label_maps()[name]), exact=format == "coco")


def assert_within_a_rim(detections, labels: np.ndarray, *, exact: bool) -> None:
    """Each class covers its pixels; a reader that paints outlines too may add a rim of one pixel."""
    for label in range(1, len(CLASSES) + 1):
        chosen = detections.mask[detections.class_id == label - 1] if len(detections) else np.zeros((0, *labels.shape))
        found, inside = chosen.astype(bool).any(axis=0), labels == label
        assert not (inside & ~found).any()
        assert not (found & ~(inside if exact else ndimage.binary_dilation(inside, np.ones((3, 3))))).any()


def test_yolo_is_read_back_by_our_reader(labelled, tmp_path) -> None:
    done = export_masks(*labelled, tmp_path / "out", format="yolo")
    assert "dataset.yaml: there is no split val, which YOLO asks for; it names images/train" in done.notes
    dataset = read_dataset(tmp_path / "out/dataset.yaml", untagged="negative")
    assert_read_back(dataset.split("train"), {name: known(labels) for name, labels in label_maps().items()})
    assert (tmp_path / "out/labels/train/none.txt").read_text() == ""
    lines = (tmp_path / "out/labels/train/a.txt").read_text().splitlines()
    assert lines[0] == "0 1.000000 0.000000 1.000000 0.111111 0.916667 0.111111 0.916667 0.000000"
    assert [line.split()[0] for line in lines] == ["0", "0", "0", "1"]
    copied = tmp_path / "out/images/train/sub/ü é.jpg"
    assert copied.read_bytes() == (labelled[1] / "sub/ü é.jpg").read_bytes()


def test_yolo_is_read_back_by_supervision(labelled, tmp_path) -> None:
    supervision = pytest.importorskip("supervision")
    out = tmp_path / "out"
    export_masks(*labelled, out, format="yolo")
    for folder in ("", "sub", "sub/deep"):
        dataset = supervision.DetectionDataset.from_yolo(
            str(out / "images/train" / folder),
            str(out / "labels/train" / folder),
            str(out / "dataset.yaml"),
            force_masks=True,
        )
        assert dataset.classes == list(CLASSES)
        assert len(dataset.annotations) >= 1
        for path, detections in dataset.annotations.items():
            name = os.path.splitext(Path(path).relative_to(out / "images/train").as_posix())[0]
            assert_within_a_rim(detections, known(label_maps()[name]), exact=False)


def test_voc_is_read_back_by_our_reader_with_ignored_pixels(labelled, tmp_path) -> None:
    done = export_masks(*labelled, tmp_path / "out", format="voc")
    assert done.notes == ()
    expected = {name.replace("/", "__").replace(" ", "_"): labels for name, labels in label_maps().items()}
    for source in ("annotations", "masks"):
        dataset = read_dataset(tmp_path / "out", tag_source=source, untagged="negative")
        assert_read_back(dataset.split("train"), expected)
    root = ElementTree.parse(tmp_path / "out/Annotations/a.xml").getroot()
    boxes = [[int(item.text or 0) for item in box] for box in root.iter("bndbox")]
    assert boxes == [[12, 1, 12, 1], [2, 2, 8, 8], [11, 3, 11, 4], [5, 5, 5, 5]]
    assert root.findtext("size/width") == "12"
    with Image.open(tmp_path / "out/SegmentationClass/a.png") as mask:
        assert mask.mode == "P"


def test_label_studio_tasks_hold_brush_regions_with_score(labelled, tmp_path) -> None:
    export_masks(*labelled, tmp_path / "out", format="label-studio", image_url="s3://bucket/")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text(encoding="utf-8"))
    assert [unquote(task["data"]["image"]) for task in tasks] == [
        "s3://bucket/a.jpg",
        "s3://bucket/none.png",
        "s3://bucket/sub/deep/ignored.jpg",
        "s3://bucket/sub/ü é.jpg",
    ]
    assert tasks[3]["data"]["image"].isascii()
    predictions = [task["predictions"][0] for task in tasks]
    assert [prediction.get("score") for prediction in predictions] == [0.8125, None, None, 0.5]
    assert {prediction["model_version"] for prediction in predictions} == {"tagmask masks"}
    for task, prediction in zip(tasks, predictions, strict=True):
        labels = label_maps()[os.path.splitext(unquote(task["data"]["image"]).removeprefix("s3://bucket/"))[0]]
        back = np.zeros_like(labels)
        for region in prediction["result"]:
            assert (region["original_height"], region["original_width"]) == labels.shape
            assert (region["type"], region["value"]["format"]) == ("brushlabels", "rle")
            (name,) = region["value"]["brushlabels"]
            inside = decoded(region["value"]["rle"]).reshape(*labels.shape, 4)[..., 3] == 255
            back[inside] = CLASSES.index(name) + 1
        np.testing.assert_array_equal(back, known(labels))
    config = ElementTree.parse(tmp_path / "out/label_config.xml").getroot()
    brush = config.find("BrushLabels")
    assert brush is not None
    assert [label.get("value") for label in brush] == list(CLASSES)
    assert (brush.get("name"), brush.get("toName")) == ("tag", "image")
    assert {(region["from_name"], region["to_name"]) for region in predictions[0]["result"]} == {("tag", "image")}


def test_label_studio_addresses_work_below_a_document_root_and_the_note_names_it(labelled, tmp_path) -> None:
    """Label Studio serves d=PATH below its document root, and its storage must be a folder below that root."""
    done = export_masks(*labelled, tmp_path / "out", format="label-studio")
    (task, *_) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=photos/a.jpg"
    note = done.notes[-1]
    root = Path(note.partition("DOCUMENT_ROOT=")[2].partition(",")[0])
    assert (root / task["data"]["image"].partition("?d=")[2]).is_file()
    assert f"and {root / 'photos'} is added to the project as local files storage" in note
    assert "local files" not in "".join(
        export_masks(*labelled, tmp_path / "other", format="label-studio", image_url="s3://b/").notes
    )


def test_label_studio_regions_that_people_accepted_are_read_back_pixel_by_pixel(labelled, tmp_path) -> None:
    """Accepting a prediction makes an annotation of its regions, which the export as JSON holds."""
    export_masks(*labelled, tmp_path / "out", format="label-studio")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text(encoding="utf-8"))
    accepted = [task | {"annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks]
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    (tmp_path / "export.json").write_text(json.dumps(accepted), encoding="utf-8")
    dataset = read_dataset(tmp_path / "export.json", image_folder=labelled[1], untagged="negative")
    assert_read_back(dataset, {name: known(labels) for name, labels in label_maps().items()})


def test_label_studio_predictions_are_no_annotations_for_our_reader(labelled, tmp_path) -> None:
    export_masks(*labelled, tmp_path / "out", format="label-studio")
    (tmp_path / "out/classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    dataset = read_dataset(tmp_path / "out/tasks.json", image_folder=labelled[1], untagged="negative")
    assert {record.name for record in dataset.records} == set(label_maps())
    assert all(record.tags == () and record.unknown == (0, 1, 2) for record in dataset.records)


def test_cvat_archive_unpacked_is_read_back_by_our_reader(labelled, tmp_path) -> None:
    """CVAT exports "Segmentation mask 1.1" in the form in which it imports it."""
    export_masks(*labelled, tmp_path / "out", format="cvat")
    with zipfile.ZipFile(tmp_path / "out/segmentation_mask_1.1.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    dataset = read_dataset(tmp_path / "unpacked", image_folder=labelled[1], untagged="negative")
    assert_read_back(dataset, {name: known(labels) for name, labels in label_maps().items()})
    assert dataset.splits == ("default",)


def test_cvat_archive_holds_colours_objects_and_names(labelled, tmp_path) -> None:
    export_masks(*labelled, tmp_path / "out", format="cvat")
    with zipfile.ZipFile(tmp_path / "out/segmentation_mask_1.1.zip") as archive:
        lines = archive.read("labelmap.txt").decode("utf-8").splitlines()
        names = archive.read("ImageSets/Segmentation/default.txt").decode("utf-8").splitlines()
        pictures = {
            name: np.asarray(Image.open(archive.open(name))) for name in archive.namelist() if name.endswith(".png")
        }
    assert names == sorted(label_maps())
    colours = {line.split(":")[0]: tuple(map(int, line.split(":")[1].split(","))) for line in lines[1:]}
    assert list(colours) == ["background", *CLASSES]
    assert len(set(colours.values())) == 4
    for name, labels in label_maps().items():
        expected = np.array(list(colours.values()))[known(labels)]
        np.testing.assert_array_equal(pictures[f"SegmentationClass/{name}.png"], expected)
    objects = pictures["SegmentationObject/a.png"].reshape(-1, 3)
    assert len(np.unique(objects, axis=0)) == 5
    assert not pictures["SegmentationObject/none.png"].any()


def test_cvat_takes_a_class_for_an_object_where_regions_are_too_many(labelled, tmp_path) -> None:
    masks, photos = labelled
    labels = np.zeros((32, 34), dtype=np.uint8)
    labels[::2, ::2] = 1
    write_label_map(masks / "many.png", labels)
    write_image(photos / "many.jpg", (34, 32))
    export_masks(masks, photos, tmp_path / "out", format="cvat")
    with zipfile.ZipFile(tmp_path / "out/segmentation_mask_1.1.zip") as archive:
        kinds = [np.asarray(Image.open(archive.open(f"Segmentation{part}/many.png"))) for part in ("Class", "Object")]
    np.testing.assert_array_equal(*kinds)
    (masks / "classes.txt").write_text("a:b\nc\nd\n")
    with pytest.raises(TagmaskError, match=r"class 'a:b': labelmap\.txt has no names"):
        export_masks(masks, photos, tmp_path / "out", format="cvat")


@pytest.mark.parametrize(
    ("format", "files"),
    [
        ("coco", ["annotations/instances_train.json", "annotations/instances_val.json"]),
        ("yolo", ["images/train", "images/val", "labels/train", "labels/val"]),
        ("voc", ["ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"]),
    ],
)
def test_data_sets_and_tables_of_them_name_photographs_and_splits(labelled, tmp_path, format, files) -> None:
    masks, photos = labelled
    rows = [f"{name}.jpg,cat,{'val' if name == 'a' else 'train'}" for name in ("a", "sub/ü é", "sub/deep/ignored")]
    (photos / "tags.csv").write_text("\n".join(["image,tags,split", *rows]), encoding="utf-8")
    for number, source in enumerate((read_dataset(photos / "tags.csv"), photos / "tags.csv")):
        out = tmp_path / f"out{number}"
        done = export_masks(masks, source, out, format=format)
        assert done.images == 3
        assert [line.split(":")[0] for line in done.skipped] == [str(masks / "none.png")]
        assert all((out / file).exists() for file in files)


@pytest.mark.parametrize("format", FORMATS)
def test_an_untouched_export_is_replaced_and_nothing_else(labelled, tmp_path, format) -> None:
    masks, photos = labelled
    out = tmp_path / "out"
    out.mkdir()
    export_masks(masks, photos, out, format=format)
    (masks / "a.png").unlink()
    assert export_masks(masks, photos, out, format=format).images == 3
    mark = json.loads((out / "tagmask-export.json").read_text(encoding="utf-8"))
    present = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert present == {*mark["files"], "tagmask-export.json"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["masks", "out", "photos"]
    # A file that was changed is known by its content, also where its clock was set back, as `cp -p` and unzip do.
    name = next(iter(mark["files"]))
    before = (out / name).stat().st_mtime_ns
    os.utime(out / name, ns=(before + 10**12, before + 10**12))  # a later clock alone is no change
    export_masks(masks, photos, out, format=format)
    (out / name).write_bytes(b"mine")
    os.utime(out / name, ns=(before, before))
    with pytest.raises(TagmaskError, match=f"holds {name}, which was changed since the export"):
        export_masks(masks, photos, out, format=format)


def test_an_export_of_version_0_1_is_replaced_unless_it_is_newer_than_its_list(labelled, tmp_path) -> None:
    masks, photos = labelled
    out, mark = tmp_path / "out", tmp_path / "out" / "tagmask-export.json"
    for changed in (False, True):
        export_masks(masks, photos, out, format="voc")
        values = json.loads(mark.read_text(encoding="utf-8"))
        mark.write_text(json.dumps({**values, "files": list(values["files"])}), encoding="utf-8")
        if not changed:
            continue
        name = next(iter(values["files"]))
        later = mark.stat().st_mtime_ns + 10**9
        os.utime(out / name, ns=(later, later))
        with pytest.raises(TagmaskError, match=f"holds {name}, which was changed since the export"):
            export_masks(masks, photos, out, format="voc")


@pytest.mark.parametrize("call", ["first move", "second move", "removal"])
def test_an_export_killed_while_it_replaces_an_earlier_one_is_made_anew(labelled, tmp_path, call) -> None:
    masks, photos = labelled
    out = tmp_path / "out"
    export_masks(masks, photos, out, format="coco")
    script = f"""
        import os, shutil, sys
        from pathlib import Path
        from tagmask.api.export import export_masks
        calls, move = [], os.replace

        def replace(source, target):
            if Path(source).is_dir():
                calls.append(target)
                if len(calls) == {2 if call == "second move" else 1} and {call != "removal"}:
                    os._exit(9)
            move(source, target)

        os.replace = replace
        shutil.rmtree = lambda place, **_: os._exit(9)
        export_masks({str(masks)!r}, {str(photos)!r}, {str(out)!r}, format="coco")
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) > 2
    files._swept.clear()  # as in a new process
    assert export_masks(masks, photos, out, format="coco").images == 4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["masks", "out", "photos"]


@pytest.mark.parametrize("split", ["../../victim", "a/b", "..", "a\\b"])
def test_bad_input_a_split_never_becomes_a_path(labelled, tmp_path, split) -> None:
    """Such a name is refused where it enters, in a record made by a program too, so that no writer ever sees it."""
    _, photos = labelled
    record = read_dataset(table(photos), untagged="negative").records[0]
    with pytest.raises(TagmaskError, match=r"split .* is a path, and files are called after splits"):
        replace(record, split=split)


def table(photos: Path) -> Path:
    """A table of the photographs, beside them."""
    (photos / "tags.csv").write_text("image,tags,split\na.jpg,cat,train\nsub/ü é.jpg,cat,train\n", encoding="utf-8")
    return photos / "tags.csv"


def test_names_that_look_like_formulas_are_guarded_in_the_table_and_found_again(labelled, tmp_path) -> None:
    masks, photos = labelled
    (masks / "confidence.csv").unlink()
    (masks / "classes.txt").unlink()
    for name in label_maps():
        (masks / f"{name}.png").unlink()
    folder = MaskFolder(masks, CLASSES, ["=cmd"])
    folder.write("=cmd", label_maps()["a"])
    folder.finish([MaskRow("=cmd", 0.25, ("@cat",))])
    assert (masks / "confidence.csv").read_text() == "image,confidence,classes\n'=cmd,0.2500,'@cat\n"
    MaskFolder(masks, CLASSES, []).finish([])
    assert (masks / "confidence.csv").read_text() == "image,confidence,classes\n'=cmd,0.2500,'@cat\n"
    write_image(photos / "=cmd.jpg", (12, 9))
    export_masks(masks, photos, tmp_path / "out", format="label-studio")
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert task["predictions"][0]["score"] == 0.25


@pytest.mark.parametrize("writer", [write_coco, write_yolo, write_voc, write_cvat])
@pytest.mark.parametrize("where", ["split", "name"])
def test_no_writer_leaves_its_folder(labelled, tmp_path, writer, where) -> None:
    """The writers' own check, should a name slip through where it enters."""
    bad = "../../x/../../x"
    image = LabelledImage(
        bad if where == "name" else "a",
        labelled[1] / "a.jpg",
        f"{bad}.jpg" if where == "name" else "a.jpg",
        label_maps()["a"],
        bad if where == "split" else "train",
    )
    (tmp_path / "in/out").mkdir(parents=True)
    before = sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts)
    with contextlib.suppress(TagmaskError):
        writer(tmp_path / "in/out", [image], CLASSES)
    assert sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts) == before
    for archive in tmp_path.rglob("*.zip"):
        assert not any(".." in name.split("/") for name in zipfile.ZipFile(archive).namelist())


def rgb_ids(labelmap: Path, mask: Path) -> np.ndarray:
    """The positions in a labelmap.txt of a mask's colours, read as CVAT and Datumaro do, palette and all."""
    lines = [line.split(":") for line in labelmap.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(len(line) == 4 and line[2:] == ["", ""] for line in lines)
    colours = {tuple(map(int, line[1].split(","))): number for number, line in enumerate(lines)}
    assert len(colours) == len(lines)
    with Image.open(mask) as image:
        pixels = np.asarray(image.convert("RGB"))
    return np.array([[colours[tuple(pixel)] for pixel in row] for row in pixels.tolist()])


def test_voc_says_its_classes_and_colours_as_cvat_and_datumaro_want(labelled, tmp_path) -> None:
    export_masks(*labelled, tmp_path / "out", format="voc")
    labelmap = tmp_path / "out/labelmap.txt"
    assert labelmap.read_text(encoding="utf-8") == (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\nKäfer:0,128,0::\n"
        "dog & bone:128,128,0::\nignored:224,224,192::\n"
    )
    for name, labels in label_maps().items():
        mask = tmp_path / "out/SegmentationClass" / f"{name.replace('/', '__').replace(' ', '_')}.png"
        np.testing.assert_array_equal(rgb_ids(labelmap, mask), np.where(labels == 255, 4, labels))
    (labelled[0] / "sub/deep/ignored.png").unlink()
    (labelled[0] / "classes.txt").write_text("a:b\nc\nd\n")
    (note,) = export_masks(*labelled, tmp_path / "out", format="voc").notes
    assert "no labelmap.txt" in note
    assert "class 'a:b'" in note
    assert not labelmap.exists()
    (labelled[0] / "classes.txt").write_text("b\nc\nd\n")
    export_masks(*labelled, tmp_path / "out", format="voc")
    assert "ignored" not in labelmap.read_text()


def test_voc_is_read_back_by_datumaro(labelled, tmp_path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    export_masks(*labelled, tmp_path / "out", format="voc")
    found = datumaro.Dataset.import_from(str(tmp_path / "out"), "voc_segmentation")
    labels = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    assert labels == ["background", *CLASSES, "ignored"]
    expected = {name.replace("/", "__").replace(" ", "_"): labels for name, labels in label_maps().items()}
    assert {item.id for item in found} == set(expected)
    for item in found:
        back = np.zeros_like(expected[item.id])
        for annotation in item.annotations:
            back[annotation.image.astype(bool)] = 255 if annotation.label == 4 else annotation.label
        np.testing.assert_array_equal(back, expected[item.id])


def test_bad_input_output_that_holds_something_else(labelled, tmp_path) -> None:
    masks, photos = labelled
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for output, message in (
        (photos, "photos: not empty and no earlier export; choose another output"),
        (masks, "masks: not empty and no earlier export"),
        (tmp_path, "not empty and no earlier export"),
        (photos / "none.png", "a file, not a folder"),
        (masks / "out", "lies among the masks; choose another output"),
    ):
        with pytest.raises(TagmaskError, match=message):
            export_masks(masks, photos, output, format="voc")
    out = tmp_path / "out"
    export_masks(masks, photos, out, format="yolo")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(TagmaskError, match=r"holds notes\.txt, which was not written by the export"):
        export_masks(masks, photos, out, format="yolo")
    assert (out / "notes.txt").read_text() == "mine"
    assert all(file.read_bytes() == content for file, content in before.items())


def test_wrong_masks_are_left_out_and_said(labelled, tmp_path) -> None:
    masks, photos = labelled
    (masks / "none.png").write_bytes(b"")
    write_label_map(masks / "a.png", np.zeros((3, 3), np.uint8))
    write_label_map(masks / "lost.png", np.zeros((3, 3), np.uint8))
    write_label_map(masks / "sub/deep/ignored.png", np.full((6, 8), 4, np.uint8))
    done = export_masks(masks, photos, tmp_path / "out", format="coco")
    assert done.images == 1
    assert [line.split(":", 1)[1][:30] for line in done.skipped] == [
        " mask is 3 x 3 (width x height",
        " no photograph called 'lost'; ",
        " is empty (0 bytes); copy it a",
        " ids 4 are no class; expected ",
    ]
    for name in ("sub/ü é.png", "sub/deep/ignored.png"):
        (masks / name).write_bytes(b"")
    with pytest.raises(TagmaskError, match=r"masks: no mask could be exported; .*a\.png"):
        export_masks(masks, photos, tmp_path / "out2", format="coco")
    assert not (tmp_path / "out2").exists()


def test_photographs_that_differ_in_their_suffix_have_masks_of_the_whole_name(labelled, tmp_path) -> None:
    masks, photos = labelled
    write_image(photos / "a.webp", (12, 9))
    done = export_masks(masks, photos, tmp_path / "out", format="coco")
    assert "stands for a.jpg and a.webp; rename one of them" in done.skipped[0]
    (masks / "a.png").rename(masks / "a.jpg.png")
    write_label_map(masks / "a.webp.png", label_maps()["a"])
    assert export_masks(masks, photos, tmp_path / "out", format="coco").skipped == ()
    with pytest.raises(TagmaskError, match=r"would both be written as labels/train/a\.txt; rename one of them"):
        export_masks(masks, photos, tmp_path / "yolo", format="yolo")
    assert not (tmp_path / "yolo").exists()


def test_masks_among_the_photographs_are_no_photographs(labelled, tmp_path) -> None:
    masks, photos = labelled
    masks.rename(photos / "masks")
    assert export_masks(photos / "masks", photos, tmp_path / "out", format="coco").images == 4


def test_bad_input_masks_and_options(labelled, tmp_path) -> None:
    masks, photos = labelled
    for arguments, options, message in (
        ((tmp_path / "gone", photos), {}, "gone: no such folder; expected the output of `tagmask label`"),
        ((photos / "sub/deep", photos), {}, "deep: holds no mask"),
        ((masks, tmp_path / "gone"), {}, "photographs: .*gone: no such file or folder"),
        ((masks, masks), {}, "no mask is called after a photograph of .*masks; for the mask a.png expected a.jpg"),
        ((masks, photos), {"format": "coko"}, "format: 'coko' is not known; did you mean 'coco'"),
        ((masks, photos), {"image_url": "x"}, "image_url: is for label-studio, and the format is coco"),
    ):
        with pytest.raises(TagmaskError, match=message):
            export_masks(*arguments, tmp_path / "out", **({"format": "coco"} | options))
    (masks / "confidence.csv").write_text("image,sure\na,1\n")
    with pytest.raises(TagmaskError, match=r"confidence\.csv: expected the columns image, confidence and classes"):
        export_masks(masks, photos, tmp_path / "out", format="label-studio")
    (masks / "classes.txt").unlink()
    with pytest.raises(TagmaskError, match=r"classes\.txt: is missing; write the class names"):
        export_masks(masks, photos, tmp_path / "out", format="coco")
