"""What the command line says where arguments are of the wrong kind, in the wrong order or given twice."""

from __future__ import annotations

import sys

import pytest

from tagmask import cli


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command line, which has to end with status 2 and one line; returns that line."""
    monkeypatch.setattr(sys, "argv", ["tagmask", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("tagmask: ")


@pytest.mark.parametrize("verb", [("train", "photos"), ("data", "check", "photos"), ("evaluate", "run")])
def test_a_key_without_an_equals_sign_is_told_how_to_write_it(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said(monkeypatch, capsys, *verb, "--set", "data.separator", ";")
    assert line == (
        "--set data.separator: expected KEY=VALUE, such as --set optimizer.lr=1e-4: an equals sign and no blanks"
    )
