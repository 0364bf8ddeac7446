"""What two processes train, one training after the other; run by `test_processes.py` under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import tagmask
from tagmask.api import open_data
from tagmask.data import cam_files, label_maps
from tagmask.engine import loop, refine_folder
from tagmask.engine.processes import together
from tagmask.ops.distributed import world
from tagmask.recipes.load import DataConfig, load_recipe
from tests.engine.failing import killed_recipe, train_and_die
from tests.engine.trainings import STEPS, train, trainings


def note_who_writes(folder: Path) -> None:
    """Have each file of CAMs and each mask written down, with the process that writes it."""

    def noted(write):
        def note(path, *rest):
            with (folder / f"written-{world()[0]}").open("a") as file:
                file.write(f"{path.relative_to(folder)}\n")
            write(path, *rest)

        return note

    refine_folder.write_cams = noted(cam_files.write_cams)
    refine_folder.write_label_map = noted(label_maps.write_label_map)


def main(data: Path, output: Path) -> None:
    torch.set_num_threads(1)
    loop.has_tensorboard = lambda: False  # its import takes seconds
    dataset = open_data(data, DataConfig())
    with together():
        for name, training in trainings().items():
            method = train(training, dataset, output / f"{name}-2", devices=2)
            torch.save(method.state_dict(), output / f"{name}-2-{world()[0]}.pt")
            if (output / f"{name}-1-2").exists():
                train(training, dataset, output / f"{name}-1-2", devices=2)
                train(training, dataset, output / f"{name}-2-1", devices=2, stop=STEPS // 2)
    note_who_writes(output)
    for recipe in sorted(output.glob("*.yaml")):
        tagmask.train(recipe=load_recipe(recipe), output=output / f"{recipe.stem}-2")
    (output / f"done-{world()[0]}").touch()
    train_and_die(data, killed_recipe(), output / "killed", victim=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
