"""The verbs: train, label, predict, evaluate, import, load. The command line and the page call nothing else."""

from tagmask.api.datasets import evaluation_split, open_data, to_evaluate, training_split
from tagmask.api.imports import import_checkpoint
from tagmask.api.masks import Written, label, predict
from tagmask.api.model import Model, PathLike, is_on_hub, load
from tagmask.api.scores import evaluate, evaluate_cams, evaluate_method
from tagmask.api.stage_scores import StageScore, evaluate_stages
from tagmask.api.training import train

__all__ = [
    "Model",
    "PathLike",
    "StageScore",
    "Written",
    "evaluate",
    "evaluate_cams",
    "evaluate_method",
    "evaluate_stages",
    "evaluation_split",
    "import_checkpoint",
    "is_on_hub",
    "label",
    "load",
    "open_data",
    "predict",
    "to_evaluate",
    "train",
    "training_split",
]
