"""Layouts of other tools that tagmask does not read: what they are, and the command that converts them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Layout(NamedTuple):
    """A layout, told by files that it has.

    Attributes:
        name: of the format or tool.
        patterns: globs in the folder, each of which has to find a file.
        mend: the name that Datumaro has for it, or a sentence where Datumaro does not read it.
    """

    name: str
    patterns: tuple[str, ...]
    mend: str


LAYOUTS = (
    Layout("COCO panoptic", ("annotations/panoptic_*.json",), "coco_panoptic"),
    Layout("COCO stuff", ("annotations/stuff_*.json",), "coco_stuff"),
    Layout("COCO keypoints", ("annotations/person_keypoints_*.json",), "coco_person_keypoints"),
    Layout("COCO captions", ("annotations/captions_*.json",), "captions hold no tags; take its instances_*.json"),
    Layout("Open Images", ("annotations/*class-descriptions*.csv",), "open_images"),
    Layout("Open Images", ("annotations/*-annotations-*.csv",), "open_images"),
    Layout("VoTT (JSON)", ("*-export.json",), "vott_json"),
    Layout("VoTT (CSV)", ("*-export.csv",), "vott_csv"),
    Layout("Darknet YOLO", ("obj.names", "obj.data"), "yolo"),
    Layout("LabelMe 3.0 (XML)", ("Images", "Annotations/**/*.xml"), "label_me"),
    Layout("CamVid", ("label_colors.txt", "*annot/"), "camvid"),
    Layout("KITTI segmentation", ("*/image_2", "*/semantic"), "kitti_segmentation"),
    Layout("Cityscapes", ("gtFine", "leftImg8bit"), "cityscapes"),
    Layout("Datumaro", ("annotations/*.json", "images"), "datumaro"),
    Layout("Roboflow COCO", ("*/_annotations.coco.json",), "roboflow_coco"),
    Layout(
        "Roboflow semantic segmentation",
        ("*/_classes.csv", "*/*_mask.png"),
        "download it again as *COCO Segmentation*, which Datumaro converts",
    ),
    Layout("Roboflow multi-label", ("*/_classes.csv",), "name the _classes.csv of one split"),
    Layout("Roboflow CSV", ("*/_annotations.csv",), "download it again as *YOLOv8*, which is read as it is"),
    Layout("Roboflow Pascal VOC", ("README.roboflow.txt", "*/*.xml"), "download it again as *YOLOv8*, which is read"),
    Layout(
        "Supervisely",
        ("meta.json", "*/ann/*.json"),
        "export it from Supervisely as COCO or Pascal VOC",
    ),
    Layout("VIA", ("via_*.json",), "export it from VIA as *COCO format*, and name that file"),
)
"""In the order in which they are looked for: those that others would be taken for come later."""
COLUMNS = {
    "annotation_id": "is Label Studio's CSV, which tagmask does not read; export the project as *JSON*",
    "region_shape_attributes": "is VIA's CSV, which tagmask does not read; export the project as *COCO format*",
}
"""Tables of other tools, by a column that only they have: what they are, and what to do."""
BESIDE = {
    ".txt": "in Darknet's form; move the images to images/, the .txt files to labels/, and write the names of the"
    " classes in the order of their numbers into classes.txt",
    ".xml": "in Pascal VOC's form; move the images to JPEGImages/, the .xml files to Annotations/, and write the names"
    " of the classes into classes.txt",
}
"""Files that lie beside images of the same names, by their suffix: what they are, and how to lay them out."""


def foreign(folder: Path) -> str | None:
    """Say which other tool's layout a folder has, and how to convert it; None where it has none of them."""
    for name, patterns, mend in LAYOUTS:
        if all(next(folder.glob(pattern), None) is not None for pattern in patterns):
            if " " not in mend:
                mend = (
                    f"convert it by Datumaro (pip install 'datumaro[cli]'; datum convert -i '{folder}' -if {mend}"
                    " -f coco_instances -o coco -- --save-media --segmentation-mode mask), and name the folder coco"
                )
            return f"{folder}: is {name}, which tagmask does not read; {mend}"
    return None
