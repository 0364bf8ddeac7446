"""ResNet-38's vectors."""

from __future__ import annotations

import numpy as np
import torch

from tagmask.models.resnet38 import BasicBlock, Bottleneck, ResNet38
from tests.golden_checks import Vectors, assert_close, check, tensor


def _block(vectors: Vectors, name: str) -> torch.nn.Module:
    """The block whose parameters the file holds under `name`; what shapes cannot tell is in the file's description."""
    prefix = f"param_{name}__"
    state = {key.removeprefix(prefix): tensor(value) for key, value in vectors.items() if key.startswith(prefix)}
    hidden, width = state["conv_branch2a.weight"].shape[:2]
    size, output_size = (vectors[f"{part}_{name}_{axis}"].shape for part, axis in (("in", "x"), ("out", "y")))
    if name == "bottleneck":
        block: torch.nn.Module = Bottleneck(width, output_size[1], dilation=4, dropout=0.5)
    else:
        stride = 2 if output_size[-1] < size[-1] else 1
        first, second = {"basic_identity": (2, 2), "basic_first_dilation": (1, 2)}.get(name, (1, 1))
        block = BasicBlock(width, hidden, output_size[1], stride, first, second)
    missing, unexpected = block.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return block.eval()


@check("resnet38_block")
def blocks(vectors: Vectors) -> None:
    names = [key.removeprefix("in_").removesuffix("_x") for key in vectors if key.startswith("in_")]
    assert names
    for name in names:
        with torch.no_grad():
            output, tap = _block(vectors, name)(tensor(vectors[f"in_{name}_x"]))
        assert_close(output, vectors[f"out_{name}_y"], relative=1e-4)
        assert_close(tap, vectors[f"out_{name}_tap"], relative=1e-4)


@check("resnet38_full")
def full(vectors: Vectors) -> None:
    with torch.device("meta"):
        network = ResNet38().eval()
    names = sorted(name for name in network.state_dict() if not name.endswith("num_batches_tracked"))
    seed = int(vectors["param_seed"])
    state = {
        name: _by_recipe(name, tuple(network.state_dict()[name].shape), [seed, index])
        for index, name in enumerate(names)
    }
    network.load_state_dict(state, strict=False, assign=True)
    with torch.no_grad():
        taps = network(tensor(vectors["in_image"]))
    for name, tap in taps._asdict().items():
        assert_close(tap, vectors[f"out_{name}"], relative=1e-4)


def _by_recipe(name: str, shape: tuple[int, ...], seed: list[int]) -> torch.Tensor:
    drawn = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if len(shape) == 4:
        drawn /= np.sqrt(np.float32(np.prod(shape[1:])))
    elif name.endswith("running_var"):
        drawn = 1 + 0.1 * np.abs(drawn)
    elif name.endswith(("running_mean", "bias")):
        drawn *= np.float32(0.1)
    else:
        drawn = 1 + 0.1 * drawn
    return torch.from_numpy(drawn.astype(np.float32))
