"""What of SeCo brings the demonstration's gain: the demonstration's training with one part of it taken away at a time.

make bench NAME=demo_ablation                      # seed 0; needs no demonstration made before
make bench NAME=demo_ablation ARGS="--seeds 0 1 2"
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from common import device_facts, write_results

from tagmask import demonstration
from tagmask.api import evaluate, train
from tagmask.data.synthetic import make_cooccur

VARIANTS = {
    "seco": (),
    "no contrast (LIL, LIG)": ("method.lil_weight=0", "method.lig_weight=0"),
    "no token contrast (PTC)": ("method.ptc_weight=0",),
    "pseudo masks of the last CAM": ("method.pseudo_mask_last_from=0",),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/bench-demo"))
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for variant, overrides in VARIANTS.items():
        found = []
        for seed in arguments.seeds:
            data = arguments.output / f"seed{seed}" / "data"
            if not (data / "tags.csv").exists():
                images, size, meet, alone = (getattr(demonstration, k) for k in ("IMAGES", "SIZE", "MEET", "ALONE"))
                make_cooccur(data, images=images, size=size, meet=meet, alone=alone, seed=seed)
            # The whole method is the demonstration's own run, where it has been made.
            name = variant if not overrides else "-".join(overrides).replace("method.", "")
            output = arguments.output / f"seed{seed}" / name
            run = train(data, recipe="seco/demo", output=output, overrides=[f"training.seed={seed}", *overrides])
            scores = evaluate(run, split=["test"])[0].scores
            found.append((100 * scores.miou, scores.mean_confusion_ratio))
        miou, ratio = (round(statistics.mean(values), 2) for values in zip(*found, strict=True))
        rows.append({"variant": variant, "seeds": len(found), "decoder_miou": miou, "decoder_confusion_ratio": ratio})
        write_results("demo_ablation", {"rows": rows, **device_facts()})
