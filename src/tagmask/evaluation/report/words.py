"""Say in plain words how good a run's masks are, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tagmask.evaluation.report.confusions import Confusion
from tagmask.evaluation.result import Result
from tagmask.evaluation.study import SPECK, Study, TagAgreement

POOR = 0.3  # the fraction of a class's pixels found, or of its tagged images that show it, below which it needs help
SPREADS = 0.4  # the fraction of a class's pixels that are something else, from which its outlines are to blame
TOGETHER = 0.8  # the fraction of images with one class that bear another, from which tags hardly tell them apart
FEW = 5  # images with a class, below which nothing is said of its company
FEW_SCORED = 20  # images, below which scores are told to be of few
MOST_NAMES = 4


@dataclass(frozen=True)
class Step:
    """What to do next: why, in words, and the command."""

    why: str
    command: str


def headline(result: Result) -> list[str]:
    """Say how many pixels of a class are found and right: over all classes, the easiest and the hardest.

    Background counts neither way.
    """
    known = _known(result)
    if not known:
        return []
    names, found, right = zip(*known, strict=True)
    sentences = [
        f"Of 100 pixels of a class, {of_100(float(np.mean(found)))} are found. "
        f"Of 100 pixels that the masks give to a class, {of_100(_mean(right))} are right."
    ]
    if len(known) > 1:
        order = np.argsort([result.scores.iou[result.classes.index(name)] for name in names], kind="stable")
        for which, place in (("Easiest", order[-1]), ("Hardest", order[0])):
            sentences.append(f"{which}: {_of_class(names[place], found[place], right[place])}")
    if result.images < FEW_SCORED:
        what = "one image alone" if result.images == 1 else f"{result.images} images alone"
        sentences.append(f"These scores are of {what}: with others they may be quite different.")
    return sentences


def headline_of_tags(agreement: TagAgreement, classes: Sequence[str], *, tags_given: bool) -> list[str]:
    """Say, where there is no ground truth, how far the masks agree with the tags, and what that does not tell."""
    tagged = int(agreement.tagged.sum())
    sentences = []
    if tagged:
        sentences.append(
            f"Of 100 tags, {of_100(agreement.hits.sum() / tagged)} are seen in the mask of their image"
            + (
                "; the masks were told the tags, so that they show nothing else."
                if tags_given
                else f". Of 100 masks, {of_100(agreement.strays)} show a class that their image does not have."
            )
        )
        rates = {name: hits / own for name, hits, own in _by_class(agreement, classes)}
        if len(rates) > 1:
            best, worst = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
            sentences.append(
                f"Seen most often: {best} (in {of_100(rates[best])} of 100 images with its tag). "
                f"Least often: {worst} (in {of_100(rates[worst])})."
            )
    return [
        *sentences,
        f"A class counts as seen from {SPECK:.0%} of the image on. How well the outlines fit, nobody knows without a "
        "ground truth: look at the pictures below.",
    ]


def next_steps(
    found: Study, agreement: TagAgreement, confusions: Sequence[Confusion], run: str, *, further: Sequence[Step] = ()
) -> list[Step]:
    """Say what would help these masks most, the most urgent first, each with its command.

    Args:
        found: over the images.
        agreement: of their tags and masks.
        confusions: the largest ones; none without ground truth.
        run: the run as the user names it.
        further: what to do in any case.
    """
    classes, told = found.dataset.classes, shlex.quote(run)
    suggest = f"tagmask suggest {told}"
    steps = []
    if found.result:
        poor = [name for name, recall, _ in _known(found.result) if recall < POOR]
    else:
        poor = [name for name, hits, tagged in _by_class(agreement, classes) if hits < POOR * tagged]
    if poor:
        steps.append(
            Step(
                f"Hardly found: {_listed(poor)}. Tag more images with and without, train longer "
                "(training.steps), or draw a few masks. This names the images whose masks would help most:",
                suggest,
            )
        )
    joined = [each for each in confusions if each.tagged >= FEW and (each.company or 0) >= TOGETHER]
    for each in joined[:2]:
        both = round((each.company or 0) * each.tagged)
        eater, eaten = classes[each.eater], classes[each.eaten or 0]
        steps.append(
            Step(
                f"{eater} takes in {eaten}, which is in {both} of the {each.tagged} images with {eater} that were "
                f"looked at: tags alone hardly tell them apart. Add images of {eater} without {eaten}, or draw a few "
                "masks of both:",
                suggest,
            )
        )
    wide = [classes[each.eater] for each in confusions if each.eaten is None and each.of_eater >= SPREADS]
    if wide and found.conditions.refinement == "none":
        steps.append(
            Step(
                f"Spreads over what lies around it: {_listed(wide)}. This report was made without refinement, which "
                "draws outlines along the edges of colours; see what it brings:",
                f"tagmask report {told} --set inference.refine=crf -o refined.html",
            )
        )
    return [*steps, *further]


def of_100(fraction: float) -> str:
    """Write a fraction in [0, 1] as a number of 100; 0 and 100 only where it is none or all."""
    if not math.isfinite(fraction):
        return "an unknown number"
    if 0 < fraction < 0.005:
        return "fewer than 1"
    return "more than 99" if 0.995 <= fraction < 1 else f"{100 * fraction:.0f}"


def _known(result: Result) -> list[tuple[str, float, float]]:
    """List (name, recall, precision) of each class, background aside, that has pixels in the ground truth."""
    scores = result.scores
    rows = zip(result.classes, result.matrix.ids, scores.recall, scores.precision, strict=True)
    return [(name, float(found), float(right)) for name, label, found, right in rows if label and np.isfinite(found)]


def _by_class(agreement: TagAgreement, classes: Sequence[str]) -> list[tuple[str, int, int]]:
    """List (name, images whose mask shows it, images with its tag) of each class that some image bears."""
    rows = zip(classes, agreement.hits.tolist(), agreement.tagged.tolist(), strict=True)
    return [row for row in rows if row[2]]


def _of_class(name: str, found: float, right: float) -> str:
    if math.isnan(right):
        return f"{name}, which no mask shows."
    return f"{name}. {of_100(found)} of 100 of its pixels are found; {of_100(right)} of 100 pixels called so are right."


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown
