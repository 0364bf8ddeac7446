"""Small worlds that many tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tagmask.data.dataset import Dataset
from tagmask.data.synthetic import make_cooccur
from tagmask.engine import pipeline
from tagmask.recipes.load import Recipe, load_recipe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cooccur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set of 24 images of 48 x 48 and three classes."""
    return make_cooccur(tmp_path_factory.mktemp("cooccur") / "set", images=24, size=48, classes=3, seed=5)


@pytest.fixture(scope="session")
def photo(cooccur: Path) -> Path:
    return sorted((cooccur / "images").rglob("*.png"))[0]


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """The data that each training of the test learns from, in their order."""
    found: list[Dataset] = []
    train = pipeline.run_training

    def listening(recipe: Recipe, data: Dataset, *rest: Any, **more: Any) -> Any:
        found.append(data)
        return train(recipe, data, *rest, **more)

    monkeypatch.setattr(pipeline, "run_training", listening)
    return found


def tiny_recipe(method: str | dict[str, Any] = "seco", *overrides: str) -> Recipe:
    """A recipe whose every phase begins within a few steps, on a ViT of two blocks."""
    name = method if isinstance(method, str) else method["name"]
    sections: dict[str, dict[str, Any]] = {
        "cam": {"decoder_from": 2, "scales": [1.0]},
        "full": {},
        "seco": {
            "scales": [1.0, 0.5],
            "patches": 3,
            "patch_size": 16,
            "projection_hidden": 16,
            "queue": 31,
            "prototypes_from": 1,
            "contrast_from": 2,
            "decoder_from": 3,
            "quirks": [],
        },
    }
    extra = {} if isinstance(method, str) else method
    values = {
        "method": {"name": name, **sections[name], **extra},
        "views": {"crop": 48, "scale": [0.7, 1.3]},
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2},
        },
        "optimizer": {"lr": 1e-3, "warmup": 2},
        "training": {"steps": 6, "batch": 4, "workers": 0, "log_every": 1, "checkpoint_every": 0},
        "inference": {"size": 48},
    }
    return load_recipe(values, overrides)


STAGED_SIDE = 32
STAGED_SECTIONS: dict[str, dict[str, Any]] = {
    "sccam": {"rounds": 2, "subclasses": 2, "first_steps": 2, "stop_at": [0.5, 1.0], "scales": [1.0, 0.5]},
    "rca": {"memory": 8, "prototypes": 2, "hidden": 4, "contrast_from": 0, "memory_above": 0.0, "gather_from": 0},
    "cam": {"decoder_from": 100, "scales": [1.0]},
    "seco": {
        "scales": [1.0],
        "patches": 2,
        "patch_size": 16,
        "projection_hidden": 8,
        "queue": 8,
        "prototypes_from": 0,
        "contrast_from": 1,
        "decoder_from": 2,
        "quirks": [],
    },
}


def staged_recipe(method: str, **changes: Any) -> Recipe:
    """A recipe of several stages on a tiny ViT; `changes` are whole sections."""
    values: dict[str, Any] = {
        "method": {"name": method, **STAGED_SECTIONS[method]},
        "data": {"untagged": "negative"},
        "views": {"crop": STAGED_SIDE, "squash": True, "flip": 0},
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": STAGED_SIDE, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2},
        },
        "optimizer": {"lr": 1e-3, "warmup": 0},
        "training": {"steps": 4, "batch": 4, "workers": 0, "log_every": 1, "checkpoint_every": 1},
        "inference": {"size": STAGED_SIDE},
        "refine": {"name": "none" if method == "sccam" else "fusion", "background_score": 0.3, "alpha": 4},
        "segmenter": {"start": "classifier", "method": {"copies": [0.5]} if method == "rca" else {}},
    }
    return load_recipe({**values, **changes})
