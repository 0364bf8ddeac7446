"""An ML backend for Label Studio: masks of a tagmask run as predictions, and training on what people corrected.

    python examples/label_studio/backend.py runs/mine photos/

Read README.md beside this file for the steps in Label Studio. The photographs must lie on this machine; nothing is
fetched. What Label Studio asks for and gets is described by "Write your own ML backend" in its documentation.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tagmask
from tagmask.api import open_data
from tagmask.data.dataset import Dataset
from tagmask.data.files import write_text
from tagmask.data.images import image_size
from tagmask.data.label_maps import write_label_map
from tagmask.data.writers.label_studio import CONTROL, PICTURE, brush_regions
from tagmask.errors import TagmaskError
from tagmask.recipes.load import load_recipe

logger = logging.getLogger("tagmask")
LARGEST = 64_000_000  # bytes of a request


class Backend:
    """A run that predicts, keeps corrections, and is trained on them.

    Corrections lie as `export.json`, in the form of Label Studio's JSON export, and as masks in `masks/`.

    Args:
        run: a run folder; one of several stages can be trained again.
        photos: the folder of photographs and tags that the run learnt from.
        corrections: folder for what people corrected.
        every: train after so many annotations; 0: only when Label Studio says so.
    """

    def __init__(self, run: Path, photos: Path, corrections: Path, every: int = 0) -> None:
        self.every, self.annotations = every, 0
        self.run, self.photos, self.corrections = run, photos, corrections
        self.export = corrections / "export.json"
        self.model, self.trained = tagmask.load(run), 0
        self.training, self.keeping = threading.Lock(), threading.Lock()

    @property
    def version(self) -> str:
        """The name under which Label Studio lists the predictions."""
        return f"{self.run.name}-{self.trained}"

    def predict(self, tasks: Sequence[dict[str, Any]], label_config: str) -> dict[str, Any]:
        """Answer /predict: a prediction a task, empty where its photograph is not found."""
        control, picture = brush_of(label_config)
        # A photograph without tags would be left out; which tag does not matter where it is only to be found.
        tagged = {"result": [{"type": "choices", "value": {"choices": [self.model.classes[0]]}}]}
        results = []
        for task in tasks:
            prediction: dict[str, Any] = {"model_version": self.version, "result": []}
            try:
                (record,) = self._read([{**task, "annotations": [tagged]}]).records
                found = self.model.predict(record.image)
            except (TagmaskError, ValueError) as error:
                logger.warning("task %s: no prediction: %s", task.get("id"), error)
            else:
                regions = brush_regions(found.labels, self.model.classes, control=control, picture=picture)
                prediction |= {"result": regions, "score": found.confidence}
            results.append(prediction)
        return {"results": results, "model_version": self.version}

    def keep(self, task: dict[str, Any], annotation: dict[str, Any]) -> None:
        """Keep a corrected task; the newest annotation of a task counts."""
        with self.keeping:
            kept = json.loads(self.export.read_text(encoding="utf-8")) if self.export.exists() else []
            kept = [old for old in kept if old["id"] != task["id"]]
            kept.append({"id": task["id"], "data": task["data"], "annotations": [annotation]})
            write_text(self.export, json.dumps(kept))

    def train(self) -> bool:
        """Train the segmenter anew, with the corrected masks in the place of those made from tags.

        Returns:
            False where a training goes on already.
        """
        if not self.training.acquire(blocking=False):
            return False
        try:
            masks = self.corrections / "masks"
            for record in self._read(json.loads(self.export.read_text(encoding="utf-8"))).records:
                if record.mask is not None:
                    width, height = image_size(record.image)
                    write_label_map(masks / f"{record.name}.png", record.mask.load(height, width))
            wanted = ["data.use_masks=true", f"data.masks={masks.resolve()}"]
            tagmask.train(self.photos, output=self.run, overrides=wanted, from_stage="segmenter")
            self.model, self.trained = tagmask.load(self.run), self.trained + 1
            logger.info("trained on corrections: %s", self.version)
        except (TagmaskError, OSError) as error:
            logger.warning("not trained: %s", error)
        finally:
            self.training.release()
        return True

    def hear(self, event: dict[str, Any]) -> None:
        """Answer /webhook: keep what was corrected, and train when Label Studio says so."""
        action = event.get("action")
        if action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
            self.keep(event["task"], event["annotation"])
            self.annotations += 1
            if self.every and self.annotations % self.every == 0:
                action = "START_TRAINING"
        if action == "START_TRAINING":
            threading.Thread(target=self.train, daemon=True).start()

    def _read(self, tasks: Sequence[dict[str, Any]]) -> Dataset:
        """Read tasks as tagmask reads Label Studio's exports: it finds the photographs and decodes the brushes."""
        images = self.photos / "images" if (self.photos / "images").is_dir() else self.photos
        names = json.dumps(list(self.model.classes))
        recipe = load_recipe({"method": "cam"}, [f"data.classes={names}", f"data.image_folder={images}"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "export.json"
            file.write_text(json.dumps(list(tasks)), encoding="utf-8")
            return open_data(file, recipe.data)


def brush_of(label_config: str) -> tuple[str, str]:
    """Find the names of the brush and of its image in a project's labelling interface; by default tagmask's own."""
    if "<!" in label_config:  # entities could make it endless, and no labelling interface has any
        return CONTROL, PICTURE
    try:
        brush = ElementTree.fromstring(label_config).find(".//BrushLabels")
    except ElementTree.ParseError:
        brush = None
    if brush is None:
        return CONTROL, PICTURE
    return brush.get("name", CONTROL), brush.get("toName", PICTURE)


def serve(backend: Backend, port: int) -> ThreadingHTTPServer:
    """Make the server; `serve_forever` runs it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in ("/", "/health"):
                self.answer(200, {"status": "UP", "model_class": "tagmask"})
            else:
                self.answer(404, {"detail": "no such address"})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > LARGEST:
                self.answer(413, {"detail": f"more than {LARGEST} bytes"})
                return
            try:
                asked = json.loads(self.rfile.read(length) or b"{}")
                if self.path == "/setup":
                    self.answer(200, {"model_version": backend.version})
                elif self.path == "/predict":
                    self.answer(200, backend.predict(asked["tasks"], asked.get("label_config") or ""))
                elif self.path in ("/webhook", "/train"):
                    backend.hear(asked if self.path == "/webhook" else {"action": "START_TRAINING"})
                    self.answer(201, {})
                else:
                    self.answer(404, {"detail": "no such address"})
            except (ValueError, KeyError, TypeError) as error:
                self.answer(400, {"detail": f"not what Label Studio sends: {error!r}"})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            logger.info("%s", format % args)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--corrections", type=Path, default=Path("corrections"))
    parser.add_argument("--every", type=int, default=0, help="train after so many annotations")
    parser.add_argument("--port", type=int, default=9090)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = serve(Backend(arguments.run, arguments.photos, arguments.corrections, arguments.every), arguments.port)
    print(f"http://127.0.0.1:{arguments.port}/ is ready: add it under Settings, Model in Label Studio")
    server.serve_forever()
