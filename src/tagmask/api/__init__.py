"""The verbs, one a file: all that the command line, the page and other programs call."""

from tagmask.api.checkpoints import import_checkpoint
from tagmask.api.evaluate import evaluate
from tagmask.api.label import label
from tagmask.api.predict import predict
from tagmask.api.train import next_steps, train
from tagmask.api.write_masks import Written
from tagmask.data.dataset import PathLike
from tagmask.data.splits import evaluation_split, open_data, to_evaluate, training_split
from tagmask.engine.model import Model, is_on_hub, load
from tagmask.evaluation.method import evaluate_cams, evaluate_method
from tagmask.evaluation.stages import StageScore, evaluate_stages

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
    "next_steps",
    "open_data",
    "predict",
    "to_evaluate",
    "train",
    "training_split",
]
