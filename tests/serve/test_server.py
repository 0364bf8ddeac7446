from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.soak import Client
from tagmask.cli import app
from tagmask.errors import TagmaskError
from tagmask.serve import server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_port_that_is_taken_is_named(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TagmaskError, match=f"port {port} cannot be had"), server.serving(run, port=port):
            pass


def test_masks_and_review_go_together(run: Path, masks: Path, tmp_path: Path) -> None:
    for half in ({"masks": masks}, {"review": tmp_path / "review.csv"}):
        with pytest.raises(TagmaskError, match="go together"), server.serving(run, **half):
            pass


def test_missing_extra_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio.themes", None)
    with pytest.raises(TagmaskError, match=r"pip install 'tagmask\[web\]'"), server.serving(run, port=free_port()):
        pass


def test_no_run_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    with pytest.raises(TagmaskError, match="no such run folder"), server.serving(tmp_path / "no", port=free_port()):
        pass


def test_settings_of_the_shell_do_not_reach_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SHARE", "True")
    with server._environment("somewhere"):
        own = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    assert own == {
        "GRADIO_TEMP_DIR": "somewhere",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_MAX_EVENTS": "100",
    }
    assert os.environ["GRADIO_SHARE"] == "True"
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_page_answers_where_a_proxy_is_set_and_gives_the_port_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    port = free_port()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(2):
        with server.serving(run, port=port) as (address, left_out):
            assert (address, left_out) == (f"http://127.0.0.1:{port}/", [])
            with direct.open(address, timeout=300) as answer:
                assert b"tagmask" in answer.read()
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            with pytest.raises(HTTPError, match="403"):
                direct.open(urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=300)
    with pytest.raises(URLError):
        direct.open(address, timeout=300)


