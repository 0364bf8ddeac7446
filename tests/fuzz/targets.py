"""Everything that reads a file of somebody else's: how it is called, whole files to begin with, and how to spoil them.

Both the tests (`test_fuzz.py`, quick) and `benchmarks/fuzz.py` (long) take their inputs from here.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from tagmask.data.cam_files import read_cams
from tagmask.data.confidence import read_confidence
from tagmask.data.dataset import listed_classes
from tagmask.data.images import open_image
from tagmask.data.ledger import Ledger
from tagmask.data.masks import PngMask
from tagmask.data.readers import read_dataset
from tagmask.data.writers.output import check_free
from tagmask.engine.checkpoint import read_training_state
from tagmask.engine.run import open_run
from tagmask.engine.stage import read_costs
from tagmask.errors import TagmaskError
from tagmask.evaluation.report.costs import read_metrics, recorded_scores
from tagmask.models.weight_files import read_state
from tagmask.recipes.load import load_recipe

CORPUS = Path(__file__).with_name("corpus")
SECONDS, BYTES, MESSAGE = 5.0, 1 << 30, 20_000
"""What an input may take at most; of the processor, so that a busy machine finds nothing."""


@dataclass(frozen=True)
class Target:
    """Something that reads a file.

    Attributes:
        name: of the file.
        read: called with the folder that the file lies in.
        whole: contents to begin with.
        beside: other files of the folder.
    """

    name: str
    read: Callable[[Path], object]
    whole: tuple[bytes, ...]
    beside: dict[str, bytes]


@dataclass(frozen=True)
class Finding:
    """An input that did something else than be read or be refused by a TagmaskError."""

    target: str
    what: str


def _image(mode: str = "RGB", format: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, format)
    return buffer.getvalue()


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _array(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _npy(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


def _dataset(name: str) -> Callable[[Path], object]:
    return lambda folder: read_dataset(folder / name if name else folder)


PICTURES = {"a.png": _image(), "b.png": _image(), "sub/c.png": _image()}
TENSORS = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)}
RECIPE = b"""method: {name: seco, scales: [1.0, 0.5], queue: 8}
data: {path: photos, classes: [cat, dog], background: true}
views: {crop: 64, scale: [0.5, 2.0]}
backbone: {name: vit_tiny_patch16_224, options: {img_size: 64, patch_size: 8, depth: 3}}
training: {steps: 10, batch: 2}
refine: {name: crf, band: [3, 12]}
segmenter: {start: classifier}
"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 4]], "bbox": [0, 0, 4, 4]},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": {"size": [6, 8], "counts": [10, 5, 33]}},
        {"id": 3, "image_id": 1, "category_id": 3, "segmentation": {"size": [6, 8], "counts": "04"}, "iscrowd": 1},
    ],
    "categories": [{"id": 3, "name": "cat"}],
}
STUDIO = [
    {
        "data": {"image": "/data/local-files/?d=sub/c.png"},
        "annotations": [
            {"result": [{"type": "choices", "from_name": "t", "to_name": "i", "value": {"choices": ["cat"]}}]}
        ],
    }
]
CVAT = b"""<?xml version="1.0"?><annotations><meta><job><labels><label><name>cat</name></label></labels></job></meta>
<image id="0" name="a.png" width="8" height="6" subset="train"><tag label="cat"/>
<mask label="cat" rle="3, 4, 5" left="1" top="1" width="3" height="4"/></image></annotations>"""
VOC = (
    b"""<annotation><filename>a.png</filename><object><name>cat</name><difficult>0</difficult></object></annotation>"""
)

