"""Ten steps of SeCo as one of several processes; run by test_loop.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tagmask.api import open_data
from tagmask.data.views import BatchPositions, TrainingViews, training_loader
from tagmask.engine.loop import make_fabric
from tagmask.engine.optim import build_optimizer, set_lr
from tagmask.methods.registry import build_method
from tagmask.recipes.load import DataConfig
from tests.conftest import tiny_recipe

data, output, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
recipe = tiny_recipe(
    "seco",
    "training.steps=10",
    f"training.devices={processes}",
    "method.patches=2",
    "optimizer.lr=1e-4",
    "training.precision=32-true",  # sums over half a batch come near those over a whole one
)
fabric = make_fabric(recipe.training)
fabric.launch()
torch.manual_seed(0)
dataset = open_data(data, DataConfig())
method = build_method(recipe, len(dataset.classes))
wrapped, optimizer = fabric.setup(method, build_optimizer(method, recipe.optimizer))
method.train()
views = TrainingViews(dataset, recipe.views, 0, contrast=True)
positions = BatchPositions(4, 0, 10, fabric.global_rank, fabric.world_size)
losses = []
for step, batch in enumerate(training_loader(views, positions, workers=0)):
    batch = batch.normalise(method.network.backbone.mean, method.network.backbone.std)
    set_lr(optimizer, step, 10, recipe.optimizer)
    loss = wrapped(batch, step)["loss"]
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    losses.append(loss.detach())
torch.save(
    {"losses": torch.stack(losses), "state": dict(method.state_dict())}, output / f"{processes}-{fabric.global_rank}.pt"
)
