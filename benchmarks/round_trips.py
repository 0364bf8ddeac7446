"""Masks through other tools and back: pixels that differ, by the tools' own readers and writers.

    make bench NAME=round_trips

Sixty masks of the synthetic set, with a border of ignored pixels, are exported in each format and read by the tool;
what the tool then writes is read by tagmask. Ignored pixels become background in every format but VOC, so they are
compared as background there. The tools live in an environment of their own, whose Python is named by TAGMASK_TOOLS:

    python -m venv tools && tools/bin/pip install 'datumaro[cli]' label-studio-sdk pycocotools supervision
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import write_results
from PIL import Image

from tagmask.api import open_data
from tagmask.api.export import export_masks
from tagmask.data.label_maps import write_label_map
from tagmask.data.synthetic.scenes import make_cooccur
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.data_section import DataConfig

IMAGES = 60

# Each function reads one export by the tool's own reader, as a dictionary of label maps.
READ = r"""
import json, sys
from importlib.metadata import version
from pathlib import Path
import numpy as np

place = Path(sys.argv[1])
truth = {file.stem: np.load(file) for file in sorted((place / "ids").iterdir())}
classes = (place / "masks/classes.txt").read_text().splitlines()

def by_datumaro(folder, kind):
    import datumaro
    found = datumaro.Dataset.import_from(str(folder), kind)
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    maps = {}
    for item in found:
        name = item.id.split("/")[-1]
        maps[name] = np.zeros_like(truth[name])
        for one in item.annotations:
            if one.type is datumaro.AnnotationType.mask:
                label = names[one.label]
                own = 255 if label == "ignored" else classes.index(label) + 1 if label in classes else 0
                maps[name][one.image.astype(bool)] = own
    return maps

def by_pycocotools(file):
    from pycocotools.coco import COCO
    coco = COCO(file)
    maps = {}
    for number, image in coco.imgs.items():
        ids = np.zeros((image["height"], image["width"]), np.uint8)
        for one in coco.imgToAnns[number]:
            ids[coco.annToMask(one).astype(bool)] = one["category_id"]
        maps[Path(image["file_name"]).stem] = ids
    return maps

def by_supervision(load):
    found = load()
    maps = {}
    for path, _, one in found:
        name = Path(path).stem
        ids = np.zeros_like(truth[name])
        for mask, label in zip(one.mask if one.mask is not None else [], one.class_id):
            ids[np.asarray(mask).astype(bool)] = classes.index(found.classes[label]) + 1
        maps[name] = ids
    return maps

def coco_of_supervision():
    import supervision
    return supervision.DetectionDataset.from_coco(
        str(place / "photos"), str(place / "coco/annotations/instances_default.json"), force_masks=True)

def yolo_of_supervision():
    import supervision
    out = place / "yolo"
    return supervision.DetectionDataset.from_yolo(
        str(out / "images/train"), str(out / "labels/train"), str(out / "dataset.yaml"), force_masks=True)

def by_label_studio(file):
    from label_studio_sdk.converter.brush import decode_rle
    maps = {}
    for task in json.loads(Path(file).read_text()):
        name = Path(task["data"]["image"]).stem
        ids = np.zeros_like(truth[name])
        for region in task["predictions"][0]["result"]:
            if region["type"] == "brushlabels":
                inside = decode_rle(region["value"]["rle"]).reshape(*ids.shape, 4)[..., 3] > 127
                ids[inside] = classes.index(region["value"]["brushlabels"][0]) + 1
        maps[name] = ids
    return maps

def label_studio_writes(file):
    from label_studio_sdk.converter.brush import mask2rle
    tasks = []
    for name, ids in truth.items():
        height, width = ids.shape
        regions = [
            dict(id=f"{name}-{own}", type="brushlabels", from_name="label", to_name="image", original_width=width,
                original_height=height, value=dict(format="rle", brushlabels=[label],
                rle=mask2rle(((ids == own) * 255).astype(np.uint8))))
            for own, label in enumerate(classes, 1) if (ids == own).any()
        ]
        tasks.append(dict(id=len(tasks) + 1, data=dict(image=f"/data/local-files/?d=photos/{name}.png"),
            annotations=[dict(id=len(tasks) + 1, result=regions)]))
    Path(file).parent.mkdir()
    Path(file).write_text(json.dumps(tasks))

read = {
    "coco: pycocotools": lambda: by_pycocotools(place / "coco/annotations/instances_default.json"),
    "coco: supervision": lambda: by_supervision(coco_of_supervision),
    "coco-polygons: pycocotools": lambda: by_pycocotools(place / "coco-polygons/annotations/instances_default.json"),
    "label-studio: label-studio-sdk": lambda: by_label_studio(place / "label-studio/tasks.json"),
    "cvat: Datumaro": lambda: by_datumaro(place / "cvat-unpacked", "voc_segmentation"),
    "yolo: supervision": lambda: by_supervision(yolo_of_supervision),
    "voc: Datumaro": lambda: by_datumaro(place / "voc", "voc_segmentation"),
}
rows = {}
for name, reader in read.items():
    found = reader()
    assert set(found) == set(truth), (name, set(truth) ^ set(found))
    rows[name] = 0
    for image, ids in truth.items():
        kept = ids if name.startswith("voc") else np.where(ids == 255, 0, ids)
        rows[name] += int((found[image] != kept).sum())
