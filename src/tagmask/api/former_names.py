"""The names that modules had in version 0.1: each still imports, with a warning that says where its content is now."""

from __future__ import annotations

import importlib
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("cam", "export", "refine", "reporting", "training")
HOMES: dict[str, tuple[str, ...]] = {
    "api.datasets": ("data.splits",),
    "api.imports": ("api.checkpoints",),
    "api.masks": ("api.label", "api.predict", "api.write_masks"),
    "api.model": ("engine.model", "data.dataset"),
    "api.scores": ("api.evaluate", "evaluation.method"),
    "api.stage_scores": ("evaluation.stages",),
    "api.training": ("api.train",),
    "cam": ("ops",),
    "cam.files": ("data.cam_files",),
    "cam.labels": ("ops.labels",),
    "cam.merge": ("ops.cam",),
    "cam.multiscale": ("ops.cam",),
    "cam.summed": ("ops.cam",),
    "choose": ("api.choose", "api.machine"),
    "citations": ("evaluation.report.citations",),
    "cores": ("engine.device",),
    "data.check_report": ("cli.check_report",),
    "data.synthetic_contexts": ("data.synthetic.contexts",),
    "data.synthetic_objects": ("data.synthetic.objects",),
    "demonstration": ("api.demo",),
    "evaluation.report": ("evaluation.tables",),
    "export": ("data.writers",),
    "export.coco": ("data.writers.coco",),
    "export.cvat": ("data.writers.cvat",),
    "export.label_studio": ("data.writers.label_studio",),
    "export.labelled": ("data.writers.labelled",),
    "export.masks": ("api.export",),
    "export.onnx": ("engine.onnx",),
    "export.output": ("data.writers.output",),
    "export.png": ("data.pictures", "data.label_maps"),
    "export.regions": ("data.writers.regions",),
    "export.voc": ("data.writers.voc",),
    "export.yolo": ("data.writers.yolo",),
    "hub": ("api.hub", "engine.fetch"),
    "inference": ("engine.inference", "engine.photographs"),
    "memory": ("engine.device",),
    "methods.build": ("methods.registry",),
    "methods.contrast": ("methods.seco_losses",),
    "methods.distributed": ("ops.distributed",),
    "methods.kmeans": ("ops.kmeans",),
    "methods.multi_scale": ("ops.multi_scale",),
    "methods.rca_training": ("methods.rca",),
    "methods.staged": ("methods.combined",),
    "models.imports": ("models.published.resnet38", "models.published.start", "models.weight_files"),
    "models.seco_checkpoint": ("models.published.seco",),
    "onnx_export": ("api.onnx",),
    "palette": ("data.label_maps",),
    "pipeline": ("engine.stage",),
    "precision": ("engine.device",),
    "progress": ("engine.progress",),
    "recipe": ("recipes.load",),
    "recipe_sections": ("recipes.sections", "recipes.data_section"),
    "recipe_stages": ("recipes.stages",),
    "refine": ("ops",),
    "refine.affinity": ("ops.affinity",),
    "refine.background": ("ops.labels",),
    "refine.crf": ("ops.crf",),
    "refine.energy": ("ops.energy",),
    "refine.lattice": ("ops.lattice",),
    "refine.par": ("ops.par",),
    "refine.saliency": ("ops.saliency",),
    "refine_verb": ("api.refine",),
    "refinement": ("engine.refine_folder", "engine.refiners"),
    "reporting": ("evaluation.report",),
    "reporting.charts": ("evaluation.report.charts",),
    "reporting.confusions": ("evaluation.report.confusions",),
    "reporting.costs": ("evaluation.report.costs",),
    "reporting.page": ("evaluation.report.page",),
    "reporting.page.html.j2": ("evaluation.report.page.html.j2",),
    "reporting.panels": ("evaluation.report.panels",),
    "reporting.report": ("api.report",),
    "reporting.study": ("evaluation.study",),
    "run": ("engine.run", "data.files"),
    "stages": ("engine.pipeline", "engine.model", "engine.run"),
    "subcategories": ("engine.clusters",),
    "training": ("engine",),
    "training.checkpoint": ("engine.checkpoint",),
    "training.loop": ("engine.loop",),
    "training.poly_sgd": ("engine.optim",),
    "training.schedule": ("engine.optim",),
}
"""Former module: the modules that hold its names now, the first of them named in the warning."""


class _Forwarder:
    """Loads an empty module that looks its names up where they are now."""

    def __init__(self, homes: tuple[str, ...]) -> None:
        self.homes = homes

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its lookup, and warn."""
        homes = self.homes
        warnings.warn(
            f"{module.__name__} is now tagmask.{homes[0]}; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=2,
        )

        def lookup(name: str) -> Any:
            if not name.startswith("__"):
                for home in homes:
                    found = getattr(importlib.import_module(f"tagmask.{home}"), name, None)
                    if found is not None:
                        return found
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = lookup


def find_spec(name: str) -> ModuleSpec | None:
    """The import specification of a former module, None for any other name."""
    short = name.removeprefix("tagmask.")
    if short not in HOMES:
        return None
    return ModuleSpec(name, _Forwarder(HOMES[short]), is_package=short in PACKAGES)  # pyright: ignore
