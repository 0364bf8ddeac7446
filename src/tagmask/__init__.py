"""Image tags in, pixel masks out: weakly supervised semantic segmentation.

The public face, handed on lazily so that `import tagmask` costs nothing:

    import tagmask
    run = tagmask.train("photos/", recipe="seco/default", output="runs/first")
    tagmask.predict("runs/first", "new_photos/", output="masks/")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagmask.api import evaluate, evaluate_stages, import_checkpoint, label, load, predict, train
    from tagmask.data.dataset import Dataset, Record
    from tagmask.demonstration import demo
    from tagmask.errors import TagmaskError
    from tagmask.hub import push
    from tagmask.onnx_export import export_onnx
    from tagmask.recipe import Recipe, load_recipe
    from tagmask.reporting.report import report

__version__ = "0.1.0"

_HOMES = {
    "demo": "tagmask.demonstration",
    "evaluate": "tagmask.api",
    "evaluate_stages": "tagmask.api",
    "export_onnx": "tagmask.onnx_export",
    "import_checkpoint": "tagmask.api",
    "label": "tagmask.api",
    "load": "tagmask.api",
    "predict": "tagmask.api",
    "push": "tagmask.hub",
    "report": "tagmask.reporting.report",
    "train": "tagmask.api",
    "Dataset": "tagmask.data.dataset",
    "Record": "tagmask.data.dataset",
    "TagmaskError": "tagmask.errors",
    "Recipe": "tagmask.recipe",
    "load_recipe": "tagmask.recipe",
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
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tagmask' has no attribute {name!r}")
