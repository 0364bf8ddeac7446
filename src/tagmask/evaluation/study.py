"""What a report says of single images: tags, mask and ground truth of each, gathered in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tagmask.data.dataset import Dataset, Record
from tagmask.engine.inference import Source
from tagmask.errors import TagmaskError
from tagmask.evaluation.confusion import ConfusionMatrix
from tagmask.evaluation.method import compare
from tagmask.evaluation.result import Conditions, Result, conditions_of, result_of
from tagmask.methods.base import Method
from tagmask.ops.label_ids import IGNORE
from tagmask.recipes.load import InferenceConfig

SPECK = 0.01
"""The fraction of an image's pixels below which a class in its mask is a speck, and does not count as shown."""


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image and its mask.

    Attributes:
        record: the image with its tags.
        found: class indices that the mask shows, specks aside: each with `SPECK` of its pixels at least.
        confidence: mean over pixels of the probability of the winning class, in [0, 1].
        quality: mean IoU over the ids in ground truth or mask, in [0, 1]; None without ground truth. It ranks images
            and is no protocol's mIoU.
    """

    record: Record
    found: frozenset[int]
    confidence: float
    quality: float | None


@dataclass(frozen=True)
class Study:
    """What is known of a set of images.

    Attributes:
        dataset: what was looked at.
        images: in no order.
        conditions: under which the masks were made.
        result: scores over the images with ground truth; None where there is none.
        stray: (K,) int64 wrongly predicted pixels of each class in images that do not bear its tag.
        skipped: for each image that was left out, what is wrong with it.
        seconds: how long it took.
    """

    dataset: Dataset
    images: tuple[ImageFacts, ...]
    conditions: Conditions
    result: Result | None
    stray: np.ndarray
    skipped: tuple[str, ...]
    seconds: float


def study(
    method: Method,
    dataset: Dataset,
    config: InferenceConfig,
    *,
    source: Source = "decoder",
    protocol: str = "seco",
) -> Study:
    """Predict every image of a data set and compare with tags and ground truth.

    Args:
        method: trained, in eval mode, on its device.
        dataset: the images; those with a ground-truth mask are scored.
        config: how images go through the network.
        source: `decoder`, which is not given the tags, or `cam`, which is.
        protocol: of the scores.

    Raises:
        TagmaskError: no image can be looked at.
    """
    start = time.perf_counter()
    tags_given = source == "cam"
    matrix = ConfusionMatrix(len(dataset.classes), background=dataset.background)
    stray = np.zeros(len(dataset.classes), np.int64)
    images: list[ImageFacts] = []
    skipped: list[str] = []
    for each in compare(method, dataset, config, source=source, tags_given=tags_given, left_out=skipped):
        labels, quality = each.prediction.labels, None
        pixels = np.bincount(labels[labels != IGNORE])[1:]
        found = frozenset(np.flatnonzero(pixels >= SPECK * labels.size).tolist())
        if each.ground_truth is not None:
            own = ConfusionMatrix(len(dataset.classes), background=dataset.background)
            own.add(each.ground_truth, labels)
            matrix.merge(own)
            stray += stray_pixels(own, each.record)
            quality = image_quality(own)
        images.append(ImageFacts(each.record, found, each.prediction.confidence, quality))
    if not images:
        raise TagmaskError(f"no image to report on{f'; {skipped[0]}' if skipped else ''}")
    conditions = conditions_of(dataset, config, source, tags_given=tags_given)
    compared = replace(dataset, records=tuple(facts.record for facts in images if facts.record.mask is not None))
    scored = matrix.counts.any() or matrix.ignored.any()
    result = result_of(matrix, compared, protocol=protocol, conditions=conditions) if scored else None
    return Study(dataset, tuple(images), conditions, result, stray, tuple(skipped), time.perf_counter() - start)


def stray_pixels(matrix: ConfusionMatrix, record: Record) -> np.ndarray:
    """Count, for each class (K,) whose tag one image is known not to bear, the pixels wrongly predicted as it."""
    first = int(matrix.background)
    wrong = (matrix.counts.sum(axis=0) - np.diagonal(matrix.counts))[first:]
    wrong[[*record.tags, *record.unknown]] = 0
    return wrong


def image_quality(matrix: ConfusionMatrix) -> float | None:
    """Return the mean IoU over the ids in one image's ground truth or mask; None where no pixel has ground truth."""
    right = np.diagonal(matrix.counts)
    union = matrix.counts.sum(axis=0) + matrix.counts.sum(axis=1) - right
    return float((right[union > 0] / union[union > 0]).mean()) if union.any() else None


