from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

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
    assert own == {"GRADIO_TEMP_DIR": "somewhere", "GRADIO_ANALYTICS_ENABLED": "False"}
    assert os.environ["GRADIO_SHARE"] == "True"
    assert "GRADIO_TEMP_DIR" not in os.environ
