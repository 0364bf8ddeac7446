"""examples/label_studio/backend.py: asked over HTTP as Label Studio asks, read back as its exports are read."""

import importlib.util
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tagmask
from tagmask.data.writers.label_studio import brush_regions
from tests.conftest import staged_recipe

BACKEND = Path(__file__).parents[1] / "examples" / "label_studio" / "backend.py"
CONFIG = """<View><Image name="img" value="$image"/>
<BrushLabels name="brush" toName="img"><Label value="boat"/></BrushLabels></View>"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("label_studio_backend", BACKEND)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def place(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs without ground truth, and a run of two stages on them."""
    root = tmp_path_factory.mktemp("studio")
    shutil.copytree(cooccur, root / "photos")
    shutil.rmtree(root / "photos" / "masks")
    tagmask.train(root / "photos", recipe=staged_recipe("cam"), output=root / "run")
    return root


@pytest.fixture
def backend(module: ModuleType, place: Path, tmp_path: Path) -> Any:
    return module.Backend(place / "run", place / "photos", tmp_path / "corrections")


@pytest.fixture
def ask(module: ModuleType, backend: Any) -> Iterator[Any]:
    server = module.serve(backend, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def send(path: str, content: dict[str, Any] | None = None) -> tuple[int, Any]:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    yield send
    server.shutdown()
    server.server_close()


def task(name: str, number: int = 1) -> dict[str, Any]:
    return {"id": number, "data": {"image": f"/data/local-files/?d=photos/images/{name}.png"}}


def test_it_says_that_it_is_up(ask: Any) -> None:
    assert ask("/health") == (200, {"status": "UP", "model_class": "tagmask"})
    assert ask("/setup", {"project": "1.2", "schema": CONFIG, "hostname": "", "access_token": ""}) == (
        200,
        {"model_version": "run-0"},
    )
    assert ask("/nothing")[0] == 404
    assert ask("/predict", {"no": "tasks"})[0] == 400


def test_predictions_are_the_masks_of_the_run(ask: Any, backend: Any, place: Path) -> None:
    status, answer = ask("/predict", {"tasks": [task("000001"), task("missing", 2)], "label_config": CONFIG})
    assert status == 200
    assert answer["model_version"] == "run-0"
    first, second = answer["results"]
    assert second["result"] == []
    expected = backend.model.predict(place / "photos" / "images" / "000001.png")
    assert first["score"] == pytest.approx(expected.confidence)
    assert {region["value"]["brushlabels"][0] for region in first["result"]} == {
        backend.model.classes[label - 1] for label in np.unique(expected.labels) if label
    }
    assert all((region["from_name"], region["to_name"]) == ("brush", "img") for region in first["result"])
    # As an annotation it is read back pixel for pixel.
    (record,) = backend._read([{**task("000001"), "annotations": [{"result": first["result"]}]}]).records
    if first["result"]:
        assert np.array_equal(record.mask.load(*expected.labels.shape), expected.labels)


def test_it_is_trained_on_what_was_corrected(ask: Any, backend: Any, place: Path) -> None:
    backend.keep(task("000000"), {"result": []})  # replaced by what comes
    image = Image.open(place / "photos" / "images" / "000000.png")
    labels = np.zeros(image.size[::-1], np.uint8)
    labels[10:30, 5:25] = 2
    annotation = {"id": 7, "result": brush_regions(labels, backend.model.classes, control="brush", picture="img")}
    before = (place / "run" / "segmenter" / "model.safetensors").read_bytes()
    for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"):
        event = {"action": action, "task": task("000000"), "annotation": annotation, "project": {"id": 1}}
        assert ask("/webhook", event) == (201, {})
    assert [each["id"] for each in json.loads(backend.export.read_text())] == [1]
    assert ask("/webhook", {"action": "START_TRAINING", "project": {"id": 1}}) == (201, {})
    deadline = time.monotonic() + 300
    while backend.trained == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ask("/setup", {})[1] == {"model_version": "run-1"}
    assert (place / "run" / "segmenter" / "model.safetensors").read_bytes() != before
    assert np.array_equal(np.asarray(Image.open(backend.corrections / "masks" / "000000.png")), labels)


def test_it_is_trained_after_so_many_annotations(
    module: ModuleType, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = module.Backend(place / "run", place / "photos", tmp_path / "corrections", every=2)
    trained = threading.Semaphore(0)
    monkeypatch.setattr(backend, "train", trained.release)
    created = {"action": "ANNOTATION_CREATED", "task": task("000000"), "annotation": {"result": []}}
    backend.hear(created)
    assert not trained.acquire(timeout=0.2)
    backend.hear(created)
    assert trained.acquire(timeout=10)


def test_one_training_at_a_time(backend: Any) -> None:
    with backend.training:
        assert backend.train() is False


def test_entities_are_not_read(module: ModuleType) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "b">]><View><BrushLabels name="&b;" toName="x"/></View>'
    assert module.brush_of(bomb) == module.brush_of("no xml") == ("tag", "image")
    assert module.brush_of(CONFIG) == ("brush", "img")
