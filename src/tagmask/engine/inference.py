"""Images through a trained method to label maps, streamed: what labelling, prediction and evaluation share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagmask.data.images import open_image, shrunk
from tagmask.engine.device import autocast, keep_freed_memory
from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.ops.crf import dense_crf
from tagmask.ops.label_ids import IGNORE
from tagmask.ops.labels import beside_context
from tagmask.ops.par import pixel_adaptive_refinement
from tagmask.recipes.load import InferenceConfig

Source = Literal["decoder", "cam"]
CLASS_CHUNK = 1 << 24  # elements of scores enlarged at a time, so that large photographs fit in memory


def check_source(source: str) -> None:
    """Refuse a source that there is not, for callers whose types nobody checks."""
    if source not in get_args(Source):
        raise TagmaskError(f"source: {source!r} is neither of {', '.join(get_args(Source))}")


@dataclass(frozen=True)
class Item:
    """One image on its way.

    Attributes:
        name: of the output.
        path: of the image.
        tags: class indices it bears; None where nobody says.
        context: indices of surroundings it shows, for CAMs of a classifier that knows some.
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
        labels: (H, W) uint8 at the image's own size.
        scores: (C, h, w) float at network size: decoder logits, or CAMs in [0, 1] of all K classes.
        confidence: mean over pixels of the winning share, in 0..1.
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
    batch: int = 8,
    on_error: Callable[[Item, TagmaskError], None] | None = None,
) -> Iterator[Prediction]:
    """Label maps of images, in the order in which they are done.

    Decoding runs ahead in threads; images of one size go through the network together.

    Args:
        method: trained, in eval mode, on its device.
        items: what to label; where tags are given, only they and background can win.
        config: sizes, scales, mirror, refinement.
        source: `decoder`, or `cam` (which needs tags).
        batch: most images a forward.
        on_error: told of images that do not open, which are then left out; by default the error is raised.
    """
    device = next(method.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    waiting: dict[tuple[int, int], list[tuple[Item, Image.Image, Tensor]]] = defaultdict(list)
    with ThreadPoolExecutor(4) as pool:
        for item, loaded in _ahead(pool, items, config, depth=4 * batch):
            try:
                image, pixels = loaded.result()
            except TagmaskError as error:
                if on_error is None:
                    raise
                on_error(item, error)
                continue
            group = waiting[(pixels.shape[1], pixels.shape[2])]
            group.append((item, image, pixels))
            if len(group) == batch:
                yield from _finish(method, group, config, source, device)
                group.clear()
    for group in waiting.values():
        for start in range(0, len(group), batch):
            yield from _finish(method, group[start : start + batch], config, source, device)


@torch.inference_mode()
def predict_one(
    method: Method, image: Path | str | Image.Image, tags: Sequence[int] | None, config: InferenceConfig
) -> Prediction:
    """The decoder's label map of one image, from a file or in memory."""
    picture = image.convert("RGB") if isinstance(image, Image.Image) else open_image(image)
    item = Item("image", Path(), None if tags is None else tuple(tags))
    device = next(method.parameters()).device
    return next(_finish(method, [(item, picture, _resized(picture, config))], config, "decoder", device))


def _ahead(
    pool: ThreadPoolExecutor, items: Iterable[Item], config: InferenceConfig, depth: int
) -> Iterator[tuple[Item, Future[tuple[Image.Image, Tensor]]]]:
    remaining = iter(items)
    queue = [(item, pool.submit(_load, item.path, config)) for item in islice(remaining, depth)]
    while queue:
        yield queue.pop(0)
        queue += [(item, pool.submit(_load, item.path, config)) for item in islice(remaining, 1)]


def _load(path: Path, config: InferenceConfig) -> tuple[Image.Image, Tensor]:
    image = open_image(path)
    return image, _resized(image, config)


def _resized(image: Image.Image, config: InferenceConfig) -> Tensor:
    resized = image.resize(network_size(image.width, image.height, config), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def network_size(width: int, height: int, config: InferenceConfig) -> tuple[int, int]:
    """Width and height at which an image goes through the network at scale 1."""
    if config.long_side is not None:
        factor = config.long_side / max(width, height)
        return max(1, round(width * factor)), max(1, round(height * factor))
    return (config.size, config.size) if config.size is not None else (width, height)


def _finish(
    method: Method,
    group: Sequence[tuple[Item, Image.Image, Tensor]],
    config: InferenceConfig,
    source: Source,
    device: torch.device,
) -> Iterator[Prediction]:
    pixels = torch.stack([pixels for _, _, pixels in group]).to(device)
    images = method.network.backbone.normalise(pixels.float() / 255)
    scores = score(method, images, config, source)
    for (item, image, _), own in zip(group, scores, strict=True):
        if source == "cam" and len(own) > method.num_classes:  # the last are those of surroundings
            seen = [method.num_classes + index for index in item.context]
            own = beside_context(own[: method.num_classes], own[seen])
        labels, confidence = to_label_map(own, item.tags, image, config, source, method.background)
        yield Prediction(item, labels, own, confidence)


def score(method: Method, images: Tensor, config: InferenceConfig, source: Source) -> Tensor:
    """Scores (B, C, h, w) of normalised images: decoder logits over scales and mirrors, or CAMs.

    Logits of image and mirror are summed; over scales the largest counts.

    Source: SeCo (CVPR 2024), section 4.1.
    """
    if source == "cam":
        with autocast(images.device, config.precision):
            return method.cams(images, config.scales).float()
    best: Tensor | None = None
    for scale in config.scales:
        scaled = images
        if scale != 1:
            size = [max(1, int(side * scale)) for side in images.shape[-2:]]
            scaled = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        with autocast(images.device, config.precision):
            logits = method.scores(torch.cat([scaled, scaled.flip(-1)]) if config.flip else scaled).float()
        if config.flip:
            plain, mirrored = logits.chunk(2)
            logits = plain + mirrored.flip(-1)
        if len(config.scales) > 1:
            logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        best = logits if best is None else torch.maximum(best, logits)
    assert best is not None
    return best


def to_label_map(
    scores: Tensor,
    tags: Sequence[int] | None,
    image: Image.Image,
    config: InferenceConfig,
    source: Source,
    background: bool,
) -> tuple[np.ndarray, float]:
    """One image's scores (C, h, w) to a uint8 label map at its own size, and the mean confidence.

    Args:
        scores: decoder logits (C = K + background), or CAMs (C = K).
        tags: class indices that may win beside background; None: all.
        image: the photograph, for refinement and size.
        config: background score of CAMs, refinement.
        source: what the scores are.
        background: whether label 0 exists.
    """
    planes, ids = _candidates(scores, tags, config, source, background)
    size = image.height, image.width
    if len(ids) == 0:  # nothing may be there, not even background
        return np.full(size, IGNORE, np.uint8), 1.0
    if config.refine == "none":
        winners, confidence = _argmax_at(planes, size, source)
    else:
        small = shrunk(image, config.longest)
        shares = F.interpolate(planes[None], size=(small.height, small.width), mode="bilinear", align_corners=False)
        shares = shares if source == "cam" else shares.softmax(dim=1)
        photograph = torch.from_numpy(np.array(small)).to(scores.device)
        if config.refine == "par":
            refined = _shared(pixel_adaptive_refinement(photograph.permute(2, 0, 1)[None].float(), shares)[0])
        else:
            refined = dense_crf(photograph, _shared(shares[0]), preset=config.crf)
        winners, confidence = _argmax_at(refined, size, "cam")
    return ids[winners].to(torch.uint8).cpu().numpy(), float(confidence.mean())


def _shared(scores: Tensor) -> Tensor:
    """Scores (C, H, W) divided by their sum over the classes; where all are 0, they stay so."""
    return scores / scores.sum(dim=0).clamp_min(1e-12)


def _candidates(
    scores: Tensor, tags: Sequence[int] | None, config: InferenceConfig, source: Source, background: bool
) -> tuple[Tensor, Tensor]:
    """The planes that may win, and the label id of each."""
    classes = len(scores) if source == "cam" else len(scores) - int(background)
    allowed = list(range(classes)) if tags is None else list(tags)
    ids = [channel + 1 for channel in allowed]
    if source == "cam":
        planes = scores[allowed]
        if background:
            planes = torch.cat([torch.full_like(scores[:1], config.background_score), planes])
    else:
        planes = scores[[0, *ids]] if background else scores[allowed]
    return planes, torch.tensor([0, *ids] if background else ids, device=scores.device)


def _argmax_at(planes: Tensor, size: tuple[int, int], source: Source) -> tuple[Tensor, Tensor]:
    """Winning plane at `size`, planes enlarged a few at a time; and the winners' shares at network size."""
    chunk = max(1, CLASS_CHUNK // (size[0] * size[1]))
    best, winners = None, None
    for start in range(0, len(planes), chunk):
        part = F.interpolate(planes[None, start : start + chunk], size=size, mode="bilinear", align_corners=False)[0]
        value, index = part.max(dim=0)
        if best is None or winners is None:
            best, winners = value, index
        else:
            winners = torch.where(value > best, index + start, winners)
            best = torch.maximum(best, value)
    assert winners is not None
    shares = planes if source == "cam" else planes.softmax(dim=0)
    return winners, shares.amax(dim=0)
