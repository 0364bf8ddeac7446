"""MobileNetV2 on a CPU: channels last or first, freed memory kept or given back, beside one another.

Seconds of one core an image, forward (16 images of 384, as CAMs take them) and forward and backward (8 of 256).

    make bench NAME=convolutions
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from common import device_facts, write_results

from tagmask.engine.device import keep_freed_memory
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import BackboneConfig

CASES = [(layout, kept) for layout in ("first", "last") for kept in ("given_back", "kept")]


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure(layout: str, kept: str) -> dict[str, float]:
    torch.set_num_threads(1)
    if kept == "kept":
        assert keep_freed_memory()
    backbone = Backbone(BackboneConfig(name="mobilenetv2_100", options={"pad_type": "same"}, freeze_norm=True)).train()
    if layout == "first":
        backbone.network.to(memory_format=torch.contiguous_format)
    wide, narrow = torch.randn(16, 3, 384, 384), torch.randn(8, 3, 256, 256)
    with torch.no_grad():
        forward = seconds(lambda: backbone(wide)) / len(wide)
    return {
        "forward_s": round(forward, 4),
        "step_s": round(seconds(lambda: backbone(narrow).patches.sum().backward()) / len(narrow), 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("LAYOUT", "KEPT"), help="a single case, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        sys.exit()
    results = {}
    for layout, kept in CASES:
        command = [sys.executable, __file__, "--one", layout, kept]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
        results[f"channels_{layout}_memory_{kept}"] = json.loads(line)
    write_results("convolutions", {**results, **device_facts(), "clock": "seconds of one core"})
