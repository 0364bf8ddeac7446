"""The verb `doctor`: what this machine has, and what is missing for which part of tagmask."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec

import torch

from tagmask.api.machine import GB, find_weights, this_machine
from tagmask.engine.device import has_bf16_units
from tagmask.models.weights import WEIGHTS, is_on_hub

EXTRAS = {
    "web": "the page (tagmask serve)",
    "onnx": "ONNX files (tagmask export onnx)",
    "hf": "parquet files",
    "coco": "polygons and run-length codes of COCO files",
    "geo": "GeoTIFF in parts, masks that keep their place on the map",
    "slides": "whole slides",
    "tensorboard": "curves of a training while it runs",
    "tags": "tags from the names of classes (tagmask tags)",
    "ray": "labelling by many workers (--engine ray)",
}
"""What each extra is for; all but `crf`, which only checks our own dense CRF, and what develops tagmask."""
SHOWN = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "Pillow")


def look_around() -> list[str]:
    """Describe the machine, a fact a line: versions, device, precision, extras, cached weights."""
    machine = this_machine()
    device = torch.cuda.get_device_name(0) if machine.cuda else f"no GPU; {machine.cores} cores"
    fast = has_bf16_units("cuda" if machine.cuda else "cpu")
    lines = [
        f"tagmask {version('tagmask')}, Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {version(name)}" for name in SHOWN),
        f"device: {device}, {machine.memory / GB:.0f} GB of memory",
        f"training.precision=auto takes {'bf16' if fast else 'fp32'} here",
    ]
    for extra, what in EXTRAS.items():
        missing = [name for name in _requirements(extra) if not _installed(name)]
        lines.append(
            f"extra {extra}: {what}: "
            + (f"missing {', '.join(missing)}: pip install 'tagmask[{extra}]'" if missing else "installed")
        )
    names = sorted({weights.name for weights in WEIGHTS if is_on_hub(weights.name)})
    cached = [name for name in names if find_weights(name, ask_hub=False) == "cached"]
    lines.append(f"pretrained weights in the cache: {', '.join(cached) or 'none; they are downloaded when first used'}")
    if os.environ.get("HF_HUB_OFFLINE"):
        lines.append("HF_HUB_OFFLINE is set: nothing is downloaded from the hub")
    return lines


def _requirements(extra: str) -> list[str]:
    """Name the packages of an extra, as the installed tagmask lists them."""
    wanted = distribution("tagmask").requires or []
    return [re.split(r"[<>=!~;\[ ]", text)[0] for text in wanted if re.search(rf"extra == ['\"]{extra}['\"]", text)]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return find_spec(name.replace("-", "_")) is not None
    return True
