"""Label Studio tasks with brush predictions, for people to correct."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np

from tagmask.data.files import write_text
from tagmask.data.label_maps import classes_in, voc_palette
from tagmask.data.writers.labelled import LabelledImage
from tagmask.ops.label_ids import IGNORE

CONTROL, PICTURE = "tag", "image"
LOCAL_FILES = "/data/local-files/?d="
RUN_BITS = np.array([3, 4, 8, 16])


def write_label_studio(
    folder: Path,
    images: Iterable[LabelledImage],
    classes: Sequence[str],
    *,
    image_url: str,
    model_version: str = "tagmask",
) -> None:
    """Write `tasks.json`, a prediction an image with a brush region a class, and `label_config.xml` of the project.

    Args:
        folder: to write to.
        images: with their label maps; their confidence is the predictions' score.
        classes: names in id order.
        image_url: what stands before the file name in a task's address.
        model_version: under which Label Studio lists the predictions.

    Source: Label Studio, "Import pre-annotated data", "Import brush segmentation pre-annotations in RLE format".
    """
    tasks = [_task(image, classes, image_url, model_version) for image in images]
    write_text(folder / "tasks.json", json.dumps(tasks, ensure_ascii=False))
    config = ElementTree(_config(classes))
    indent(config)
    config.write(folder / "label_config.xml", encoding="utf-8")


def local_files(folder: Path) -> tuple[str, str]:
    """Return the `image_url` of a folder that Label Studio serves itself, and in words how to make it do so.

    Its local files storage takes only a folder below the document root, not the root itself.
    """
    place = folder.resolve()
    return f"{LOCAL_FILES}{quote(place.name)}/", (
        "Label Studio finds the photographs if it is started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and"
        f" LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={place.parent}, and {place} is added to the project as local files"
        " storage; for photographs elsewhere give --image-url"
    )


def brush_code(inside: np.ndarray) -> list[int]:
    """Encode a brush region, (h, w) bool, by run lengths, as a list of bytes.

    Before it is coded, a pixel becomes four equal bytes, 255 inside and 0 outside. The code begins with 32 bits for the
    number of bytes, 5 for their width less one and four times 4 for the widths, less one, of run lengths. A run is then
    the bit 1, 2 bits that choose a width, the run's length less one in that width, and the byte.

    Source: the RLE pack format of @thi.ng/rle-pack, which Label Studio's brush uses.
    """
    pixels = inside.ravel()
    borders = np.flatnonzero(np.diff(pixels)) + 1
    starts = np.r_[0, borders]
    lengths = 4 * np.diff(np.r_[starts, pixels.size])
    longest = 1 << int(RUN_BITS[-1])
    pieces = -(-lengths // longest)
    values = np.repeat(np.where(pixels[starts], 255, 0), pieces)
    runs = np.full(len(values), longest)
    runs[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    width = np.searchsorted(1 << RUN_BITS, runs)
    bits = RUN_BITS[width]
    words = ((4 + width) << bits | (runs - 1)) << 8 | values
    header = [(4 * pixels.size, 32), (7, 5), *((int(size) - 1, 4) for size in RUN_BITS)]
    head = [int(bit) for value, size in header for bit in f"{value:0{size}b}"]
    return np.packbits(np.r_[np.array(head, dtype=bool), _joined(words, 3 + bits + 8)]).tolist()


def _joined(words: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Join the last `sizes` bits of each word, highest first, into one (N,) bool array."""
    places = np.arange(sizes.max())[::-1]
    return ((words[:, None] >> places) & 1).astype(bool)[places < sizes[:, None]]


def brush_regions(
    labels: np.ndarray, classes: Sequence[str], *, control: str = CONTROL, picture: str = PICTURE
) -> list[dict[str, Any]]:
    """Make the `result` of a prediction: a brush region for each class in a label map.

    Args:
        labels: (h, w): 0 background, 1..K, 255 ignored, which is left out.
        classes: names in id order.
        control, picture: names of the brush and of the image in the project's labelling interface.

    Source: Label Studio, "Import brush segmentation pre-annotations in RLE format".
    """
    height, width = labels.shape
    return [
        {
            # Label Studio cuts an id at the first "#", and takes regions of one id for one.
            "id": f"class-{label}",
            "type": "brushlabels",
            "from_name": control,
            "to_name": picture,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_code(labels == label), "brushlabels": [classes[label - 1]]},
        }
        for label in classes_in(labels, len(classes))
    ]


def _task(image: LabelledImage, classes: Sequence[str], image_url: str, model_version: str) -> dict[str, Any]:
    """Make an image's task, with a prediction that holds a brush region for each class in its mask."""
    result = brush_regions(image.labels, classes)
    prediction: dict[str, Any] = {"model_version": model_version, "result": result}
    if image.confidence is not None:
        prediction["score"] = image.confidence
    return {"data": {PICTURE: image_url + quote(image.file_name)}, "predictions": [prediction]}


def _config(classes: Sequence[str]) -> Element:
    """Make the labelling interface of the project: a brush of each class over the image."""
    view = Element("View")
    SubElement(view, "Image", name=PICTURE, value=f"${PICTURE}", zoom="true")
    labels = SubElement(view, "BrushLabels", name=CONTROL, toName=PICTURE)
    palette = voc_palette()[1:IGNORE].tolist()
    for name, (red, green, blue) in zip(classes, cycle(palette), strict=False):
        SubElement(labels, "Label", value=name, background=f"#{red:02x}{green:02x}{blue:02x}")
    return view
