"""Answer the editor of the page: it opens a mask, has regions and scribbles worked out, and saves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from tagmask.data.ledger import file_hash
from tagmask.data.masks import PngMask
from tagmask.engine.result import Result
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE
from tagmask.serve import pictures
from tagmask.serve.edit import change_region, ground, read_map
from tagmask.serve.photos import inside, open_photo
from tagmask.serve.review_tab import ReviewPage
from tagmask.serve.scribble import STROKE, refine_scribble

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

STRONGEST = 6  # powers of two by which the background can be made stronger or weaker
PHOTO_SIDE = 2048  # of the photograph that is painted on, at most; the mask keeps its own size


class Editor:
    """What the editor asks of the server, for the image that the review tab shows.

    Maps go both ways as a byte for each pixel, row by row. Each call names the *showing* (see `ReviewPage`) that was
    opened; where the page has moved on, it is refused. Methods may be called from several threads.

    Args:
        page: the review tab, which stores the decision.
    """

    def __init__(self, page: ReviewPage) -> None:
        self.page = page
        self._classes = page.model.classes
        self._background = page.model.run.recipe.data.background
        self._lock = threading.Lock()
        self._photo: tuple[str, Image.Image] | None = None
        self._predicted: tuple[str, Result, np.ndarray] | None = None
        self._opened: dict[str, str] = {}  # the hash of the mask, by showing

    def open(self, showing: str) -> dict[str, Any]:
        """Return what the editor needs beside the map: the photograph, its size, and the classes with their colours.

        Raises:
            TagmaskError: the run has more classes than the editor's maps of a byte a pixel hold.
        """
        if len(self._classes) >= IGNORE:
            raise TagmaskError(
                f"the editor paints masks of up to {IGNORE - 1} classes, and this run has more: mend "
                f"{self._mask(showing)} by a program that keeps grey PNGs of 16 bits"
            )
        photo = self._open_photo(showing)
        palette = pictures.class_palette(self._classes, self._classes)
        name = self.page.name_of(showing)
        return {
            "name": name,
            "width": photo.width,
            "height": photo.height,
            "photo": pictures.jpeg(pictures.shrink(photo, PHOTO_SIDE)),
            "classes": list(self._classes),
            "tags": [1 + self._classes.index(tag) for tag in self.page.review.tags(name)],
            "ground": ground(self._background),
            "ignored": IGNORE,
            "colours": palette.tolist(),
            "refine": self.page.model.run.recipe.inference.refine,
        }

    def map(self, showing: str) -> bytes:
        """Return the mask as it stands on disk."""
        photo, mask = self._open_photo(showing), self._mask(showing)
        self._opened[showing] = file_hash(mask)
        return PngMask(mask).load(photo.height, photo.width).tobytes()

    def region(self, showing: str, content: bytes, *, x: int, y: int, change: str, label: int) -> bytes:
        """Delete, relabel or keep alone the region under a point, and return the new map."""
        labels = self._read(showing, content)
        self._check_label(label)
        return change_region(labels, x, y, change, label).tobytes()  # type: ignore[arg-type]

    def relabel(self, showing: str, *, source: str, background: float, refine: str) -> bytes:
        """Label the image anew with more or less background (see `Result.relabel`), and return the map.

        Where somebody gave the image's tags, they and background alone can win.
        """
        if source not in ("decoder", "cam") or refine not in ("none", "par", "crf") or not abs(background) <= STRONGEST:
            raise TagmaskError("the page and the server do not fit: reload the page")
        self.page.check_open(showing)
        candidate = self.page.review.candidates[self.page.name_of(showing)]
        tags = self.page.review.tags(candidate.name) if candidate.tagged else ()
        found = self._prediction(showing)
        if found is None:
            raise TagmaskError("the run cannot label this image")
        return found[0].relabel(tags or None, source=source, background=background, refine=refine).tobytes()

    def scribble(self, showing: str, content: bytes, *, label: int, wanted: bool) -> bytes:
        """Refine the map by a scribble, and return the new one.

        Args:
            showing: of the image.
            content: the map, and behind it the marks of `refine_scribble`, a byte for each pixel.
            label: what the scribble is, or is not.
            wanted: whether it is.
        """
        photo = self._open_photo(showing)
        labels = self._read(showing, content[: len(content) // 2])
        marks = np.frombuffer(content[len(content) // 2 :], np.uint8)
        if marks.size != labels.size or marks.max() > STROKE:
            raise TagmaskError("the marks do not fit the mask; open it again")
        self._check_label(label)
        if label == IGNORE:
            raise TagmaskError("a scribble is of a class or of the background; use the brush for ignored pixels")
        tags = [1 + self._classes.index(tag) for tag in self.page.review.tags(self.page.name_of(showing))]
        candidates = (0, *tags) if self._background else tuple(tags)
        found = self._prediction(showing)
        changed = refine_scribble(
            photo,
            labels,
            marks.reshape(labels.shape),
            label,
            wanted=wanted,
            candidates=candidates,
            probabilities=None if found is None else found[1],
        )
        return changed.tobytes()

    def save(self, showing: str, content: bytes) -> bytes:
        """Write the map over the mask, with the verdict `edited`."""
        labels = self._read(showing, content)
        if file_hash(self._mask(showing)) != self._opened.get(showing):
            raise TagmaskError(
                "something else changed the mask since it was opened; close the editor and open it again"
            )
        self.page.save_edit(showing, labels)
        return b""

    def size(self, showing: str) -> tuple[int, int]:
        """Return the (height, width) of the image that is edited."""
        photo = self._open_photo(showing)
        return photo.height, photo.width

    def _open_photo(self, showing: str) -> Image.Image:
        self.page.check_open(showing)
        with self._lock:
            if self._photo is None or self._photo[0] != showing:
                candidate = self.page.review.candidates[self.page.name_of(showing)]
                self._photo = showing, open_photo(inside(candidate.image, self.page.photo_folder))
            return self._photo[1]

    def _mask(self, showing: str) -> Path:
        return inside(self.page.review.candidates[self.page.name_of(showing)].mask, self.page.mask_folder)

    def _read(self, showing: str, content: bytes) -> np.ndarray:
        return read_map(content, self.size(showing), len(self._classes), background=self._background)

    def _check_label(self, label: int) -> None:
        if label not in (*range(0 if self._background else 1, len(self._classes) + 1), IGNORE):
            raise TagmaskError(f"id {label} is no class of the run")

    def _prediction(self, showing: str) -> tuple[Result, np.ndarray] | None:
        """Give what the run says of the image, and its probabilities (K + 1, h, w) by id; None where it cannot."""
        photo = self._open_photo(showing)
        with self._lock:
            if self._predicted is None or self._predicted[0] != showing:
                try:
                    result = self.page.model.predict(photo)
                except TagmaskError:
                    return None
                scores = torch.from_numpy(result.scores).softmax(dim=0).numpy()
                whole = scores if self._background else np.concatenate([np.zeros_like(scores[:1]), scores])
                self._predicted = showing, result, whole
            return self._predicted[1:]


def routes(editor: Editor) -> list[Route]:
    """Make the addresses that the editor in the browser asks."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.responses import Response as Answer
    from starlette.routing import Route

    def route(name: str, method: str, work: Callable[[str, bytes, dict[str, str]], Any]) -> Route:
        async def answer(request: Request) -> Response:
            query = dict(request.query_params)
            showing = query.get("showing", "")
            try:
                height, width = await run_in_threadpool(editor.size, showing)
                content = await _body(request, 2 * height * width)
                result = await run_in_threadpool(work, showing, content, query)
            except (KeyError, ValueError):
                return JSONResponse({"error": "the page and the server do not fit: reload the page"}, 400)
            except TagmaskError as error:
                return JSONResponse({"error": str(error)}, 409)
            if isinstance(result, bytes):
                return Answer(result, media_type="application/octet-stream")
            return JSONResponse(result)

        return Route(f"/mend/{name}", answer, methods=[method])

    return [
        route("open", "GET", lambda showing, _, __: editor.open(showing)),
        route("map", "GET", lambda showing, _, __: editor.map(showing)),
        route(
            "region",
            "POST",
            lambda showing, content, query: editor.region(
                showing,
                content,
                x=int(query["x"]),
                y=int(query["y"]),
                change=query["change"],
                label=int(query["label"]),
            ),
        ),
        route(
            "scribble",
            "POST",
            lambda showing, content, query: editor.scribble(
                showing, content, label=int(query["label"]), wanted=query["wanted"] == "1"
            ),
        ),
        route(
            "relabel",
            "GET",
            lambda showing, _, query: editor.relabel(
                showing, source=query["source"], background=float(query["background"]), refine=query["refine"]
            ),
        ),
        route("save", "POST", lambda showing, content, _: editor.save(showing, content)),
    ]


async def _body(request: Request, most: int) -> bytes:
    """Read a request's body, and refuse one that is longer than the map of the image can be."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > most:
            raise TagmaskError("more bytes than the image has pixels; open the mask again")
    return bytes(parts)
