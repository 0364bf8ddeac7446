"""The demonstration: a synthetic set, plain CAM and another method trained on its tags, side by side."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tagmask.api import evaluate_cams, evaluate_method, label, load, open_data, train
from tagmask.data.dataset import Dataset
from tagmask.data.files import write_text
from tagmask.data.images import open_image
from tagmask.data.label_maps import write_png
from tagmask.data.pictures import heat_map, overlay
from tagmask.data.synthetic import make_cooccur
from tagmask.engine.inference import Item, stream
from tagmask.evaluation.result import Result
from tagmask.evaluation.tables import to_json
from tagmask.recipes.load import load_recipe

logger = logging.getLogger(__name__)

IMAGES, SIZE, MEET, ALONE = 3000, 64, 0.9, 0.7
SHOWN, ENLARGED = 8, 3


def demo(output: Path | str = "demo", *, method: str = "seco", seed: int = 0) -> dict[str, float]:
    """Run the demonstration.

    Makes a set in which objects meet their context nine times in ten, trains plain CAM and `method` from scratch on
    its tags, and writes masks, pictures and scores. What is done is not done again.

    Args:
        output: folder for everything.
        method: what to set beside plain CAM.
        seed: of data and training.

    Returns:
        mIoU in percent of both decoders on the test split, no tags given.
    """
    folder, start = Path(output) / f"seed{seed}", time.perf_counter()
    data = folder / "data"
    if not (data / "tags.csv").exists():
        logger.info(
            "making %d images of %d x %d: objects meet their context %.0f%% of the time", IMAGES, SIZE, SIZE, 100 * MEET
        )
        make_cooccur(data, images=IMAGES, size=SIZE, meet=MEET, alone=ALONE, seed=seed)
    results: dict[str, Result] = {}
    for name in dict.fromkeys(("cam", method)):
        logger.info("training %s", name)
        run = train(data, recipe=f"{name}/demo", output=folder / name, overrides=[f"training.seed={seed}"])
        model = load(run)
        recipe = load_recipe(run / "recipe.yaml")
        held_out = open_data(data, recipe.data).split(["test"])
        results[name] = evaluate_method(model.method, held_out, recipe.inference, source="decoder")
        cams, _ = evaluate_cams(model.method, held_out, recipe.inference)
        write_text(run / "scores.json", _scores(results[name], cams))
        label(run, data, output=run / "masks", split=["train"])
    write_png(folder / "pictures.png", _pictures(folder, list(results), held_out))
    logger.info("test split, decoder, no tags given, protocol seco; FP/TP is the mean over classes")
    for name, result in results.items():
        unbounded = f" (+ {result.scores.unbounded} infinite)" if result.scores.unbounded else ""
        ratio = result.scores.mean_confusion_ratio
        logger.info("%-6s mIoU %.1f %%   FP/TP %.2f%s", name, 100 * result.scores.miou, ratio, unbounded)
    logger.info("masks: %s/*/masks   pictures: %s/pictures.png   metrics: %s/*/metrics.jsonl", *3 * (folder,))
    logger.info("%.0f seconds", time.perf_counter() - start)
    return {name: round(100 * result.scores.miou, 2) for name, result in results.items()}


def _scores(decoder: Result, cams: Result) -> str:
    return json.dumps({"decoder": to_json(decoder), "cam": to_json(cams)}, indent=1) + "\n"


def _pictures(folder: Path, names: list[str], dataset: Dataset) -> Image.Image:
    """Draw a sheet: photograph with tags, CAM of the first tag and predicted mask of each method, ground truth."""
    records = dataset.records[:SHOWN]
    columns = [[_enlarged(np.asarray(open_image(record.image))) for record in records]]
    titles = ["image and tags"]
    for name in names:
        model = load(folder / name)
        inference = model.run.recipe.inference
        by_source = {}
        for source in ("cam", "decoder"):
            items = [Item(record.name, record.image, record.tags if source == "cam" else None) for record in records]
            by_source[source] = {p.item.name: p for p in stream(model.method, items, inference, source=source)}
        heat, masks = [], []
        for record in records:
            image = np.asarray(open_image(record.image))
            cam = by_source["cam"][record.name].scores[record.tags[0]].numpy()
            cam = np.asarray(Image.fromarray(cam).resize(image.shape[1::-1], Image.Resampling.BILINEAR))
            heat.append(_enlarged(heat_map(image, cam)))
            masks.append(_enlarged(overlay(image, by_source["decoder"][record.name].labels)))
        columns += [heat, masks]
        titles += [f"{name}: CAM of the first tag", f"{name}: mask, no tags given"]
    ground_truth = []
    for record in records:
        image = np.asarray(open_image(record.image))
        assert record.mask is not None
        ground_truth.append(_enlarged(overlay(image, record.mask.load(*image.shape[:2]))))
    columns.append(ground_truth)
    titles.append("ground truth")
    side, head = SIZE * ENLARGED, 16
    sheet = Image.new("RGB", (len(columns) * (side + 4), head + SHOWN * (side + head + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (title, pictures) in enumerate(zip(titles, columns, strict=True)):
        draw.text((x * (side + 4) + 2, 2), title, fill="black")
        for y, picture in enumerate(pictures):
            sheet.paste(picture, (x * (side + 4), head + y * (side + head + 4)))
    for y, record in enumerate(records):
        tags = ", ".join(dataset.classes[tag] for tag in record.tags)
        draw.text((2, head + y * (side + head + 4) + side), tags, fill="black")
    return sheet


def _enlarged(image: np.ndarray) -> Image.Image:
    side = SIZE * ENLARGED
    return Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
