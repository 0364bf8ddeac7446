"""What of SeCo brings the demonstration's gain: the demonstration's training with one part of it taken away at a time.

And what bf16 changes: `seco` and `cam` are the recipes as they stand, in training bf16 where the machine multiplies it.
A variant measured before keeps its row where it is not asked for.

make bench NAME=demo_ablation                      # seed 0; needs no demonstration made before
make bench NAME=demo_ablation ARGS="--seeds 0 1 2 --variants fp32 bf16"
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import RESULTS, device_facts, write_results

from tagmask.api import demo as demonstration
from tagmask.api import evaluate, train
from tagmask.data.synthetic import make_cooccur

VARIANTS = {
    "seco": (),
    "fp32": ("training.precision=32-true",),
    "cam": (),
    "cam fp32": ("training.precision=32-true",),
    "bf16": ("training.precision=bf16-mixed", "inference.precision=bf16-mixed"),
    "no contrast": ("method.lil_weight=0", "method.lig_weight=0"),
    "no token contrast": ("method.ptc_weight=0",),
    "masks of the last CAM": ("method.pseudo_mask_last_from=0",),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=Path("runs/bench-demo"))
    arguments = parser.parse_args()
    path = RESULTS / "demo_ablation.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    for variant in arguments.variants:
        overrides = VARIANTS[variant]
        found = []
        for seed in arguments.seeds:
            data = arguments.output / f"seed{seed}" / "data"
            if not (data / "tags.csv").exists():
                images, size, meet, alone = (getattr(demonstration, k) for k in ("IMAGES", "SIZE", "MEET", "ALONE"))
                make_cooccur(data, images=images, size=size, meet=meet, alone=alone, seed=seed)
            # The whole method is the demonstration's own run, where it has been made.
            method = "cam" if variant.startswith("cam") else "seco"
            output = arguments.output / f"seed{seed}" / "-".join([method, *overrides]).replace("method.", "")
            run = train(data, recipe=f"{method}/demo", output=output, overrides=[f"training.seed={seed}", *overrides])
            scores = evaluate(run, split=["test"])[0].scores
            found.append((100 * scores.miou, scores.mean_confusion_ratio))
        miou, ratio = (round(statistics.mean(values), 2) for values in zip(*found, strict=True))
        row = {"variant": variant, "decoder_miou": miou, "decoder_confusion_ratio": ratio}
        row["seeds"] = {str(seed): round(own, 2) for seed, (own, _) in zip(arguments.seeds, found, strict=True)}
        rows = [old for old in rows if old["variant"] != variant] + [row]
        write_results("demo_ablation", {"rows": rows, **device_facts()})
