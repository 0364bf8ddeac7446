"""Published checkpoints, made into run folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tagmask.data.dataset import PathLike, check_class_list
from tagmask.data.readers.voc import CLASSES as VOC_CLASSES
from tagmask.engine.checkpoint import save_model
from tagmask.engine.run import create_run
from tagmask.errors import TagmaskError
from tagmask.methods.registry import build_method
from tagmask.models.seco_checkpoint import to_tag_network, vit_options
from tagmask.models.weights import read_state
from tagmask.recipes.load import load_recipe


def import_checkpoint(
    kind: str, file: PathLike, output: PathLike, *, classes: PathLike | None = None, overrides: Iterable[str] = ()
) -> Path:
    """Make a run folder of a published checkpoint.

    Args:
        kind: `seco`.
        file: the checkpoint, under the reference's names, `module.` before them or not.
        output: the run folder to make.
        classes: a file with a name a line; by default VOC's where there are 20, else `class 1`, `class 2`, ...
        overrides: of the recipe, `seco/voc`.

    Raises:
        TagmaskError: not such a checkpoint; names what does not fit.
    """
    if kind != "seco":
        raise TagmaskError(f"no importer for {kind!r}; there is: seco")
    origin = str(file)
    state = to_tag_network(read_state(Path(file)), origin)
    count = len(state["classifier.weight"])
    names = _class_names(classes, count)
    recipe = load_recipe("seco/voc", overrides)
    options = vit_options(state, origin)
    backbone = recipe.backbone.model_copy(update={"weights": None, "options": options})
    method = build_method(recipe.model_copy(update={"backbone": backbone}), count)
    try:
        method.network.load_state_dict(state)
    except RuntimeError as error:
        raise TagmaskError(f"{origin}: does not fit a SeCo network: {str(error).splitlines()[-1].strip()}") from None
    run = create_run(Path(output), recipe.model_copy(update={"backbone": backbone}), names)
    save_model(run.folder, method.network)
    return run.folder


def _class_names(classes: PathLike | None, count: int) -> tuple[str, ...]:
    if classes is None:
        return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {index + 1}" for index in range(count))
    path = Path(classes)
    if not path.is_file():
        raise TagmaskError(f"{path}: no such file; expected {count} class names, one a line")
    names = check_class_list(path.read_text(encoding="utf-8").splitlines(), str(path))
    if len(names) != count:
        raise TagmaskError(f"{path}: {len(names)} classes, but the checkpoint's classifier has {count}")
    return names
