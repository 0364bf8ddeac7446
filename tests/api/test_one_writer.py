"""Every verb that writes a folder refuses one that another process is writing, and touches nothing there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tagmask
from tagmask.api.export import export_masks
from tagmask.data.lock import locked
from tagmask.data.synthetic import make_cooccur
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(scope="module")
def run(cooccur: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe("cam", "training.steps=2", "method.decoder_from=0")
    return tagmask.train(cooccur, recipe=recipe, output=tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def masks(run: Path, cooccur: Path) -> Path:
    return tagmask.predict(run, cooccur, output=run.parent / "masks").folder


VERBS: dict[str, tuple[bool, Callable[[Path, Path, Path, Path], object]]] = {
    "train": (False, lambda run, masks, data, out: tagmask.train(data, recipe=tiny_recipe("cam"), output=out)),
    "predict": (False, lambda run, masks, data, out: tagmask.predict(run, data, output=out)),
    "label": (False, lambda run, masks, data, out: tagmask.label(run, data, output=out)),
    "CAMs of label": (
        False,
        lambda run, masks, data, out: tagmask.label(
            run, data, output=out.with_name("masks"), source="cam", save_cams=out
        ),
    ),
    "export": (True, lambda run, masks, data, out: export_masks(masks, data, out, format="voc")),
    "data make": (True, lambda run, masks, data, out: make_cooccur(out, images=2, size=32)),
}


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_second_writer_is_refused(verb: str, run: Path, masks: Path, cooccur: Path, tmp_path: Path) -> None:
    replaced, call = VERBS[verb]
    output = tmp_path / "out"
    with locked(output, replaced=replaced):
        before = sorted(output.rglob("*")) if output.exists() else []
        with pytest.raises(TagmaskError, match=r"out: process \d+ on .* has been writing there since"):
            call(run, masks, cooccur, output)
        assert (sorted(output.rglob("*")) if output.exists() else []) == before
