"""Work on several items at once."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
import torch

from tagmask.engine.device import on_cores

THREADS = 2


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_two_items_are_worked_on_at_once():
    both = threading.Barrier(2, timeout=30)

    def work(item: int) -> tuple[int, int]:
        both.wait()
        return item, torch.get_num_threads()

    assert list(on_cores(work, range(6), memory=1)) == [(item, 1) for item in range(6)]


def test_cores_are_given_back_after_an_error():
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(on_cores(work, range(100), memory=1))
    assert torch.get_num_threads() == THREADS
    assert float(torch.ones(1000, 1000).sum()) == 1e6


def test_items_that_fill_the_memory_go_one_by_one():
    own = threading.current_thread()

    def work(item: int) -> bool:
        return threading.current_thread() is own and torch.get_num_threads() == THREADS

    assert list(on_cores(work, range(3), memory=float("inf"))) == [True] * 3


def test_one_item_has_all_cores():
    assert list(on_cores(lambda item: (item, torch.get_num_threads()), ["one"], memory=1)) == [("one", THREADS)]


def test_whoever_stops_early_waits_for_what_has_begun_alone():
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        return item

    with closing(on_cores(work, range(1000), memory=1)) as results:
        assert next(results) == 0
    assert len(begun) < 20
    assert torch.get_num_threads() == THREADS
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [THREADS]
