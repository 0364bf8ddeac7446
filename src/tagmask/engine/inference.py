"""Images through a trained method to label maps, one after the other: what every verb that labels images shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.images import is_slide_name
from tagmask.data.rasters import Picture, Raster, open_raster, raster_size
from tagmask.engine.device import autocast, keep_freed_memory
from tagmask.engine.label_map import Source, as_array, candidates, refine_planes, to_label_map
from tagmask.engine.photographs import Photograph, network_size, open_ahead
from tagmask.engine.tiles import label_tiles
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.label_ids import IGNORE, label_dtype
from tagmask.ops.labels import beside_context, weighed_by_tags
from tagmask.ops.resize import resize
from tagmask.recipes.load import InferenceConfig

NEVER = -1e4  # the logit of a label that may not win
PIXELS_WAITING = 256_000_000  # of photographs that wait for others of their size, at 3 bytes each
WINDOW = 128
"""Consecutive images among which those of one size are put together for the network.

A device may take other kernels for a batch of another size, and a score then differs by rounding with the images that
go through the network beside it. As no window reaches further, the masks of many machines are, byte for byte, those of
one of them, wherever the work is divided at multiples of this number.
"""
BATCH = 8  # most images a forward


def check_source(source: str) -> None:
    """Raise a TagmaskError where `source` is no `Source`, for callers whose types nobody checks."""
    if source not in get_args(Source):
        raise TagmaskError(f"source: {source!r} is neither of {', '.join(get_args(Source))}")


@dataclass(frozen=True)
class Item:
    """One image that is to be labelled.

    Attributes:
        name: of the output.
        path: of the image.
        tags: class indices it bears; None where nobody says.
        context: indices of context classes it shows, for CAMs of a classifier that knows some.
    """

    name: str
    path: Path
    tags: tuple[int, ...] | None = None
    context: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """One image's result.

    Attributes:
        item: what was asked.
        labels: (H, W) uint8, of over 254 classes uint16, at the image's own size.
        scores: (C, h, w) float at network size: decoder logits, or CAMs in [0, 1] of all K classes.
        confidence: the winner's fraction of the scores, in 0..1, as a mean over the pixels.
    """

    item: Item
    labels: np.ndarray
    scores: Tensor
    confidence: float


@torch.inference_mode()
def stream(
    method: Method,
    items: Iterable[Item],
    config: InferenceConfig,
    *,
    source: Source = "decoder",
    batch: int = BATCH,
    on_error: Callable[[Item, TagmaskError], None] | None = None,
) -> Iterator[Prediction]:
    """Label images, and give each as soon as it is done.

    Images are opened ahead in threads; those of one size go through the network together.

    Args:
        method: trained, in eval mode, on its device.
        items: what to label; where tags are given, only they and background can win.
        config: sizes, scales, flip, refinement.
        source: `decoder`, or `cam` (which needs tags).
        batch: most images a forward.
        on_error: told of images that do not open, which are then left out; by default the error is raised.
    """
    if next(method.parameters()).device.type == "cpu":
        keep_freed_memory()
    told = _raised if on_error is None else on_error
    remaining = iter(items)
    while window := list(islice(remaining, WINDOW)):
        whole, large = apart(window, config, source)
        photographs = open_ahead((item.path for item in whole), config, most=4 * batch)
        for group in same_size(whole, photographs, batch, told):
            yield from _predictions(method, group, config, source)
        yield from large_predictions(method, large, config, batch, told)


def _raised(_: Item, error: TagmaskError) -> None:
    raise error


def apart(window: Sequence[Item], config: InferenceConfig, source: Source) -> tuple[list[Item], list[Item]]:
    """Part images into those that are labelled as a whole and those that are labelled in tiles."""
    large = {item for item in window if source == "decoder" and _is_beyond_tile(item.path, config)}
    return [item for item in window if item not in large], [item for item in window if item in large]


def same_size(
    items: Sequence[Item],
    photographs: Iterable[Photograph | TagmaskError],
    batch: int,
    on_error: Callable[[Item, TagmaskError], None],
) -> Iterator[list[tuple[Item, Photograph]]]:
    """Put a window's photographs of one size together, at most `batch` at a time, as they come.

    Args:
        items: at most `WINDOW`.
        photographs: of each item its own, or why it does not open.
        batch: most images of a group.
        on_error: told of images that do not open, which are then left out.
    """
    waiting: dict[torch.Size, list[tuple[Item, Photograph]]] = defaultdict(list)
    held = 0
    for item, photograph in zip(items, photographs, strict=True):
        if isinstance(photograph, TagmaskError):
            on_error(item, photograph)
            continue
        group = waiting[photograph.pixels.shape]
        group.append((item, photograph))
        held += photograph.kept_pixels
        # With many sizes, as many groups wait to become full. Where they get too large, smaller batches have to do.
        if len(group) == batch or held > PIXELS_WAITING:
            waiting[photograph.pixels.shape] = []
            held -= sum(own.kept_pixels for _, own in group)
            yield group
    yield from filter(None, waiting.values())


def large_predictions(
    method: Method,
    items: Iterable[Item],
    config: InferenceConfig,
    batch: int,
    on_error: Callable[[Item, TagmaskError], None],
) -> Iterator[Prediction]:
    """Label images tile by tile, by the decoder; `on_error` is told of those that do not open."""
    for item in items:
        try:
            with open_raster(item.path, config.microns) as raster:
                prediction = _tiled(method, item, raster, config, batch)
        except TagmaskError as error:
            on_error(item, error)
            continue
        yield prediction


@torch.inference_mode()
def predict_pictures(
    method: Method, pictures: Sequence[Image.Image], tags: tuple[int, ...] | None, config: InferenceConfig
) -> list[Prediction]:
    """Label upright RGB pictures by the decoder, in their order; those of one size go through the network together.

    Args:
        method: trained, in eval mode, on its device.
        pictures: few enough to go through the network at once.
        tags: class indices that may win beside background; None: all.
        config: sizes, scales, flip, refinement.
    """
    groups: dict[torch.Size, list[tuple[Item, Photograph]]] = defaultdict(list)
    found: list[Prediction] = []
    for number, picture in enumerate(pictures):
        item = Item(str(number), Path(), tags)
        if config.tile is not None and max(picture.size) > config.tile:
            found.append(_tiled(method, item, Picture(picture), config, len(pictures)))
            continue
        photograph = Photograph.of(picture, config)
        groups[photograph.pixels.shape].append((item, photograph))
    found += [own for group in groups.values() for own in _predictions(method, group, config, "decoder")]
    return sorted(found, key=lambda own: int(own.item.name))


def _predictions(
    method: Method, group: Sequence[tuple[Item, Photograph]], config: InferenceConfig, source: Source
) -> Iterator[Prediction]:
    """Label photographs of one size with a single forward."""
    for (item, photograph), own in zip(group, group_scores(method, group, config, source), strict=True):
        labels, confidence = to_label_map(own, item.tags, photograph, config, source, method.background)
        yield Prediction(item, labels, own, confidence)


def group_scores(
    method: Method, group: Sequence[tuple[Item, Photograph]], config: InferenceConfig, source: Source
) -> Iterator[Tensor]:
    """Score photographs of one size, at least one, with a single forward; give what `to_label_map` takes of each."""
    device = next(method.parameters()).device
    pixels = torch.stack([photograph.pixels for _, photograph in group]).to(device)
    images = method.network.backbone.normalise(pixels.float() / 255)
    scores = score(method, images, config, source)
    weights = None
    if source == "decoder" and config.tag_weight and any(item.tags is None for item, _ in group):
        weights = _tag_weights(method, images, config)
    for number, ((item, _), own) in enumerate(zip(group, scores, strict=True)):
        if weights is not None and item.tags is None:
            own = weighed_by_tags(own, weights[number], background=method.background, views=1 + config.flip)
        if source == "cam" and len(own) > method.num_classes:  # CAMs of context classes follow those of the classes
            seen = [method.num_classes + index for index in item.context]
            own = beside_context(own[: method.num_classes], own[seen])
        yield own


def _tag_weights(method: Method, images: Tensor, config: InferenceConfig) -> Tensor:
    """Guess the tags of normalised images: (B, K) logarithms of their probabilities, times `inference.tag_weight`."""
    with autocast(images.device, config.precision):
        logits = method.tag_logits(images)[:, : method.num_classes]
    return config.tag_weight * F.logsigmoid(logits.float())


def _is_beyond_tile(path: Path, config: InferenceConfig) -> bool:
    """Say whether the decoder labels an image in tiles: one with a longer side than `inference.tile`, or a whole slide.

    CAMs are scaled to their maximum in an image, which a tile would not have: they are always made of whole images.
    """
    if config.tile is None:
        return False
    try:
        return is_slide_name(path.name) or max(raster_size(path)) > config.tile
    except TagmaskError:  # it is said where the image is opened
        return False


def _tiled(method: Method, item: Item, raster: Raster, config: InferenceConfig, batch: int) -> Prediction:
    """Label a large image tile by tile, by the decoder."""
    assert config.tile is not None
    channels = method.num_classes + int(method.background)
    if not (item.tags is None or item.tags or method.background):  # neither a tag nor background may win
        nothing = np.full(raster.size[::-1], IGNORE, label_dtype(method.num_classes))
        return Prediction(item, nothing, torch.full((channels, 1, 1), NEVER), 1.0)
    device = next(method.parameters()).device
    ids = torch.zeros(0)

    def planes_of(pictures: Sequence[Image.Image]) -> list[Tensor]:
        nonlocal ids
        photographs = [Photograph.of(picture, config) for picture in pictures]
        pixels = torch.stack([photograph.pixels for photograph in photographs]).to(device)
        scores = score(method, method.network.backbone.normalise(pixels.float() / 255), config, "decoder")
        found = []
        for own, photograph in zip(scores, photographs, strict=True):
            planes, ids = candidates(own, item.tags, config, "decoder", method.background)
            found.append(planes if photograph.small is None else refine_planes(planes, photograph, config, "decoder"))
        return found

    refined = config.refine != "none"
    done = label_tiles(raster, planes_of, tile=config.tile, longest=config.longest, batch=batch, probabilities=refined)
    # Scores of all labels, as of an image that is seen as a whole; those that may not win have none.
    scores = torch.full((channels, *done.planes.shape[1:]), NEVER)
    scores[ids.long() - int(not method.background)] = done.planes.clamp_min(1e-12).log() if refined else done.planes
    return Prediction(item, as_array(ids)[done.labels], scores, done.confidence)


def score(method: Method, images: Tensor, config: InferenceConfig, source: Source) -> Tensor:
    """Score normalised images (B, 3, H, W): decoder logits over scales and flips, or CAMs, (B, C, h, w).

    Logits of an image and of its flip are summed; over scales the largest counts.

    Source: SeCo (CVPR 2024), section 4.1.
    """
    height, width = images.shape[-2:]
    sides = height, width
    if config.scale_from == "photograph":
        sides = network_size(width, height, config)[::-1]
    if source == "cam":
        images = images if sides == (height, width) else resize(images, sides)
        with autocast(images.device, config.precision):
            if config.cam_head != "class":
                return method.cams_of(config.cam_head, images, config.seen_by_cams).float()
            return method.cams(images, config.seen_by_cams).float()
    best: Tensor | None = None
    for scale in config.scales:
        size = tuple(max(1, int(side * scale)) for side in sides)
        scaled = images if size == (height, width) else resize(images, size)
        with autocast(images.device, config.precision):
            logits = method.scores(torch.cat([scaled, scaled.flip(-1)]) if config.flip else scaled).float()
        if config.flip:
            plain, flipped = logits.chunk(2)
            logits = plain + flipped.flip(-1)
        if len(config.scales) > 1 or config.scale_from == "photograph":
            logits = resize(logits, images.shape[-2:])
        best = logits if best is None else torch.maximum(best, logits)
    assert best is not None
    return best
