"""The demonstration over seeds: mIoU and confusion ratio of plain CAM and SeCo, means and each seed.

make bench NAME=demo            # seeds 0, 1, 2
make bench NAME=demo ARGS="--seeds 0 --output runs/demo"
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from common import device_facts, write_results

from tagmask.api.demo import demo

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", default="seco")
    parser.add_argument("--output", type=Path, default=Path("runs/bench-demo"))
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        start = time.perf_counter()
        demo(arguments.output, method=arguments.method, seed=seed)
        row: dict[str, object] = {"seed": seed, "seconds": round(time.perf_counter() - start)}
        for name in ("cam", arguments.method):
            scores = json.loads((arguments.output / f"seed{seed}" / name / "scores.json").read_text())
            for source in ("decoder", "cam"):
                row[f"{name}_{source}_miou"] = round(100 * scores[source]["miou"], 2)
                row[f"{name}_{source}_confusion_ratio"] = round(scores[source]["mean_confusion_ratio"], 3)
                row[f"{name}_{source}_unbounded"] = scores[source]["unbounded"]
        rows.append(row)
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    means = {key: round(statistics.mean(row[key] for row in rows), 3) for key in numbers}  # pyright: ignore
    write_results(f"demo-{arguments.method}", {"means": means, "seeds": rows, **device_facts()})
