"""Show the masks under review as small pictures, a few at a time, so that a person can jump to one."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tagmask.data.masks import PngMask
from tagmask.data.pictures import overlay
from tagmask.errors import TagmaskError
from tagmask.serve.photos import inside, open_photo
from tagmask.serve.pictures import shrink
from tagmask.serve.review_tab import ReviewPage

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import Route

SIDE = 112  # pixels of the longer side
MOST_LISTED = 200  # names in an answer
MOST_BYTES = 8_000_000  # of small pictures that are kept, some 2,000 of them


class Thumbs:
    """The chosen masks of a review as a list and as small pictures.

    One picture is painted at a time, and pictures that were not asked for lately are forgotten, so that neither many
    requests nor many masks take much memory. Methods may be called from several threads.
    """

    def __init__(self, page: ReviewPage) -> None:
        self.page = page
        self._lock = threading.Lock()
        self._painted: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0

    def part(self, start: int, count: int) -> dict[str, Any]:
        """List chosen masks from a place on: name, verdict, and a number that changes with the file."""
        review = self.page.review
        names = review.chosen[max(0, start) : max(0, start) + min(count, MOST_LISTED)]
        items = [{"name": name, "verdict": review.verdict(name), "stamp": str(self._stamp(name))} for name in names]
        return {"start": max(0, start), "total": len(review.chosen), "items": items}

    def picture(self, name: str) -> bytes:
        """Return a small JPEG of the photograph under its mask.

        Raises:
            TagmaskError: no such mask is under review, or its files cannot be shown.
        """
        with self._lock:
            key = name, self._stamp(name)
            if key not in self._painted:
                self._painted[key] = self._paint(name)
                self._bytes += len(self._painted[key])
            self._painted.move_to_end(key)
            while self._bytes > MOST_BYTES:
                self._bytes -= len(self._painted.popitem(last=False)[1])
            return self._painted[key]

    def _paint(self, name: str) -> bytes:
        candidate = self.page.review.candidate(name)
        photo = shrink(open_photo(inside(candidate.image, self.page.photo_folder)), SIDE)
        labels = Image.fromarray(PngMask(inside(candidate.mask, self.page.mask_folder)).ids())
        small = np.asarray(labels.resize(photo.size, Image.Resampling.NEAREST))
        buffer = io.BytesIO()
        Image.fromarray(overlay(np.asarray(photo), small)).save(buffer, "JPEG", quality=80)
        return buffer.getvalue()

    def _stamp(self, name: str) -> int:
        try:
            return self.page.review.candidate(name).mask.stat().st_mtime_ns
        except OSError:
            return 0


def routes(thumbs: Thumbs) -> list[Route]:
    """Make the addresses that the strip of small pictures asks."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def part(request: Request) -> Response:
        try:
            start, count = int(request.query_params["start"]), int(request.query_params["count"])
        except (KeyError, ValueError):
            return JSONResponse({"error": "the page and the server do not fit: reload the page"}, 400)
        return JSONResponse(await run_in_threadpool(thumbs.part, start, count))

    async def picture(request: Request) -> Response:
        try:
            content = await run_in_threadpool(thumbs.picture, request.query_params.get("name", ""))
        except TagmaskError as error:
            return JSONResponse({"error": str(error)}, 404)
        # The address changes with the file, so that the browser may keep the picture.
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return [Route("/thumbs/part", part, methods=["GET"]), Route("/thumbs/picture", picture, methods=["GET"])]
