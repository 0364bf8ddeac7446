"""A step as a GPU would see it: tensors without contents refuse to mix devices and to tell the host what they hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tagmask.data.batch import Batch
from tagmask.methods.affinitynet import Affinity
from tagmask.methods.base import Method, TrainingSet
from tagmask.methods.registry import build_method
from tagmask.models.backbone import Backbone
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.load import Recipe, load_recipe

CLASSES, IMAGES = 6, 4
STEP = 601  # late enough for every loss, and no epoch's first: RCA then clusters, which the host has to do
DEVICE = "cuda"


class Generator:
    """Stands in for a generator on a device that is not there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def manual_seed(self, seed: int) -> None:
        assert isinstance(seed, int), "a seed that lies on the device must first be waited for"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    mode = FakeTensorMode()
    try:
        with mode:
            torch.empty(1, device=DEVICE)
    except (AssertionError, RuntimeError) as error:
        pytest.skip(f"this build of torch knows no CUDA tensors, not even empty ones: {error}")
    rand = torch.rand
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "rand", lambda *size, generator=None, **options: rand(*size, **options))
    return mode


def method_of(name: str) -> tuple[Method, Recipe]:
    overrides = ["method.reg_weight=0.05"] if name == "seco" else []
    recipe = load_recipe("cam/demo" if name in ("affinity", "full") else f"{name}/demo", overrides)
    if name == "affinity":
        return Affinity(Backbone(recipe.backbone), CLASSES), recipe
    if name == "full":
        recipe = load_recipe({"method": "full", "backbone": recipe.backbone.model_dump(), "views": {"crop": 64}})
    method = build_method(recipe, CLASSES)
    clusters = torch.zeros(8, CLASSES, dtype=torch.int64)
    method.start_training(TrainingSet(torch.ones(8, CLASSES), IMAGES, STEP + 1, recipe.views.crop, clusters))
    return method, recipe


def without_contents(module: torch.nn.Module) -> None:
    for part in module.modules():
        for name, tensor in part.named_parameters(recurse=False):
            part._parameters[name] = torch.nn.Parameter(empty(tensor), requires_grad=tensor.requires_grad)
        for name, tensor in part.named_buffers(recurse=False):
            part._buffers[name] = empty(tensor)


def empty(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


def batch_of(side: int) -> Batch:
    def views() -> torch.Tensor:
        return torch.empty(IMAGES, 3, side, side, device=DEVICE)

    def whole(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=torch.int64, device=DEVICE)

    tags = torch.empty(IMAGES, CLASSES, device=DEVICE)
    return Batch(
        images=views(), tags=tags, known=torch.empty_like(tags), boxes=whole(IMAGES, 4), indices=whole(IMAGES),
        most_tags=2, masks=whole(IMAGES, side, side), weak=views(), strong=views(),
        strong_flipped=torch.empty(IMAGES, dtype=torch.bool, device=DEVICE),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["cam", "seco", "full", "sccam", "rca", "affinity"])
def test_a_step_stays_on_its_device_and_waits_for_nothing(name: str, fake: FakeTensorMode) -> None:
    method, recipe = method_of(name)
    method.train()
    with fake:
        without_contents(method)
        losses: dict[str, Any] = method(batch_of(recipe.views.crop), STEP)
    assert {loss.device.type for loss in losses.values()} == {DEVICE}


@pytest.mark.parametrize("name", ["cam", "seco", "full", "sccam", "rca"])
def test_cams_and_scores_stay_on_their_device(name: str, fake: FakeTensorMode) -> None:
    method, recipe = method_of(name)
    method.eval()
    with fake, torch.inference_mode():
        without_contents(method)
        images = batch_of(recipe.views.crop).images
        answers = [method.cams(images, (1.0, 0.5))] if name != "full" else []
        answers += [method.scores(images)] if name in ("cam", "seco", "full") else []
    assert {answer.device.type for answer in answers} == {DEVICE}


def test_refinement_stays_on_its_device(fake: FakeTensorMode) -> None:
    with fake, torch.inference_mode():
        images, scores = torch.empty(2, 3, 48, 64, device=DEVICE), torch.empty(2, 3, 48, 64, device=DEVICE)
        assert pixel_adaptive_refinement(images, scores).device.type == DEVICE


def test_waiting_and_mixing_would_be_noticed(fake: FakeTensorMode) -> None:
    with fake:
        here, there = torch.ones(2), torch.ones(2, device=DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            here + there
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
