"""Batch norm and dropout of a step that several processes share, as one process would compute them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tagmask.ops.distributed import SumWithGradient, own_rows, world


def whole_batch() -> AbstractContextManager[object]:
    """Have batch norm and dropout see the images of all processes; with a single process nothing changes.

    Batch norm takes mean and variance over all of them. Dropout draws for all of them, from generators that have the
    same state in every process, and takes its own part: so the numbers that an image gets depend on its place in the
    whole batch, the state stays the same everywhere, and a checkpoint needs only one of them.

    It does so for any network, timm's and those of other people's methods too. Rows of tensors have to be images, or
    parts of images with those of an image together.
    """
    return _WholeBatch() if world()[1] > 1 else nullcontext()


class _WholeBatch(TorchFunctionMode):
    """Puts the functions below in the place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or what stands in its place."""
        options = kwargs or {}
        if func in _DROPOUTS:
            return _dropout(func, *args, **options)
        stand_in: Any = _IN_PLACE_OF.get(func, func)
        return stand_in(*args, **options)


def _dropout(
    function: Callable[..., Tensor], input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return input
    # Dropout of whole channels draws one number a channel, whatever their size.
    cell = (
        input
        if function is F.dropout
        else input.flatten(2)[..., :1].reshape(*input.shape[:2], *[1] * (input.dim() - 2))
    )
    ones = torch.ones((world()[1] * len(cell), *cell.shape[1:]), dtype=input.dtype, device=input.device)
    noise = own_rows(function(ones, p, True))
    return input.mul_(noise) if inplace else input * noise


def _bernoulli(input: Tensor, *args: Any, **options: Any) -> Tensor:
    """Fill in place, as timm does to drop the paths of images."""
    if input.dim() < 2:
        return input.bernoulli_(*args, **options)
    whole = input.new_empty((world()[1] * len(input), *input.shape[1:])).bernoulli_(*args, **options)
    return input.copy_(own_rows(whole))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as `F.batch_norm`. torch's own SyncBatchNorm knows GPUs alone."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    others = [0, *range(2, input.dim())]
    shape = [1, -1, *[1] * (input.dim() - 2)]
    count = world()[1] * input.numel() // input.shape[1]
    values = input.float()
    mean = SumWithGradient.apply(values.sum(others)) / count
    centred = values - mean.view(shape)
    variance = SumWithGradient.apply(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (count / max(1, count - 1))).to(running_var), momentum)
    output = centred * (variance + eps).rsqrt().view(shape)
    output = output if weight is None else output * weight.view(shape)
    output = output if bias is None else output + bias.view(shape)
    return output.to(input.dtype)


_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
_IN_PLACE_OF: dict[Any, Callable[..., Tensor]] = {F.batch_norm: _batch_norm, torch.Tensor.bernoulli_: _bernoulli}
