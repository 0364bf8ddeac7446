"""The verb `export onnx`: a run's model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from tagmask import api
from tagmask.data.files import check_writable
from tagmask.engine.onnx import OnnxExport, check_free, write_onnx
from tagmask.errors import TagmaskError


def export_onnx(
    run: api.PathLike,
    output: api.PathLike = "model.onnx",
    *,
    size: int | tuple[int, int] | None = None,
    dynamic: bool = False,
    labels: bool = False,
    overwrite: bool = False,
) -> OnnxExport:
    """Write a run's model as ONNX, checked against torch; see `tagmask.engine.onnx.write_onnx` for what the file takes.

    Args:
        run: a run folder, or `hf-hub:OWNER/NAME` of a pushed one.
        output: the file.
        size: side of a square, or height and width, to fix; by default `inference.size` of the recipe.
        dynamic: leave height and width free instead; so it is by default where the recipe has no `inference.size`.
        labels: give label ids instead of scores.
        overwrite: replace a file that is there, whoever wrote it.

    Raises:
        TagmaskError: size and dynamic together; whatever is wrong with run or output; see `write_onnx`.
    """
    if dynamic and size is not None:
        raise TagmaskError("give either a size or --dynamic")
    if Path(output).is_dir():
        raise TagmaskError(f"{output}: a folder; give the name of the ONNX file to write")
    if not overwrite:
        check_free(Path(output))
    check_writable(Path(output))  # an export takes a while
    model = api.load(run, device="cpu")
    model.check_decoder()
    inference = model.run.recipe.inference
    chosen = None if dynamic else size or inference.size
    sides = (chosen, chosen) if isinstance(chosen, int) else chosen
    # One forward sees an image at one size: the mean of those at which the recipe has it seen.
    long_side = inference.long_side and round(inference.long_side * mean(inference.scales))
    return write_onnx(model.method, Path(output), classes=model.classes, size=sides, labels=labels, long_side=long_side)
