"""Forget what gradio keeps of a session once it has been answered, so that the page does not grow with its visitors."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Receive, Scope, Send

ANSWERS = "/queue/data"
"""The end of the address at which a page reads what its requests led to."""


class Forgetful:
    """ASGI middleware around a gradio application that drops a session's messages after they were read.

    gradio keeps the message queues of 2,000 sessions, an empty set for each session there ever was, and the name of
    every file. Each is small, but they lie among the blocks that pictures and networks take and give back, and what is
    given back breaks up around them: a page with eight busy visitors grew by 1.7 MB a minute (docs/faults.md, soak).

    Args:
        app: the application.
        blocks: its page, whose queue this cleans.
    """

    def __init__(self, app: ASGIApp, blocks: gr.Blocks) -> None:
        self.app, self.blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application does."""
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["path"].endswith(ANSWERS):
                for session in parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", ()):
                    self._forget(session)

    def _forget(self, session: str) -> None:
        """Drop a session without a request under way; its next one makes it anew. Runs in the server's own thread."""
        queue = self.blocks._queue
        if not queue.pending_event_ids_session.get(session):
            queue.pending_event_ids_session.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
        # The names are for gradio's own removal of files, which is off: `serving` removes them by their age.
        for names in self.blocks.temp_file_sets:
            names.clear()
