"""Photograph, CAMs, mask, ground truth and uncertainty of single images, as pictures that need no file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.data.dataset import Dataset
from tagmask.data.images import open_image
from tagmask.data.pictures import colours_of, heat_map, overlay
from tagmask.engine.inference import Item, Prediction, Source, stream
from tagmask.evaluation.study import ImageFacts
from tagmask.methods.base import Method
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.load import InferenceConfig

SIDE = 288  # pixels of the longer side
MOST_CAMS = 3
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        title: above it.
        alt: what a person hears who does not see it.
        source: a `data:` URI.
    """

    title: str
    alt: str
    source: str


@dataclass(frozen=True)
class Panel:
    """The pictures of one image.

    Attributes:
        facts: of the image.
        pictures: side by side.
        legend: (name, CSS colour) of what mask and ground truth show.
    """

    facts: ImageFacts
    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...]


def panels(
    method: Method, dataset: Dataset, chosen: Sequence[ImageFacts], config: InferenceConfig, source: Source = "decoder"
) -> dict[str, Panel]:
    """Return the panels of the chosen images by name: photograph, CAM of up to three tags, mask, ground truth.

    Where the masks are the decoder's, its uncertainty follows.
    """
    records = [facts.record for facts in chosen]
    told = [Item(record.name, record.image, record.tags, record.context) for record in records]
    items = told if source == "cam" else [Item(record.name, record.image) for record in records]
    plain = config.model_copy(update={"refine": "none"})
    masks = {found.item.name: found for found in stream(method, items, config, source=source)}
    cams = {found.item.name: found.scores.float().cpu() for found in stream(method, told, plain, source="cam")}
    return {
        facts.record.name: _panel(facts, dataset, masks[facts.record.name], cams[facts.record.name], source)
        for facts in chosen
    }


def colour(label: int) -> str:
    """Return the CSS colour of a label id."""
    return "rgb({}, {}, {})".format(*colours_of(np.array([label], np.uint16))[0])


def _panel(facts: ImageFacts, dataset: Dataset, prediction: Prediction, cams: Tensor, source: Source) -> Panel:
    record, classes = facts.record, dataset.classes
    photograph = open_image(record.image)
    size = _shown_size(photograph.width, photograph.height)
    image = np.asarray(photograph.resize(size, Image.Resampling.BILINEAR))
    pictures = [_picture("image", f"photograph {record.name}", image)]
    for tag in record.tags[:MOST_CAMS]:
        heat = heat_map(image, _map_at(cams[tag], size))
        pictures.append(_picture(f"CAM: {classes[tag]}", f"CAM of {classes[tag]} over {record.name}", heat))
    labels = prediction.labels
    pictures.append(_mask("mask", record.name, labels, image, classes))
    ids = set(np.unique(labels).tolist())
    if record.mask is not None:
        ground_truth = record.mask.load(*labels.shape)
        pictures.append(_mask("ground truth", record.name, ground_truth, image, classes))
        ids |= set(np.unique(ground_truth).tolist())
    if source == "decoder":
        winning = prediction.scores.float().cpu().softmax(dim=0).amax(dim=0)
        doubt = heat_map(image, _map_at(1 - winning, size))
        pictures.append(
            _picture("uncertainty", f"uncertainty, 1 - probability of the winning class, over {record.name}", doubt)
        )
    legend = [(_name(label, classes), colour(label)) for label in sorted(ids) if label]
    return Panel(facts, tuple(pictures), tuple(legend))


def _mask(title: str, name: str, labels: np.ndarray, image: np.ndarray, classes: Sequence[str]) -> Picture:
    shown = np.asarray(Image.fromarray(labels).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    parts = [f"{_name(label, classes)} {(labels == label).mean():.0%}" for label in np.unique(labels).tolist()]
    return _picture(title, f"{title} of {name}: {', '.join(parts)}", overlay(image, shown))


def _name(label: int, classes: Sequence[str]) -> str:
    return "ignored" if label == IGNORE else classes[label - 1] if label else "background"


def _map_at(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map (h, w) in [0, 1] to (height, width); `size` is (width, height)."""
    width, height = size
    enlarged = torch.nn.functional.interpolate(values[None, None], size=(height, width), mode="bilinear")
    return enlarged[0, 0].numpy()


def _shown_size(width: int, height: int) -> tuple[int, int]:
    factor = SIDE / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _picture(title: str, alt: str, pixels: np.ndarray) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=QUALITY)
    return Picture(title, alt, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode())