@dataclass(frozen=True)
class TagAgreement:
    """How far tags and the classes found in masks agree, in counts (K,) of images.

    Attributes:
        exact: fraction of images whose mask shows exactly the tagged classes, in [0, 1].
        strays: fraction of images whose mask shows a class of which it is known that the image lacks it, in [0, 1].
        tagged: images that bear the tag.
        hits: of those, how many masks show the class.
        extra: images whose mask shows the class although they are known not to bear the tag.
    """

    exact: float
    strays: float
    tagged: np.ndarray
    hits: np.ndarray
    extra: np.ndarray


def tag_agreement(images: Sequence[ImageFacts], num_classes: int) -> TagAgreement:
    """Compare tags with predicted classes; unknown tags count neither way."""
    tagged, found, unknown = (np.zeros((len(images), num_classes), bool) for _ in range(3))
    for row, facts in enumerate(images):
        tagged[row, list(facts.record.tags)] = True
        found[row, list(facts.found)] = True
        unknown[row, list(facts.record.unknown)] = True
    differs, stray = (tagged != found) & ~unknown, found & ~tagged & ~unknown
    return TagAgreement(
        exact=float((~differs.any(axis=1)).mean()),
        strays=float(stray.any(axis=1).mean()),
        tagged=tagged.sum(axis=0),
        hits=(tagged & found).sum(axis=0),
        extra=stray.sum(axis=0),
    )


def by_quality(images: Sequence[ImageFacts], count: int) -> dict[str, list[ImageFacts]]:
    """Choose typical, best and worst images, `count` of each; no image stands twice.

    Images with ground truth are ranked by `quality`, the others, where none has it, by their confidence.
    """
    scored = [facts for facts in images if facts.quality is not None]
    names = ("Typical", "Best", "Worst") if scored else ("Typical certainty", "Most certain", "Least certain")
    ranked = sorted(scored or images, key=_rank, reverse=True)
    count = min(count, max(1, len(ranked) // 3))
    middle = max(count, (len(ranked) - count) // 2)
    parts = (
        ranked[middle : middle + count],
        ranked[:count],
        ranked[max(middle + count, len(ranked) - count) :][::-1],
    )
    return {name: group for name, group in zip(names, parts, strict=True) if group}


def of_each_class(images: Sequence[ImageFacts], num_classes: int) -> list[ImageFacts]:
    """Choose for each class, in id order, the typical image of those that bear its tag; no image stands twice."""
    chosen: dict[str, ImageFacts] = {}
    for index in range(num_classes):
        own = sorted((facts for facts in images if index in facts.record.tags), key=_rank)
        free = [facts for facts in own if facts.record.name not in chosen]
        if len(free) == len(own) and free:  # none of those chosen shows the class yet
            typical = free[len(free) // 2]
            chosen[typical.record.name] = typical
    return list(chosen.values())


def least_certain(images: Sequence[ImageFacts], count: int) -> list[ImageFacts]:
    """Return the `count` images of the lowest confidence."""
    return sorted(images, key=lambda facts: facts.confidence)[:count]


def _rank(facts: ImageFacts) -> float:
    """Say how good an image's mask is, as far as it is known."""
    return facts.confidence if facts.quality is None else facts.quality
