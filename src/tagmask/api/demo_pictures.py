"""Draw what the demonstration shows: rows of photographs, class activation maps and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tagmask.api import load, open_data
from tagmask.data.dataset import Record
from tagmask.data.images import open_image
from tagmask.data.pictures import heat_map, overlay
from tagmask.engine.checkpoint import STATE_FILE, read_training_state
from tagmask.engine.inference import Item, Source, stream
from tagmask.methods.base import Method
from tagmask.methods.registry import build_method
from tagmask.recipes.load import InferenceConfig, load_recipe

SHOWN, SIDE, HEAD, GAP = 8, 192, 16, 4  # rows; pixels of a picture, of a line of text, between pictures
Column = tuple[str, Sequence[np.ndarray]]


def sheet(runs: Mapping[str, Path], data: Path) -> Image.Image:
    """Draw a sheet: photograph with tags, CAM of the first tag and predicted mask of each method, ground truth.

    Args:
        runs: finished run folders by the names that they are shown under.
        data: the synthetic set; test images are shown.
    """
    dataset = open_data(data, load_recipe(next(iter(runs.values())) / "recipe.yaml").data).split(["test"])
    records = dataset.records[:SHOWN]
    columns: list[Column] = []
    for name, run in runs.items():
        model = load(run)
        inference = model.run.recipe.inference
        columns.append((f"{name}: CAM of the first tag", _heat(model.method, records, inference)))
        columns.append((f"{name}: mask, no tags given", _masks(model.method, records, inference, "decoder")))
    return _drawn(records, dataset.classes, columns)


def early_sheet(run: Path, data: Path) -> Image.Image | None:
    """Draw a sheet of a training that goes on: photograph with tags, CAM of the first tag, mask made of the tags' CAMs.

    Returns:
        None where there is no state of the training yet.
    """
    if not (run / STATE_FILE).exists():
        return None
    recipe = load_recipe(run / "recipe.yaml")
    dataset = open_data(data, recipe.data).split(["test"])
    records = dataset.records[:SHOWN]
    method = build_method(recipe, len(dataset.classes), pretrained=False)
    state = read_training_state(run / STATE_FILE)
    method.load_state_dict(state["method"])
    after = f"after {state['step']} steps"
    columns = [
        (f"CAM of the first tag, {after}", _heat(method.eval(), records, recipe.inference)),
        ("mask, tags given", _masks(method, records, recipe.inference, "cam")),
    ]
    return _drawn(records, dataset.classes, columns)


def _heat(method: Method, records: Sequence[Record], inference: InferenceConfig) -> list[np.ndarray]:
    """Draw the CAM of each image's first tag over it."""
    items = [Item(record.name, record.image, record.tags) for record in records]
    found = {each.item.name: each.scores for each in stream(method, items, inference, source="cam")}
    drawn = []
    for record in records:
        image = np.asarray(open_image(record.image))
        cam = Image.fromarray(found[record.name][record.tags[0]].numpy())
        drawn.append(heat_map(image, np.asarray(cam.resize(image.shape[1::-1], Image.Resampling.BILINEAR))))
    return drawn


def _masks(method: Method, records: Sequence[Record], inference: InferenceConfig, source: Source) -> list[np.ndarray]:
    """Draw each image's mask over it; CAMs are told the tags."""
    items = [Item(record.name, record.image, record.tags if source == "cam" else None) for record in records]
    found = {each.item.name: each.labels for each in stream(method, items, inference, source=source)}
    return [overlay(np.asarray(open_image(record.image)), found[record.name]) for record in records]


def _drawn(records: Sequence[Record], classes: Sequence[str], columns: Sequence[Column]) -> Image.Image:
    """Lay out the pictures under titles, the photographs with their tags first and the ground truth last."""
    images = [np.asarray(open_image(record.image)) for record in records]
    ground_truth = []
    for record, image in zip(records, images, strict=True):
        assert record.mask is not None
        ground_truth.append(overlay(image, record.mask.load(*image.shape[:2])))
    columns = [("image and tags", images), *columns, ("ground truth", ground_truth)]
    row = SIDE + HEAD + GAP
    picture = Image.new("RGB", (len(columns) * (SIDE + GAP), HEAD + len(records) * row), "white")
    draw = ImageDraw.Draw(picture)
    for x, (title, drawn) in enumerate(columns):
        draw.text((x * (SIDE + GAP) + 2, 2), title, fill="black")
        for y, each in enumerate(drawn):
            enlarged = Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.paste(enlarged, (x * (SIDE + GAP), HEAD + y * row))
    for y, record in enumerate(records):
        draw.text((2, HEAD + y * row + SIDE), ", ".join(classes[tag] for tag in record.tags), fill="black")
    return picture
