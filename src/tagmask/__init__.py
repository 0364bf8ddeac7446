"""Image tags in, pixel masks out: weakly supervised semantic segmentation.

The public names are loaded when they are first used, so that `import tagmask` costs nothing:

    import tagmask
    run = tagmask.train("photos/", recipe="seco/default", output="runs/first")
    tagmask.predict("runs/first", "new_photos/", output="masks/")
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagmask.api import evaluate, evaluate_stages, import_checkpoint, label, load, predict, train
    from tagmask.api.demo import demo
    from tagmask.api.hub import push
    from tagmask.api.onnx import export_onnx
    from tagmask.api.report import report
    from tagmask.data.dataset import Dataset, Record
    from tagmask.errors import TagmaskError
    from tagmask.recipes.load import Recipe, load_recipe

_HOMES = {
    "demo": "tagmask.api.demo",
    "evaluate": "tagmask.api",
    "evaluate_stages": "tagmask.api",
    "export_onnx": "tagmask.api.onnx",
    "import_checkpoint": "tagmask.api",
    "label": "tagmask.api",
    "load": "tagmask.api",
    "predict": "tagmask.api",
    "push": "tagmask.api.hub",
    "report": "tagmask.api.report",
    "train": "tagmask.api",
    "Dataset": "tagmask.data.dataset",
    "Record": "tagmask.data.dataset",
    "TagmaskError": "tagmask.errors",
    "Recipe": "tagmask.recipes.load",
    "load_recipe": "tagmask.recipes.load",
}

__all__ = [  # noqa: RUF022  (in the order of use)
    "Dataset",
    "Record",
    "Recipe",
    "TagmaskError",
    "demo",
    "evaluate",
    "evaluate_stages",
    "export_onnx",
    "import_checkpoint",
    "label",
    "load",
    "load_recipe",
    "predict",
    "push",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("tagmask")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tagmask' has no attribute {name!r}")


class _FormerNames:
    """Finds modules under the names they had in version 0.1, and `tagmask.__main__`, which lives with the commands.

    Python asks it last, so that it is only reached for a name that no file of the package has.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> Any:
        if not name.startswith("tagmask."):
            return None
        if name == "tagmask.__main__":
            return importlib.import_module("importlib.util").spec_from_file_location(
                name, f"{__path__[0]}/cli/__main__.py"
            )
        return importlib.import_module("tagmask.api.former_names").find_spec(name)


sys.meta_path.append(_FormerNames)  # pyright: ignore[reportArgumentType]
