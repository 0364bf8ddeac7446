"""The arithmetic of several processes, in one process that is told there are three."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import torch

from tagmask.ops import distributed
from tagmask.ops.distributed import (
    from_first,
    gather_lists,
    gather_rows,
    global_mean,
    join_shares,
    largest,
    own_rows,
    share,
    sum_over_processes,
    wait_for_all,
    world,
)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of three processes, whose process r holds r + 1 times what this one holds, over two."""

    def all_reduce(total: torch.Tensor) -> None:
        total *= 3  # (1 + 2 + 3) / 2

    def all_gather(parts: list[torch.Tensor], rows: torch.Tensor) -> None:
        assert rows.is_contiguous()
        for rank, part in enumerate(parts):
            part.copy_(rows * (rank + 1) / 2)

    for name, replacement in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "get_rank": lambda: 1,
        "get_world_size": lambda: 3,
        "all_reduce": all_reduce,
        "all_gather": all_gather,
    }.items():
        monkeypatch.setattr(distributed.dist, name, replacement)


def test_alone_everything_is_the_identity() -> None:
    value = torch.tensor([2.0, 4.0], requires_grad=True)
    assert world() == (0, 1)
    for same in (sum_over_processes(value), gather_rows(value)):
        assert torch.equal(same, value)
        assert not same.requires_grad
    mean = global_mean(value.sum(), torch.tensor(4))
    assert float(mean.detach()) == 1.5
    mean.backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0.25, 0.25]
    assert float(global_mean(torch.tensor(0.0), torch.tensor(0))) == 0
    assert float(global_mean(torch.tensor(3.0), torch.tensor(1))) == 3
    assert gather_rows(value, gradient=True) is value
    assert (largest(5), from_first(lambda: "made"), gather_lists((1, 2))) == (5, "made", [1, 2])
    rows = np.zeros((2, 3))
    assert join_shares(rows, 2) is rows
    wait_for_all()  # returns


@pytest.mark.usefixtures("three")
def test_sums_rows_and_means_of_three_processes() -> None:
    value = torch.tensor([2.0, 4.0], requires_grad=True)
    assert world() == (1, 3)
    assert sum_over_processes(value).tolist() == [6, 12]
    assert value.tolist() == [2, 4]
    assert gather_rows(value).tolist() == [1, 2, 2, 4, 3, 6]
    assert gather_rows(torch.arange(6.0).view(2, 3).t()).shape == (9, 2)
    # 6 over a count of 12 in all, times three, since the loss is then averaged over three processes.
    assert float(global_mean(value.sum(), torch.tensor(4))) == 1.5


@pytest.mark.usefixtures("three")
def test_rows_whose_gradient_flows_back_stand_in_their_place() -> None:
    """Each process adds its rows to nothing in the others' places; here the sum is three times what one gives."""
    rows = torch.tensor([[2.0], [4.0]], requires_grad=True)
    gathered = gather_rows(rows, gradient=True)
    assert gathered.flatten().tolist() == [0, 0, 6, 12, 0, 0]
    (gathered * torch.arange(1.0, 7)[:, None]).sum().backward()
    assert rows.grad is not None
    assert rows.grad.flatten().tolist() == [9, 12]


@pytest.mark.usefixtures("three")
def test_every_third_item_is_a_process_s_share() -> None:
    assert list(share(range(10, 18))) == [11, 14, 17]


@pytest.mark.usefixtures("three")
def test_the_largest_number_is_asked_for_in_a_group_that_waits_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some stages take a process hours longer than the others."""
    limits: list[timedelta] = []

    def new_group(backend: str, timeout: timedelta) -> str:
        limits.append(timeout)
        return f"of {backend}"

    def all_reduce(found: torch.Tensor, operation: object, group: object) -> None:
        assert (int(found), operation, group) == (5, distributed.dist.ReduceOp.MAX, "of gloo")
        found.fill_(8)

    distributed._patient_group.cache_clear()
    monkeypatch.setattr(distributed.dist, "new_group", new_group)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    assert largest(5) == 8
    assert largest(5) == 8
    distributed._patient_group.cache_clear()
    assert len(limits) == 1
    assert limits[0] > timedelta(days=30)


@pytest.mark.usefixtures("three")
def test_a_process_takes_its_rows_and_what_the_first_one_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(told: list, src: int, group: object) -> None:
        assert (told, src, group) == ([None], 0, "patient")
        told[0] = "of the first"

    monkeypatch.setattr(distributed, "_patient", lambda: "patient")
    monkeypatch.setattr(distributed.dist, "broadcast_object_list", broadcast)
    assert own_rows(torch.arange(6)).tolist() == [2, 3]
    assert from_first(lambda: pytest.fail("only the first one makes it")) == "of the first"


@pytest.mark.usefixtures("three")
def test_lists_are_joined_in_order_of_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(parts: list, own: list, group: object) -> None:
        assert (parts, own, group) == ([None] * 3, ["b", "c"], "patient")
        parts[:] = [["a"], own, []]

    monkeypatch.setattr(distributed, "_patient", lambda: "patient")
    monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
    assert gather_lists(("b", "c")) == ["a", "b", "c"]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("rank", [0, 1])
def test_shares_come_together_in_the_order_of_the_list(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.arange(14, dtype=np.float32).reshape(7, 2)
    shares = [whole[place::3] for place in range(3)]

    def gather(own: np.ndarray, parts: list | None, dst: int, group: object) -> None:
        assert own is shares[rank]
        assert (dst, group) == (0, "patient")
        if parts is not None:
            parts[:] = shares[: len(parts)]

    monkeypatch.setattr(distributed, "_patient", lambda: "patient")
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(distributed.dist, "gather_object", gather)
    joined = join_shares(shares[rank], 7)
    if rank:
        assert joined is None
    else:
        assert joined is not None
        assert joined.dtype == np.float32
        assert (joined == whole).all()


def test_without_a_group_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 3)
    for available, initialized in ((False, True), (True, False)):
        monkeypatch.setattr(distributed.dist, "is_available", lambda answer=available: answer)
        monkeypatch.setattr(distributed.dist, "is_initialized", lambda answer=initialized: answer)
        assert world() == (0, 1)
