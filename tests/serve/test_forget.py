from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tagmask.serve.forget import Forgetful


def forgetful(fails: bool) -> tuple[Forgetful, Any]:
    """A page with three sessions, of which `busy` waits for an answer, around an application that may fail."""

    async def application(scope: object, receive: object, send: object) -> None:
        if fails:
            raise asyncio.CancelledError

    queue = SimpleNamespace(
        pending_event_ids_session={"done": set(), "busy": {"event"}, "other": set()},
        pending_messages_per_session={"done": [], "busy": [], "other": []},
    )
    blocks = SimpleNamespace(_queue=queue, temp_file_sets=[{"a.png"}, set()])
    return Forgetful(application, cast(Any, blocks)), blocks


def asked(page: Forgetful, path: str, query: bytes) -> None:
    scope = {"type": "http", "path": path, "query_string": query}
    asyncio.run(page(scope, cast(Any, None), cast(Any, None)))


def kept(blocks: Any) -> list[str]:
    assert list(blocks._queue.pending_event_ids_session) == list(blocks._queue.pending_messages_per_session)
    return list(blocks._queue.pending_messages_per_session)


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_read_is_forgotten_also_where_the_visitor_left(fails: bool) -> None:
    page, blocks = forgetful(fails)
    try:
        asked(page, "/gradio_api/queue/data", b"session_hash=done")
    except asyncio.CancelledError:
        assert fails
    assert kept(blocks) == ["busy", "other"]
    assert not any(blocks.temp_file_sets)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/gradio_api/queue/data", b"session_hash=busy"),
        ("/gradio_api/queue/data", b"session_hash=unknown"),
        ("/gradio_api/queue/data", b""),
        ("/gradio_api/queue/join", b"session_hash=done"),
    ],
)
def test_nothing_else_is_forgotten(path: str, query: bytes) -> None:
    page, blocks = forgetful(False)
    asked(page, path, query)
    assert kept(blocks) == ["done", "busy", "other"]
