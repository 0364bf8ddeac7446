"""What the vectors of whole training steps have in common: weights by formula, samples of large arrays, comparisons.

The formulas are those of the vectors' description: a value depends on the seed and on the release's name alone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tagmask.data.batch import Batch
from tagmask.engine.optim import set_lr
from tagmask.methods.base import Method
from tagmask.recipes.sections import OptimizerConfig
from tests.golden_checks import Vectors, tensor

SAMPLED = 32
TEACHERS = (("encoder_k.", "encoder."), ("proj_head_t.", "proj_head."))
CLASS_BRANCH = re.compile(r"extra_convs(\d+)\.(.+)")
Value = Callable[[int, str, tuple[int, ...]], np.ndarray]


class Tolerance(NamedTuple):
    """Largest relative differences after a step.

    Attributes:
        loss: of losses.
        gradient_norm, gradient: of the L2 norms of gradients and of their values.
        moved_norm, moved: the same of what parameters have moved since the start.
        remembered: of queue, prototypes and memory.
    """

    loss: float
    gradient_norm: float
    gradient: float
    moved_norm: float
    moved: float
    remembered: float


class Places:
    """The tensors of a method under the release's names.

    Args:
        method: with the release's weights.
        renamed: what `models.published` makes of the release's state, under the method's names.
        state: the release's state. Tensors that `renamed` joins class after class are found by their class.
    """

    def __init__(self, method: Method, renamed: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        self.method, self.state = method, state
        by_identity = {id(value): name for name, value in renamed.items()}
        self._names = {name: by_identity[id(value)] for name, value in state.items() if id(value) in by_identity}

    def value(self, name: str) -> Tensor:
        """The value that the method has now."""
        return self._own(name, dict(self.method.state_dict()))

    def gradient(self, name: str) -> Tensor:
        """The gradient of the last step."""
        found = {own: parameter.grad for own, parameter in self.method.named_parameters() if parameter.grad is not None}
        return self._own(name, found)

    def parameter(self, name: str) -> Tensor:
        """The whole parameter, which may hold more than what the release calls so."""
        return dict(self.method.named_parameters())[self._name(name)[0]]

    def _own(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        own, number = self._name(name)
        rows = len(self.state[name]) if number is not None else 0
        return tensors[own] if number is None else tensors[own][number * rows : (number + 1) * rows]

    def _name(self, name: str) -> tuple[str, int | None]:
        if branch := CLASS_BRANCH.fullmatch(name):
            return f"network.heads.extra_branches.{branch[2]}", int(branch[1])
        return self._names[name], None


def release_state(vectors: Vectors, value: Value) -> dict[str, Tensor]:
    """The release's state dict as the file lists it, with values by formula."""
    seed = int(vectors["param_seed"])
    listed = zip(vectors["param_state_names"], vectors["param_state_shapes"], strict=True)
    shapes = {str(name): tuple(int(side) for side in str(shape).split("x") if side) for name, shape in listed}
    return {name: torch.from_numpy(np.array(value(seed, name, shape))) for name, shape in shapes.items()}


def normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers that belong to a name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)


