"""What this machine can do: its device and memory, a network's speed on it, and whether weights can be had."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

import torch

from tagmask.engine.device import default_device, machine_memory
from tagmask.models.backbone import Backbone
from tagmask.models.weight_files import HUB_PATIENCE
from tagmask.recipes.load import BackboneConfig

Weights = Literal["cached", "reachable", "missing"]

GB = 2**30


@dataclass(frozen=True)
class Machine:
    """The machine that trains, as far as the choice depends on it.

    Attributes:
        cuda: whether training runs on a GPU.
        memory: of the device that trains, in bytes.
        cores: of the CPU.
    """

    cuda: bool
    memory: int
    cores: int


def this_machine() -> Machine:
    """Return what there is to train on here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if default_device().type == "cuda":
        return Machine(True, torch.cuda.get_device_properties(0).total_memory, cores)
    return Machine(False, machine_memory(), cores)


def find_weights(name: str, *, ask_hub: bool = True) -> Weights:
    """Find out whether a hub name's weights are in the cache, or else whether the hub answers within a few seconds."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    repository = name.split(":", 1)[-1]
    if isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return "cached"
    if HF_HUB_OFFLINE or not ask_hub:
        return "missing"
    try:
        get_hf_file_metadata(hf_hub_url(repository, "model.safetensors"), timeout=HUB_PATIENCE, token=False)
    except Exception:  # whatever keeps the hub from answering, the answer is the same
        return "missing"
    return "reachable"


def time_forward(config: BackboneConfig, side: int) -> float:
    """Time a forward pass of one square image, in seconds, on the device that would train; weights do not matter.

    In fp32: what bf16 saves where the machine multiplies it depends on the network, and a promise had better be kept.
    """
    device = default_device()
    backbone = Backbone(config.model_copy(update={"weights": None})).to(device).eval()
    image = torch.zeros(1, 3, side, side, device=device)
    with torch.no_grad():
        backbone(image)
        return min(_seconds(backbone, image) for _ in range(3))  # the others met what else the machine does


def _seconds(backbone: Backbone, image: torch.Tensor) -> float:
    start = time.perf_counter()
    backbone(image).patches.sum().item()
    return time.perf_counter() - start


def in_words(seconds: float) -> str:
    """Say a time as a person would."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return "a minute or two" if seconds >= 30 else "less than a minute"
