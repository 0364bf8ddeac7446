"""Whether the masks of a run can be any good, judged by themselves and the tags, without a ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tagmask.data.dataset import Dataset, Record
from tagmask.data.masks import PngMask
from tagmask.engine.inference import Item, stream
from tagmask.methods.base import Method
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.load import InferenceConfig, ViewsConfig

FEW = 5  # images that bear a class, below which nothing is said of it
RARELY = 0.05  # the fraction of the images with its tag below which a class counts as never won
LOOKED_AT = 48  # images that a model is judged by
SMALL = 48  # pixels in training, three steps of a network at 16 pixels a step, below which things are hard to find
SWALLOWED = 0.8  # the fraction of what all classes got, in images of several tags, from which one takes too much


def mask_evidence(
    masks: Iterable[tuple[Sequence[int], np.ndarray]],
    classes: Sequence[str],
    last: Sequence[str] = (),
    views: ViewsConfig | None = None,
) -> list[str]:
    """Say what speaks against masks, a sentence each; masks that nothing speaks against give none.

    Args:
        masks: of each image the class indices of its tags, and the label map (H, W).
        classes: K names, in the order of the ids.
        last: names of classes that got what the others left, and so took nothing from them.
        views: of the training; where they say how long images are in it, classes of small things are named.
    """
    borne, won = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    sides, taken = np.zeros(len(classes)), np.zeros(len(classes))
    shared, company = 0.0, np.zeros(len(classes), np.int64)
    for tags, mask in masks:
        pixels = np.bincount(mask[mask != IGNORE].ravel(), minlength=len(classes) + 1)[1 : len(classes) + 1]
        own = list(tags)
        borne[own] += 1
        won[own] += pixels[own] > 0
        sides[own] += np.sqrt(pixels[own] / max(mask.shape) ** 2)
        if len(own) > 1 and pixels[own].sum():
            shared += 1
            taken[own] += pixels[own] / pixels[own].sum()
            company[own] += 1
    lost = [k for k in range(len(classes)) if borne[k] >= FEW and won[k] < RARELY * borne[k]]
    found: list[str] = []
    if lost:
        names = ", ".join(repr(classes[k]) for k in lost)
        found.append(
            f"{names}: in next to none of the masks of the images that bear {'it' if len(lost) == 1 else 'them'}, so "
            "the model will not find "
            + ("it" if len(lost) == 1 else "them")
            + "; train longer (training.steps), tag more images with and without, or leave "
            + ("it" if len(lost) == 1 else "them")
            + " out (data.classes)"
        )
    found += _small_things(sides / np.maximum(won, 1), won, classes, views)
    for k in range(len(classes)):
        fraction = taken[k] / max(shared, 1)
        if classes[k] not in last and shared >= FEW and fraction >= SWALLOWED and company[k] >= SWALLOWED * shared:
            found.append(
                f"{classes[k]!r} takes {100 * fraction:.0f} % of what all classes of an image get, so the masks of the "
                f"others are of little use; train without {classes[k]!r} (data.classes), or add images without it"
            )
    return found


def _small_things(sides: np.ndarray, won: np.ndarray, classes: Sequence[str], views: ViewsConfig | None) -> list[str]:
    """Name the classes whose things are small in training, in a sentence or none.

    Args:
        sides: (K,) mean side of a square as large as what an image shows of a class, in long sides of the image.
        won: (K,) in how many masks each class is.
        classes, views: as of `mask_evidence`.
    """
    if views is None or views.resize_long is None:
        return []
    seen = sides * sum(views.resize_long) / 2
    small = np.flatnonzero((won >= FEW) & (seen < SMALL))
    if not len(small):
        return []
    names, side = ", ".join(repr(classes[k]) for k in small.tolist()), int(np.ceil(seen[small].max()))
    return [
        f"{names}: small, no larger than {side} x {side} pixels on average as the network sees photographs; larger "
        f"crops find small things better and take twice as long (views.crop={_larger(views.crop)})"
    ]


def _larger(crop: int) -> int:
    """Return the side of crops of about twice the area, in pixels, a multiple of 28 or 32 as it is now."""
    multiple = 28 if crop % 28 == 0 and crop % 32 else 32
    return max(1, round(crop * 2**0.5 / multiple)) * multiple


def folder_evidence(
    folder: Path,
    dataset: Dataset,
    last: Sequence[str] = (),
    views: ViewsConfig | None = None,
    *,
    drawn: bool = False,
) -> list[str]:
    """Judge the masks `NAME.png` of a folder by `mask_evidence`; images without one are passed over.

    Args:
        folder: of the masks.
        dataset: the images, with their tags.
        last, views: as of `mask_evidence`.
        drawn: whether the images' own masks, where they have one, were learnt from in place of those.
    """
    found = ((record, folder / f"{record.name}.png") for record in dataset.records)
    masks = ((record.tags, _learnt(record, path, drawn)) for record, path in found if path.exists())
    return mask_evidence(masks, dataset.classes, last, views)


def _learnt(record: Record, path: Path, drawn: bool) -> np.ndarray:
    """Load the mask that was learnt from: the one that was made, or the one drawn in its place."""
    made = PngMask(path).ids()
    return record.mask.load(*made.shape) if drawn and record.mask is not None else made


def model_evidence(method: Method, dataset: Dataset, config: InferenceConfig) -> list[str]:
    """Judge what a trained decoder gives some of its own training images, spread over the set, by `mask_evidence`."""
    records = dataset.records[:: max(1, len(dataset) // LOOKED_AT)]
    items = [Item(record.name, record.image, record.tags) for record in records]
    done = stream(method, items, config.model_copy(update={"refine": "none"}), on_error=lambda *_: None)
    return mask_evidence(((each.item.tags or (), each.labels) for each in done), dataset.classes)