def seco_value(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The initial value of a tensor of SeCo."""
    for teacher, student in TEACHERS:
        if name.startswith(teacher):
            lag = np.float32(0.1 * _seco_scale(name, shape)) * normal(seed, name, shape)
            return seco_value(seed, name.replace(teacher, student, 1), shape) + lag
    if name in ("queue_ptr", "queue_label_flag"):
        return np.zeros(shape, np.int64)
    drawn = normal(seed, name, shape)
    if name in ("queue", "prototypes"):
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    if "norm" in name and name.endswith("weight"):
        return np.float32(1) + np.float32(0.02) * drawn
    return np.float32(_seco_scale(name, shape)) * drawn


def _seco_scale(name: str, shape: tuple[int, ...]) -> float:
    if name.endswith(("cls_token", "pos_embed")):
        return 0.2
    if len(shape) == 1:
        return 0.02
    return (2.0 if name in ("classifier.weight", "aux_classifier.weight") else 1.0) / np.sqrt(np.prod(shape[1:]))


def sccam_value(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The initial value of a tensor of SC-CAM's classifier."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = normal(seed, name, shape)
    if name.endswith("running_var"):
        return np.float32(1) + np.float32(0.1) * np.abs(drawn)
    if len(shape) == 1:
        return np.float32(1 if name.endswith("weight") else 0) + np.float32(0.1) * drawn
    return np.float32((3.0 if name.startswith("fc8") else 0.7) / np.sqrt(np.prod(shape[1:]))) * drawn


def rca_value(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The initial value of a tensor of RCA's classifier."""
    if name.startswith("queue_ptr") or name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = normal(seed, name, shape)
    if name.startswith(("queue", "cluter")):
        return drawn
    if name == "extra_F.1.running_var":
        return np.float32(1) + np.float32(0.02) * np.abs(drawn)
    if name == "extra_F.1.weight":
        return np.float32(1) + np.float32(0.02) * drawn
    if len(shape) == 1:
        return np.float32(0.02) * drawn
    gain = 0.1 if name[0] in "QKV" else 2.0 if shape[0] in (1, 20) else np.sqrt(2)
    return np.float32(gain / np.sqrt(np.prod(shape[1:]))) * drawn


def make_batch(
    method: Method, images: np.ndarray, tags: np.ndarray, indices: range, **others: np.ndarray | Tensor
) -> Batch:
    """The batch that the network sees; half a grey level is added, which spares the release a rounding."""
    pictures = {
        name: tensor(view).float() + 0.5 for name, view in {"images": images, **others}.items() if view.ndim == 4
    }
    rest = {name: torch.as_tensor(value) for name, value in others.items() if value.ndim != 4}
    height, width = images.shape[-2:]
    batch = Batch(
        tags=tensor(tags).float(),
        known=torch.ones(tags.shape),
        indices=torch.tensor(indices),
        most_tags=int(tags.sum(axis=1).max()),
        **{"boxes": torch.tensor([[0, height, 0, width]]).expand(len(images), 4), **rest, **pictures},  # pyright: ignore
    )
    return batch.normalise(method.network.backbone.mean, method.network.backbone.std)


def update(
    method: Method,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    step: int,
    steps: int,
    config: OptimizerConfig,
) -> dict[str, Tensor]:
    """One step as the training loop does it; returns the losses."""
    set_lr(optimizer, step, steps, config)
    losses = method(batch, step)
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    return losses


def assert_near(actual: Tensor, expected: np.ndarray, relative: float, what: str, *, scale: float = 0.0) -> None:
    """Within `relative` times the largest absolute value of the expected array, or `scale` where that is more."""
    wanted = tensor(expected).double()
    scale = max(scale, float(wanted.abs().max()), 1e-12)
    difference = float((actual.detach().double().reshape(wanted.shape) - wanted).abs().max()) / scale
    assert difference <= relative, f"{what}: {difference:.2g} apart, more than {relative:.0e}"


def assert_same(actual: Tensor, expected: np.ndarray, what: str) -> None:
    """All integers equal."""
    differing = int((actual.long() != tensor(expected).long().reshape(actual.shape)).sum())
    assert not differing, f"{what}: {differing} of {actual.numel()} differ"


def assert_learnt(vectors: Vectors, places: Places, row: int, tolerance: Tolerance) -> None:
    """Gradients of the step, and what the parameters moved since the start."""
    for name in vectors["param_watched"].tolist():
        gradient = places.gradient(name)
        norm = float(vectors[f"out_grad_norm_{name}"][row])
        what = f"step {row}: gradient of {name}"
        assert_near(norm_of(gradient), np.array(norm), tolerance.gradient_norm, f"norm of {what}")
        mean_square = norm / gradient.numel() ** 0.5
        assert_near(
            _sample(gradient), vectors[f"out_grad_values_{name}"][row], tolerance.gradient, what, scale=mean_square
        )
        assert_moved(vectors, places, name, row, tolerance.moved_norm, tolerance.moved)


def assert_moved(vectors: Vectors, places: Places, name: str, row: int, norm: float, values: float) -> None:
    """How far a parameter or a buffer came since the start, in all and in the sampled values."""
    now = places.value(name)
    moved, wanted = now - places.state[name], vectors[f"out_moved_norm_{name}"][row]
    what = f"step {row}: what {name} moved"
    assert_near(norm_of(moved), wanted, norm, f"norm of {what}")
    scale = float(wanted) / moved.numel() ** 0.5
    assert_near(_sample(moved), vectors[f"out_moved_values_{name}"][row], values, what, scale=scale)
    if f"out_state_values_{name}" in vectors:
        assert_near(_sample(now), vectors[f"out_state_values_{name}"][row], values, f"step {row}: {name}")


def norm_of(values: Tensor) -> Tensor:
    """The L2 norm, summed in float64: the sum of a million squares in float32 is a thousandth off."""
    return values.detach().double().norm()


def _sample(values: Tensor) -> Tensor:
    """The 32 values of an array that the vectors hold: the first 16, and 16 spread over the rest."""
    flat, half = values.detach().flatten(), SAMPLED // 2
    if len(flat) <= SAMPLED:
        return flat
    return torch.cat([flat[:half], flat[torch.from_numpy(np.linspace(half, len(flat) - 1, half).astype(np.int64))]])
