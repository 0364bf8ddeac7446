"""What a method asks of the other processes of a training. With a single process each of these gives back its input."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """Give this process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum a value over processes; no gradient flows through."""
    if world()[1] == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def gather_rows(rows: Tensor) -> Tensor:
    """Join the rows (N, ...) of all processes, N the same in all, in order of rank; no gradient flows through."""
    count = world()[1]
    if count == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(count)]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Compute `total / count` over all processes, for a loss that the strategy averages over processes.

    Args:
        total: scalar sum over this process's elements, with gradient.
        count: scalar number of them, without.

    Returns:
        this process's scalar. The mean of these over processes is the mean over all elements; 0 where there are none.
    """
    return total * world()[1] / sum_over_processes(count).clamp(min=1)
