"""The arithmetic of several processes, in one process that is told there are three."""

from __future__ import annotations

import pytest
import torch

from tagmask.ops import distributed
from tagmask.ops.distributed import gather_rows, global_mean, sum_over_processes, world


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


def test_without_a_group_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 3)
    for available, initialized in ((False, True), (True, False)):
        monkeypatch.setattr(distributed.dist, "is_available", lambda answer=available: answer)
        monkeypatch.setattr(distributed.dist, "is_initialized", lambda answer=initialized: answer)
        assert world() == (0, 1)
