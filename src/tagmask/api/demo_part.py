"""One method's part of the demonstration, in a process of its own: `python -m tagmask.api.demo_part`.

Two networks this small train side by side, a core each, in about half the time that they take one after the other:
shared out over two cores, their products are too short.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

import torch

from tagmask.api import evaluate_cams, evaluate_method, label, load, open_data, train
from tagmask.data.files import write_text
from tagmask.errors import TagmaskError
from tagmask.evaluation.report.costs import recorded_scores
from tagmask.evaluation.tables import to_json
from tagmask.recipes.load import load_recipe

SCORES = "scores.json"
"""What a part leaves last: the scores of its decoder and of its CAMs."""


def train_and_score(data: Path, run: Path, name: str, seed: int) -> None:
    """Train a method on the demonstration's set, score it on the test split, and write masks of the validation split.

    What is done is not done again.

    Args:
        data: the synthetic set.
        run: the run folder to make.
        name: of the method.
        seed: of the training.
    """
    train(data, recipe=f"{name}/demo", output=run, overrides=[f"training.seed={seed}"])
    # A training leaves scores of its decoder alone.
    if any(own.conditions.source == "cam" for own in recorded_scores(run)):
        return
    model = load(run)
    recipe = load_recipe(run / "recipe.yaml")
    held_out = open_data(data, recipe.data).split(["test"])
    decoder = evaluate_method(model.method, held_out, recipe.inference, source="decoder")
    cams, _ = evaluate_cams(model.method, held_out, recipe.inference)
    # Masks to look at: those of all training images would take two thirds of the time after training.
    label(run, data, output=run / "masks", split=["val"])
    write_text(run / SCORES, json.dumps({"decoder": to_json(decoder), "cam": to_json(cams)}, indent=1) + "\n")


def main(data: str, run: str, name: str, seed: str, threads: str, nice: str) -> None:
    """Wait for a byte from the process that started this one, which says that the set is made, and do the part.

    It ends when that process does: its end of the pipe is then closed.
    """
    # The pipe is read without sys.stdin, whose lock the loader's processes would find taken for ever.
    if not os.read(0, 1):
        return
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(int(nice))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(int(threads))
    try:
        train_and_score(Path(data), Path(run), name, int(seed))
    except TagmaskError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