label_studio_writes(place / "studio-writes/tasks.json")
packages = ("datumaro", "label-studio-sdk", "pycocotools", "supervision")
print(json.dumps({"rows": rows, "versions": {name: version(name) for name in packages}}))
"""

# What Datumaro writes of our VOC tree: its name for the format, and the words that choose masks.
CONVERTED = {
    "CVAT for images 1.1": ("cvat", []),
    "COCO instances": ("coco_instances", ["--segmentation-mode", "mask"]),
    "VOC": ("voc_segmentation", ["--label-map", "source"]),
}


def synthetic_masks(place: Path) -> dict[str, np.ndarray]:
    """Write photographs and masks with a border of ignored pixels around every object."""
    make_cooccur(place / "made", images=IMAGES)
    dataset = open_data(place / "made", DataConfig())
    (place / "photos").mkdir()
    (place / "ids").mkdir()
    found: dict[str, np.ndarray] = {}
    for record in dataset.records[:IMAGES]:
        with Image.open(record.image) as image:
            size = image.size[::-1]
            image.save(place / "photos" / f"{record.name}.png")
        assert record.mask is not None
        ids = record.mask.load(*size).astype(np.uint8)
        ids[np.abs(np.gradient(ids.astype(float))).sum(axis=0) > 0] = IGNORE
        write_label_map(place / "masks" / f"{record.name}.png", ids)
        np.save(place / "ids" / f"{record.name}.npy", ids)
        found[record.name] = ids
    (place / "masks/classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes))
    return found


def differing(folder: Path, truth: dict[str, np.ndarray], images: Path) -> int:
    """Count the pixels in which what tagmask reads of a folder is not what was exported, ignored as background."""
    config = DataConfig(untagged="negative", image_folder=None if folder.name == "yolo" else images)
    dataset = open_data(folder, config)
    order = {name: label for label, name in enumerate((images.parent / "masks/classes.txt").read_text().split(), 1)}
    change = np.zeros(256, np.uint8)
    for label, name in enumerate(dataset.classes, 1):
        change[label] = order.get(name, 0)
    by_name = {record.name.rsplit("/", 1)[-1]: record for record in dataset.records}
    count = 0
    for name, ids in truth.items():
        mask = by_name[name].mask
        found = change[mask.load(*ids.shape)] if mask else np.zeros_like(ids)
        count += int((found != np.where(ids == IGNORE, 0, ids)).sum())
    return count


def main() -> None:
    tools = os.environ.get("TAGMASK_TOOLS") or sys.exit(f"TAGMASK_TOOLS names no Python\n\n{__doc__}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        truth = synthetic_masks(place)
        pixels = sum(ids.size for ids in truth.values())
        formats = ("coco", "coco-polygons", "label-studio", "cvat", "yolo", "voc")
        for format in formats:
            export_masks(place / "masks", place / "photos", place / format, format=format)
        subprocess.run(
            [sys.executable, "-m", "zipfile", "-e", place / "cvat/segmentation_mask_1.1.zip", place / "cvat-unpacked"],
            check=True,
        )
        done = subprocess.run([tools, "-c", READ, place], stdout=subprocess.PIPE, text=True, check=True)
        theirs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        ours = {
            f"{format}: tagmask": differing(place / format, truth, place / "photos")
            for format in ("coco", "coco-polygons", "yolo", "voc")
        }
        ours["CVAT Segmentation mask 1.1: tagmask"] = differing(place / "cvat-unpacked", truth, place / "photos")
        ours["label-studio-sdk writes: tagmask"] = differing(place / "studio-writes", truth, place / "photos")
        for label, (kind, words) in CONVERTED.items():
            out = place / f"datumaro-{kind}"
            command = [Path(tools).with_name("datum"), "convert", "-i", place / "voc", "-if", "voc_segmentation"]
            subprocess.run(
                [*command, "-f", kind, "-o", out, "--", "--save-media", *words], check=True, stdout=subprocess.DEVNULL
            )
            ours[f"Datumaro writes {label}: tagmask"] = differing(out, truth, place / "photos")
    rows = {
        name: {"pixels": count, "share": round(count / pixels, 5)} for name, count in (theirs["rows"] | ours).items()
    }
    for label, row in rows.items():
        print(f"{label:45} {row['pixels']:8} of {pixels}  {100 * row['share']:.2f} %")
    write_results("round_trips", {"images": IMAGES, "pixels": pixels, "rows": rows, "versions": theirs["versions"]})


if __name__ == "__main__":
    main()