TARGETS: dict[str, Target] = {
    "table": Target(
        "tags.csv", _dataset("tags.csv"), (b"image,tags,split\na.png,cat;dog,train\nb.png,~cat,\n",), PICTURES
    ),
    "json lines": Target("tags.jsonl", _dataset("tags.jsonl"), (b'{"image": "a.png", "tags": ["cat"]}\n',), PICTURES),
    "coco": Target("coco.json", _dataset("coco.json"), (_text(COCO),), PICTURES),
    "label studio": Target("export.json", _dataset("export.json"), (_text(STUDIO),), PICTURES),
    "cvat": Target("annotations.xml", _dataset("annotations.xml"), (CVAT,), PICTURES),
    "voc": Target(
        "Annotations/a.xml",
        _dataset(""),
        (VOC,),
        {"JPEGImages/a.jpg": _image(format="JPEG"), "ImageSets/Main/train.txt": b"a\n"},
    ),
    "yolo": Target(
        "data.yaml",
        _dataset("data.yaml"),
        (b"path: .\ntrain: images/train\nnames: {0: cat, 1: dog}\n",),
        {"images/train/a.png": _image(), "labels/train/a.txt": b"0 0.5 0.5 0.2 0.2\n"},
    ),
    "yolo labels": Target(
        "labels/train/a.txt",
        _dataset("data.yaml"),
        (b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.4 0.1 0.4 0.4\n",),
        {"images/train/a.png": _image(), "data.yaml": b"path: .\ntrain: images/train\nnames: [cat, dog]\n"},
    ),
    "image folder": Target(
        "metadata.csv", _dataset("metadata.csv"), (b"file_name,label\na.png,cat\nb.png,dog\n",), PICTURES
    ),
    "cls_labels": Target(
        "cls_labels.npy",
        _dataset("cls_labels.npy"),
        (_npy({"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}),),
        {**PICTURES, "classes.txt": b"cat\ndog\n"},
    ),
    "class list": Target("classes.txt", lambda folder: listed_classes(folder / "classes.txt"), (b"cat\ndog\n",), {}),
    "image": Target(
        "a.png",
        lambda folder: open_image(folder / "a.png"),
        tuple(
            _image(mode, form)
            for mode, form in (
                ("RGB", "PNG"),
                ("RGB", "JPEG"),
                ("L", "TIFF"),
                ("P", "GIF"),
                ("RGB", "BMP"),
                ("RGB", "WEBP"),
                ("I;16", "PNG"),
            )
        ),
        {},
    ),
    "mask": Target(
        "a.png", lambda folder: PngMask(folder / "a.png", {0: 0, 1: 1}).load(6, 8), (_image("L"), _image("P")), {}
    ),
    "cams": Target(
        "a.npz",
        lambda folder: read_cams(folder / "a.npz"),
        (_array(cams=np.full((2, 3, 4), 0.5, np.float16), ids=np.array([1, 2])),),
        {},
    ),
    "confidence": Target(
        "confidence.csv",
        lambda folder: read_confidence(folder / "confidence.csv"),
        (b"image,confidence,classes\na,0.5,cat;dog\n",),
        {},
    ),
    "recipe": Target("recipe.yaml", lambda folder: load_recipe(folder / "recipe.yaml").dump(), (RECIPE,), {}),
    "override": Target(
        "override",
        lambda folder: _override(folder / "override"),
        (b"optimizer.lr=1e-4", b"inference.scales=[1.0, 1.5]", b"backbone.options={depth: 3}", b"data.classes=[a, b]"),
        {},
    ),
    "weights": Target(
        "w.pth", lambda folder: read_state(folder / "w.pth"), (_saved(TENSORS), _saved({"state_dict": TENSORS})), {}
    ),
    "safetensors": Target(
        "w.safetensors", lambda folder: read_state(folder / "w.safetensors"), (safetensors_bytes(TENSORS),), {}
    ),
    "state": Target(
        "training_state.pt",
        lambda folder: read_training_state(folder / "training_state.pt"),
        (_saved({"step": 1, "method": TENSORS, "optimizer": {}, "random": torch.get_rng_state()}),),
        {},
    ),
    "run": Target(
        "run.json",
        open_run,
        (b'{"format": 1, "tagmask": "0.1.0", "training": "ab"}',),
        {"recipe.yaml": RECIPE, "classes.txt": b"cat\ndog\n"},
    ),
    "log": Target("metrics.jsonl", read_metrics, (b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n',), {}),
    "costs": Target("stages.json", read_costs, (b'{"cams": {"seconds": 1.5, "bytes": 10, "done": true}}',), {}),
    "scores": Target(
        "scores.json",
        recorded_scores,
        (b'{"protocol": "seco", "conditions": {}, "miou": 0.5, "mean_confusion_ratio": 1.5, "images": 3}',),
        {},
    ),
    "ledger": Target(
        "written.jsonl",
        lambda folder: Ledger(folder).owns(folder / "a.png"),
        (b'["a.png", "00"]\n',),
        {"a.png": _image("L")},
    ),
    "export mark": Target(
        "tagmask-export.json",
        check_free,
        (b'{"tagmask": "0.1.0", "format": "voc", "files": {"a.png": "00"}}',),
        {"a.png": _image()},
    ),
}


def _override(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None  # no shell gives such an argument as text
    return load_recipe("cam/demo", [text])


HURTFUL: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\n",
        b"\r",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"../",
        b"/etc/passwd",
        b"=1+1",
        b"[/old]",
        b'"',
        b"'",
    ),
    *(
        b"[" * 2000,
        b"{" * 2000,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
    ),
    *(
        b"a" * 5000,
        b"&a [*a]",
        b"!!python/object/apply:os.system [id]",
        b'<!ENTITY a "b">',
        b"%s%n",
        b";;",
        b",",
        b":",
        b"~",
    ),
    *(b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"),
)
"""What files have been found to stumble over."""


def seeds(name: str) -> list[bytes]:
    """Return the whole files of a target, and the inputs of its corpus that were once findings."""
    kept = sorted(CORPUS.glob(f"{name.replace(' ', '_')}-*"))
    return [*TARGETS[name].whole, *(path.read_bytes() for path in kept)]


def mutated(name: str, random_: random.Random) -> bytes:
    """Spoil one of the target's files: bytes flipped, cut out, doubled, put in, or a word exchanged for another."""
    content = bytearray(random_.choice(seeds(name)))
    for _ in range(random_.choice((1, 1, 1, 2, 3, 5))):
        place = random_.randrange(len(content) + 1)
        end = min(len(content), place + random_.choice((1, 2, 4, 16, 64)))
        match random_.randrange(7):
            case 0 if content:
                content[place % len(content)] ^= 1 << random_.randrange(8)
            case 1:
                del content[place:end]
            case 2:
                content[place:place] = content[place:end]
            case 3:
                content[place:place] = random_.choice(HURTFUL)
            case 4:
                content[place:end] = random_.choice(HURTFUL)
            case 5:
                content = content[:place]
            case _:
                content[place:end] = random_.randbytes(end - place)
    if content[:2] == b"PK" and random_.random() < 0.3:
        return _inside_zip(bytes(content), random_)
    return bytes(content)


def _inside_zip(content: bytes, random_: random.Random) -> bytes:
    """Spoil a member of an archive and write it anew, so that its checksum is right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return content
    if not members:
        return content
    own = random_.choice(sorted(members))
    data = bytearray(members[own])
    place = random_.randrange(len(data) + 1)
    data[place : place + 4] = random_.choice(HURTFUL)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, value in members.items():
            archive.writestr(member, bytes(data) if member == own else value)
    return buffer.getvalue()


def try_input(name: str, content: bytes, temporary: Path) -> tuple[Finding | None, float]:
    """Let a target read a file of this content, and say what was wrong about that, and the seconds it took."""
    target, folder = TARGETS[name], temporary / "folder"
    if folder.exists():
        shutil.rmtree(folder)
    for other, data in {**target.beside, target.name: content}.items():
        path = folder / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    what = None
    try:
        target.read(folder)
    except TagmaskError as error:
        if len(str(error)) > MESSAGE:
            what = f"a message of {len(str(error))} characters"
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
    seconds = time.process_time() - begin
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if what is None and seconds > SECONDS:
        what = f"{seconds:.1f} seconds"
    if what is None and grown > BYTES:
        what = f"{grown / 1e9:.1f} GB"
    return (None if what is None else Finding(name, what)), seconds
