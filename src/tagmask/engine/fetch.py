"""Fetch a run from the Hugging Face hub: only text and safetensors, so that nothing is ever unpickled."""

from __future__ import annotations

import re
from pathlib import Path

from tagmask.errors import TagmaskError, first_line
from tagmask.models.weight_files import hub_answers, without_retry_lines

PREFIX = "hf-hub:"
TEXTS = ("recipe.yaml", "classes.txt", "run.json")
CARD = "README.md"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch(source: str) -> Path:
    """Download a run from the hub, where it is not in the cache yet.

    Args:
        source: `hf-hub:OWNER/NAME` or `hf-hub:OWNER/NAME@REVISION`.

    Returns:
        the local run folder.

    Raises:
        TagmaskError: not such a name, no such repository, no run in it, or the hub cannot be reached.
    """
    import huggingface_hub

    repository, _, revision = source.removeprefix(PREFIX).partition("@")
    check_name(repository)
    answers = hub_answers(repository, TEXTS[0], revision or None)
    try:
        with without_retry_lines():
            folder = huggingface_hub.snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=[*TEXTS, CARD, "*.safetensors"],
                local_files_only=not answers,
            )
    except Exception as error:  # network and hub fail in many ways, and all mean the same here
        if not answers:
            raise TagmaskError(
                f"{source}: the hub cannot be reached, nor is the run cached; check the network"
            ) from error
        raise TagmaskError(
            f"{source}: the hub did not give the run ({hub_reason(error)}); check name and network, and log in with "
            "`hf auth login` or set HF_TOKEN where the repository is private"
        ) from error
    lacking = [name for name in TEXTS if not (Path(folder) / name).is_file()]
    if lacking:
        raise TagmaskError(f"{source}: holds no {lacking[0]}, so it is no run of tagmask; `tagmask push` makes them")
    return Path(folder)


def check_name(repository: str) -> None:
    """Raise a TagmaskError where `repository` is not of the form OWNER/NAME."""
    if not REPOSITORY.fullmatch(repository):
        raise TagmaskError(f"{repository!r}: no name of a repository; expected OWNER/NAME, such as ada/street-tags")


def hub_reason(error: Exception) -> str:
    """Put what an error of the network or of the hub says in one line."""
    line, kind = first_line(error), type(error).__name__
    return kind if line == kind else f"{kind}: {line}"
