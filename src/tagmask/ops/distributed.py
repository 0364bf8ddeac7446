"""What a training asks of its other processes. With a single process each of these gives back its input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Give this process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


# Tensors of a step.


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum a value over processes; no gradient flows through."""
    if world()[1] == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


class SumWithGradient(torch.autograd.Function):
    """Sums a value over processes; what flows back to each is the sum of what the processes make of the result."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Sum the value."""
        return sum_over_processes(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum the gradient."""
        return sum_over_processes(gradients[0].contiguous())


def gather_rows(rows: Tensor, *, gradient: bool = False) -> Tensor:
    """Join the rows (N, ...) of all processes, N the same in all, in order of rank.

    Args:
        rows: of this process.
        gradient: whether what the other processes make of this process's rows flows back to it; by default none flows.
    """
    rank, count = world()
    if count == 1:
        return rows if gradient else rows.detach()
    if gradient:
        nothing = torch.zeros_like(rows)
        return SumWithGradient.apply(torch.cat([rows if place == rank else nothing for place in range(count)]))
    parts = [torch.empty_like(rows) for _ in range(count)]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def own_rows(rows: Tensor) -> Tensor:
    """Take this process's part of rows that `gather_rows` would give."""
    rank, count = world()
    return rows.chunk(count)[rank]


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Compute `total / count` over all processes, for a loss that the strategy averages over processes.

    Args:
        total: scalar sum over this process's elements, with gradient.
        count: scalar number of them, without.

    Returns:
        this process's scalar. The mean of these over processes is the mean over all elements; 0 where there are none.
    """
    return total * world()[1] / sum_over_processes(count).clamp(min=1)


# Work of a stage. It may take the processes hours, and some longer than others: here they wait without a time limit.


@functools.cache
def _patient_group(processes: object) -> Any:
    """Make a group of all processes in which nobody tires of waiting."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=365))


def _patient() -> Any:
    return _patient_group(dist.group.WORLD)


def share(items: Sequence[T]) -> Sequence[T]:
    """Take this process's share of a list, every item of which is in one process's share."""
    rank, count = world()
    return items[rank::count]


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if world()[1] > 1:
        dist.barrier(group=_patient())


def largest(number: int) -> int:
    """Give the largest of the processes' numbers, without asking a GPU."""
    if world()[1] == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX, group=_patient())
    return int(found)


def from_first(make: Callable[[], T]) -> T:
    """Give all processes what the first one makes."""
    rank, count = world()
    if count == 1:
        return make()
    told = [make() if rank == 0 else None]
    dist.broadcast_object_list(told, src=0, group=_patient())
    return told[0]  # pyright: ignore[reportReturnType]: the others were told


def gather_lists(items: Sequence[T]) -> list[T]:
    """Join the lists of all processes, in order of rank."""
    count = world()[1]
    if count == 1:
        return list(items)
    parts: list[Any] = [None] * count
    dist.all_gather_object(parts, list(items), group=_patient())
    return [item for part in parts for item in part]


def join_shares(rows: np.ndarray, total: int) -> np.ndarray | None:
    """Put together what the processes made of their shares of a list.

    Args:
        rows: (n, ...) a row for each item of `share`.
        total: length of the whole list.

    Returns:
        (total, ...) rows in the order of the list; None in all processes but the first.
    """
    rank, count = world()
    if count == 1:
        return rows
    parts: list[Any] | None = [None] * count if rank == 0 else None
    dist.gather_object(rows, parts, dst=0, group=_patient())
    if parts is None:
        return None
    whole = np.empty((total, *rows.shape[1:]), rows.dtype)
    for place, part in enumerate(parts):
        whole[place::count] = part
    return whole
