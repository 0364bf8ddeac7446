from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tagmask.serve.guard import Guard


def _ask(path: str = "/", *, host: str = "127.0.0.1:7860", origin: str | None = None, kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(Guard(page, 7860)(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860"])
def test_own_browser_is_answered_with_the_policy(host: str) -> None:
    (start,) = _ask(host=host, origin=f"http://{host}")
    assert start["status"] == 200
    headers = dict(start["headers"])
    assert headers[b"x"] == b"y"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    "asked",
    [
        {"host": "evil.example:7860"},
        {"host": "127.0.0.1:80"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"path": "/gradio_api/file=http://evil.example/x"},
        {"path": "/gradio_api/file=HTTPS://evil.example/x"},
        {"path": "/gradio_api/proxy=http://evil.example/x"},
    ],
)
def test_everything_else_is_refused(asked: dict[str, str]) -> None:
    start, body = _ask(**asked)
    assert start["status"] == 403
    assert b"refused" in body["body"]


def test_sockets_are_closed_and_the_life_of_the_server_is_left_alone() -> None:
    assert _ask(kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert _ask(kind="lifespan")[0]["status"] == 200
