"""Serve the page on this machine, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tagmask.api import Model, load
from tagmask.data.walk import files_below
from tagmask.engine.device import default_device, keep_freed_memory
from tagmask.errors import TagmaskError
from tagmask.serve.editor import Editor
from tagmask.serve.editor import routes as editor_routes
from tagmask.serve.forget import Forgetful
from tagmask.serve.guard import Guard
from tagmask.serve.page import STYLE, build_page, build_tags_page, scripts
from tagmask.serve.photos import Photos, find_photos
from tagmask.serve.review import Review, find_candidates
from tagmask.serve.review_tab import ReviewPage
from tagmask.serve.tags_tab import TagsPage
from tagmask.serve.thumbs import Thumbs
from tagmask.serve.thumbs import routes as thumb_routes

if TYPE_CHECKING:
    import gradio as gr
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

HOST, PORT = "127.0.0.1", 7860
EXAMPLES = 8
QUEUE = 32
"""Requests that wait for the model at most; who comes later is told that the queue is full."""
SESSIONS = 64
"""Loaded pages that the server remembers, the latest; of each it keeps the pictures that it shows, some megabytes."""
KEPT = 3600.0
"""Seconds that an upload stays, and a mask to be downloaded."""
CONNECTIONS = 256
"""Connections and requests of all kinds at most; further ones are answered 503."""
UPLOAD = "32mb"
THREADS = 8
"""Threads that work on requests at most: each that paints a picture takes memory of its own meanwhile."""


@contextmanager
def serving(
    run: Path,
    other: Path | None = None,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    review: Path | None = None,
    port: int = PORT,
    overrides: Sequence[str] = (),
) -> Iterator[tuple[str, list[str]]]:
    """Serve the page while the context lasts.

    Args:
        run: run folder.
        other: a second run folder, to compare.
        images: folder or data set of photographs: examples, and what the masks under review are of; by default the
            run's own data.
        masks: folder that `tagmask label` or `tagmask predict` wrote, to review.
        review: CSV file for the decisions; goes with `masks`.
        port: to listen on, at 127.0.0.1 alone.
        overrides: `data.key=value`, of how the first run's recipe reads a data set.

    Yields:
        the page's address, and a line for each mask that cannot be reviewed.

    Raises:
        TagmaskError: an argument is wrong, the port is taken, or gradio is not installed.
    """
    if (masks is None) != (review is None):
        raise TagmaskError("--masks and --review go together: the masks to look at, and the CSV file for the decisions")
    if default_device().type == "cpu":
        keep_freed_memory()  # before there are threads: each would have memory of its own, as large as its largest need
    with (
        _listening(port) as listener,
        tempfile.TemporaryDirectory(prefix="tagmask-page-") as temporary,
        _environment(temporary),
    ):
        _check_gradio()  # before the runs are loaded
        models = [load(folder) for folder in (run, other) if folder is not None]
        for model in models:
            model.check_decoder()
        photos = _photos(models[0], images, review, overrides)
        page, left_out = _review(models[0], photos, masks, review)
        examples = photos.examples(EXAMPLES) if photos else []
        blocks = build_page(models, examples, Path(temporary) / "masks", page)
        application = Guard(_application(blocks, Editor(page) if page else None), port)
        with _swept(Path(temporary)), _answering(application, listener):
            yield f"http://{HOST}:{port}/", left_out
            blocks.is_running = False


@contextmanager
def confirming(table: Path, *, port: int = PORT) -> Iterator[str]:
    """Serve a page that goes through a table of proposed tags, while the context lasts.

    Args:
        table: what `tagmask tags` wrote; what a person says is written to it.
        port: to listen on, at 127.0.0.1 alone.

    Yields:
        the page's address.

    Raises:
        TagmaskError: it is another table, the port is taken, or gradio is not installed.
    """
    page = TagsPage(table)
    with (
        _listening(port) as listener,
        tempfile.TemporaryDirectory(prefix="tagmask-page-") as temporary,
        _environment(temporary),
    ):
        _check_gradio()
        blocks = build_tags_page(page)
        application = Guard(_application(blocks, None), port)
        with _swept(Path(temporary)), _answering(application, listener):
            yield f"http://{HOST}:{port}/"
            blocks.is_running = False


def _check_gradio() -> None:
    try:
        import gradio.themes  # noqa: F401
    except ImportError:
        raise TagmaskError("the page needs gradio: pip install 'tagmask[web]'") from None


def _application(blocks: gr.Blocks, editor: Editor | None) -> ASGIApp:
    """Make an ASGI application of the page; it has no share link and serves no file but its own."""
    import gradio
    from fastapi import FastAPI
    from gradio.themes import Default
    from starlette.routing import BaseRoute, Mount

    blocks.state_session_capacity = SESSIONS
    blocks.max_threads = THREADS
    blocks.create_limiter()
    own: list[BaseRoute] = [*editor_routes(editor), *thumb_routes(Thumbs(editor.page))] if editor else []
    application = gradio.mount_gradio_app(
        FastAPI(openapi_url=None, routes=own),
        blocks,
        path="/",
        show_error=True,
        max_file_size=UPLOAD,
        allowed_paths=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        theme=Default(
            primary_hue="teal",
            neutral_hue="slate",
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ),
        css_paths=STYLE,
        js=scripts(),
    )
    blocks.queue(max_size=QUEUE)
    page = next(route.app for route in application.routes if isinstance(route, Mount))
    # gradio looks a function up by the number that a request names.
    page.add_exception_handler(KeyError, _no_such_function)  # pyright: ignore[reportAttributeAccessIssue]
    # Not launched, the page counts as one in the making: gradio would let a request name any file as an upload.
    blocks.has_launched = blocks.is_running = True
    return Forgetful(application, blocks)


def _no_such_function(request: Request, error: Exception) -> Response:
    """Answer a request for a function that the page does not have; other errors stay what they are."""
    from starlette.responses import PlainTextResponse

    if not request.url.path.startswith("/gradio_api/"):
        raise error
    return PlainTextResponse("the page has no such function; load it again", status_code=404)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Open a socket on the port before the slow work begins, so that nobody else takes it meanwhile."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            reason = error.strerror or error
            raise TagmaskError(f"port {port} cannot be had ({reason}); give another with --port") from None
        yield listener


@contextmanager
def _answering(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """Answer requests in a thread while the context lasts.

    `Blocks.launch` would give a busy machine 5 seconds to start, and ask for the page through the shell's HTTP proxy.
    """
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(app, ws="none", log_level="critical", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        if not thread.is_alive():
            raise TagmaskError("the page's server did not start; is gradio of a version that `tagmask[web]` names?")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _photos(model: Model, images: Path | None, review: Path | None, overrides: Sequence[str]) -> Photos | None:
    """Find the photographs; None where there are none and the page can do without: no --images, no review."""
    try:
        return find_photos(model, images, review=review, overrides=overrides)
    except TagmaskError:
        if images is None and review is None and not overrides:
            return None
        raise


def _review(
    model: Model, photos: Photos | None, masks: Path | None, review: Path | None
) -> tuple[ReviewPage | None, list[str]]:
    if masks is None or review is None or photos is None:
        return None, []
    candidates, left_out = find_candidates(masks, photos, model.classes)
    return ReviewPage(Review(candidates, review, model.classes), model, (photos.root, masks)), left_out


@contextmanager
def _swept(folder: Path) -> Iterator[None]:
    """Remove files of a folder that are KEPT seconds old, again and again, while the context lasts.

    What lies there at the beginning stays: the page is built by then, and those are its own files, as its examples.
    gradio's own `delete_cache` ends for good when an upload comes in while it looks, and takes minutes at the end.
    """
    ended = threading.Event()
    own = {path for path, _ in files_below(folder)}

    def sweep() -> None:
        while not ended.wait(KEPT / 6):
            oldest = time.time() - KEPT
            for path, _ in files_below(folder):
                if path in own:
                    continue
                with contextlib.suppress(OSError):
                    if os.lstat(path).st_mtime < oldest:
                        os.remove(path)
                        os.rmdir(os.path.dirname(path))  # each has a folder of its own

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _environment(temporary: str) -> Iterator[None]:
    """Give gradio the page's settings and none of the shell's: files go to `temporary`, nothing is sent home."""
    before = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    for name in before:
        del os.environ[name]
    os.environ.update(GRADIO_TEMP_DIR=temporary, GRADIO_ANALYTICS_ENABLED="False", GRADIO_ANALYTICS_MAX_EVENTS="100")
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ.update(before)