def test_request_cannot_name_a_file_as_its_upload(run: Path, photo: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with server.serving(run, port=free_port()) as (address, _):
        with direct.open(address + "config", timeout=300) as answer:
            dependencies = json.load(answer)["dependencies"]
        event = next(own["id"] for own in dependencies if any(name == "change" for _, name in own["targets"]))
        given = {"path": str(photo), "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        values = {"data": [given, []], "fn_index": event, "session_hash": "s", "trigger_id": None}
        headers = {"Content-Type": "application/json"}
        join = urllib.request.Request(address + "gradio_api/queue/join", json.dumps(values).encode(), headers)
        direct.open(join, timeout=300).close()
        with direct.open(address + "gradio_api/queue/data?session_hash=s", timeout=300) as answer:
            said = answer.read().decode()
    assert "was not uploaded" in said
    assert "tm-mask" not in said


def mask_of(said: str) -> Path:
    """Find the file of the mask in what the server said of an event."""
    told = [json.loads(part) for part in said.split("data: ")[1:]]
    done = next(each for each in told if each["msg"] == "process_completed")
    return Path(done["output"]["data"][5]["value"]["path"])


def ask(address: str, values: dict[str, object]) -> int:
    """Post an event of the page, and give the status of the answer."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address + "gradio_api/queue/join", json.dumps(values).encode(), headers)
    try:
        with direct.open(request, timeout=300) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_a_function_that_is_not_there_and_a_full_queue_are_said_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    from tagmask.serve import try_tab

    free = threading.Event()
    free.set()

    def slow() -> str:
        free.wait(120)
        return ""

    monkeypatch.setattr(try_tab, "_invitation", slow)
    monkeypatch.setattr(server, "QUEUE", 4)
    with server.serving(run, port=free_port()) as (address, _):
        unknown = {"data": [], "fn_index": 9999, "session_hash": "s", "trigger_id": None}
        assert ask(address, unknown) == 404
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address + "config", timeout=300) as answer:
            dependencies = json.load(answer)["dependencies"]
        event = next(own["id"] for own in dependencies if any(name == "change" for _, name in own["targets"]))
        values = {"data": [None, []], "fn_index": event, "trigger_id": None}
        free.clear()
        statuses = [ask(address, {**values, "session_hash": f"s{number}"}) for number in range(12)]
        free.set()
    assert set(statuses) == {200, 503}
    assert statuses.count(200) <= 6  # those that wait, and those that the model works on


def test_the_page_remembers_so_many_sessions_and_masks_and_no_more(
    run: Path, cooccur: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    from starlette.routing import Mount

    made: list[Any] = []
    build = server._application

    def remembered(*arguments: Any) -> Any:
        made.append(build(*arguments))
        return made[0]

    monkeypatch.setattr(server, "_application", remembered)
    monkeypatch.setattr(server, "SESSIONS", 2)
    with server.serving(run, port=free_port()) as (address, _):
        client = Client(address, sorted((cooccur / "images").iterdir())[:1], Counter(), 0)
        given = client.upload(client.photos[0])
        masks = []
        for number in range(5):
            assert client.join(f"s{number}", given, []) == 200
            masks.append(mask_of(client.wait(f"s{number}")))
        page = next(route.app for route in made[0].app.routes if isinstance(route, Mount))
        assert list(page.state_holder.session_data) == ["s3", "s4"]
        # What the page shows of a session that was forgotten is made anew.
        assert client.join("s0", given, []) == 200
        masks.append(mask_of(client.wait("s0")))
        assert all(mask.exists() for mask in masks)
        # Of a session that was answered nothing is left in the queue. The server forgets it after the last byte of
        # its answer has gone out, so the client that has read that byte may be here first.
        queue = made[0].blocks._queue
        end = time.monotonic() + 30
        while queue.pending_messages_per_session and time.monotonic() < end:
            time.sleep(0.05)
        assert not queue.pending_messages_per_session
        assert not queue.pending_event_ids_session
        assert not any(made[0].blocks.temp_file_sets)


def test_uploads_and_masks_are_removed_after_their_time(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    monkeypatch.setattr(server, "KEPT", 30.0)
    with server.serving(run, port=free_port()) as (address, _):
        photo = tmp_path / "photo.png"  # none of the examples, which stay
        Image.new("RGB", (64, 48), "red").save(photo)
        client = Client(address, [photo], Counter(), 0)
        given = client.upload(client.photos[0])
        assert client.join("s", given, []) == 200
        files = [mask_of(client.wait("s")), Path(given)]
        assert all(file.exists() for file in files)
        for file in files:
            os.utime(file, (1, 1))
        kept = Path(given).with_name("kept.txt")
        kept.write_text("of now")
        end = time.monotonic() + 120
        while any(file.exists() for file in files) and time.monotonic() < end:
            time.sleep(0.2)
        assert [file.exists() for file in files] == [False, False]
        assert kept.exists()


def test_the_examples_of_the_page_stay(
    run: Path, cooccur: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    monkeypatch.setattr(server, "KEPT", 3.0)
    for photo in sorted((cooccur / "images").iterdir())[:3]:
        os.utime(shutil.copyfile(photo, tmp_path / photo.name), (1, 1))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with server.serving(run, images=tmp_path, port=free_port()) as (address, _):
        page = Path(os.environ["GRADIO_TEMP_DIR"])
        examples = [path for path in page.rglob("*") if path.is_file()]
        assert len(examples) == 3
        for path in (*examples, made := page / "masks" / "made.png"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
            os.utime(path, (1, 1))
        end = time.monotonic() + 120
        while made.exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert not made.exists()
        time.sleep(1.0)  # the sweep that took it has gone through the others, too
        for path in examples:
            with direct.open(f"{address}gradio_api/file={path}", timeout=300) as answer:
                assert answer.status == 200


def test_more_connections_than_the_page_takes_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with server.serving(run, port=free_port()) as (address, _), ExitStack() as idle:
        with direct.open(address, timeout=300) as answer:
            assert answer.status == 200
        for _ in range(3):
            idle.enter_context(socket.create_connection(("127.0.0.1", int(address.split(":")[-1][:-1]))))
        with pytest.raises(HTTPError, match="503"):
            direct.open(address, timeout=300)


def test_an_ended_page_leaves_no_temporary_folder(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `web`")
    command = [sys.executable, "-m", "tagmask", "serve", str(run), "--port", str(free_port())]
    page = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert page.stdout is not None
    assert page.stdout.readline().startswith("page: http://127.0.0.1:")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tagmask-page-")]
    page.send_signal(signal.SIGTERM)
    _, said = page.communicate(timeout=60)
    assert page.returncode == 0, said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("tagmask-page-")]


def test_the_command_says_where_the_page_is_until_it_is_interrupted(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple] = []

    @contextmanager
    def serving(*arguments: object, **options: object) -> Iterator[tuple[str, list[str]]]:
        asked.append((arguments, options))
        yield "http://127.0.0.1:7000/", ["a: no file"]

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr(threading.Event, "wait", interrupt)
    result = CliRunner().invoke(app, ["serve", str(run), "--port", "7000", "--set", "data.separator=;"])
    assert (result.exit_code, asked[0][0], asked[0][1]["port"]) == (0, (run, None), 7000)
    assert asked[0][1]["overrides"] == ["data.separator=;"]
    assert "page: http://127.0.0.1:7000/   (Ctrl+C ends it)" in result.output
    assert "skipped: a: no file" in caplog.text
