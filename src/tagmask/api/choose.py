"""Choose a recipe for people who name none, from the data and the machine, and say why in words."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from tagmask.api.machine import GB, Machine, Weights, find_weights, in_words, this_machine, time_forward
from tagmask.api.plans import CAM, FROM_SCRATCH, MOBILENET, SECO, VIT_BASE, VIT_SMALL, Plan
from tagmask.api.thing_size import LOOKED_AT as LOOKED_AT_THINGS
from tagmask.api.thing_size import lit_fraction
from tagmask.data.balance import repeat_factors
from tagmask.data.dataset import Dataset
from tagmask.data.images import image_size
from tagmask.data.untaught import everywhere
from tagmask.engine.pretrained import LONG_SIDE, network_features
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import count_classes
from tagmask.recipes.load import BackboneConfig, Recipe, load_recipe

logger = logging.getLogger(__name__)

CRF_SECONDS = 0.3  # two dense CRFs of a photograph of 375 x 500 on a core
LOOKED_AT = 64  # images whose headers are read for their size
SMALL = 0.09  # of an image lights up for its tags, below which larger crops were better; where things are large 0.11
OFTEN = 1.5  # times as often as others, from which it is said that images of rare classes come more often
LONG_RUN = 12 * 3600  # seconds from which the expected time comes with a way to shorten it
ALARM = "NO PRETRAINED WEIGHTS"

UNSEEN = "No result of ours was made with these weights; the paper's ViT-B/16 is --recipe seco/default"


@dataclass(frozen=True)
class Chosen:
    """A recipe and why it is this one.

    Attributes:
        recipe: complete but for the data's path.
        reasons: one sentence each, for the user to read before training begins.
        from_scratch: whether the network starts without pretrained weights, which costs most of the accuracy.
    """

    recipe: Recipe
    reasons: tuple[str, ...]
    from_scratch: bool


def choose_recipe(
    dataset: Dataset,
    overrides: Iterable[str] = (),
    *,
    machine: Machine | None = None,
    find: Callable[[str], Weights] | None = None,
    forward_seconds: Callable[[BackboneConfig, int], float] | None = None,
    lit: Callable[[Dataset, BackboneConfig], float | None] | None = None,
) -> Chosen:
    """Choose method, network, sizes and length of training.

    Args:
        dataset: the training records.
        overrides: `key.path=value`; of these `training.steps`, `views.crop` and `backbone.weights` take part in the
            choice: other lengths and sizes follow them.
        machine: by default this one.
        find: says of a hub name whether it can be had; by default looks in the cache and asks the hub.
        forward_seconds: times a network on a square image of a side in pixels; by default on this machine.
        lit: measures how much of an image a network's features light up for its tags (`thing_size.lit_fraction`), where
            `views.crop` is not given and the plan has a crop for small things.

    Raises:
        TagmaskError: no images, or an override that does not fit the recipe.
    """
    if not len(dataset):
        raise TagmaskError("no training images to choose a recipe for; `tagmask data check` says what was read")
    machine, overrides = machine or this_machine(), tuple(overrides)
    side, said_size = _typical_side(dataset)
    reasons = [
        f"{len(dataset)} images of {count_classes(dataset.classes)} classes, {_on_background(dataset)}, {said_size}"
    ]
    if dataset.dropped and not dataset.context and dataset.background:
        reasons.append(_possible_context(dataset))
    plan = _weighed(_network(machine, reasons), overrides, find or find_weights, reasons)
    plan = _sized(plan, side, dataset, overrides, lit or _lit, reasons)
    if dataset.context and not plan.course.staged:
        reasons.append(
            "context classes are tagged (data.context): a segmenter is trained on masks in which they are background"
        )
    last = _last_classes(dataset, plan, reasons)
    steps = _given(overrides, "training.steps") or plan.steps(len(dataset))
    recipe = load_recipe(plan.values(steps, machine, dataset, last), overrides)
    if recipe.training.order == "balanced":
        reasons += _rare_classes(dataset)
    crop, training = recipe.views.crop, recipe.training
    epochs = training.steps * training.batch / len(dataset)
    twice = ", for the classifier and again for the segmenter" if recipe.segmenter else ""
    reasons.append(
        f"{training.steps} steps of {training.batch} images{twice}, {epochs:.1f} times each image, cropped to "
        f"{crop} x {crop}"
    )
    forward = (forward_seconds or time_forward)(recipe.backbone, crop)
    seconds = _expected_seconds(recipe, len(dataset), forward)
    shorter = "; --set training.steps=N shortens it, and a run that is stopped goes on where it was"
    reasons.append(
        f"expected to take {in_words(seconds)} on this machine, from a timed forward pass"
        + (shorter if seconds >= LONG_RUN else "")
    )
    return Chosen(recipe, tuple(reasons), plan.from_scratch)


def tell(chosen: Chosen) -> None:
    """Log the reasons; what costs accuracy is a warning."""
    logger.info("recipe chosen for this data and machine:")
    for reason in chosen.reasons:
        logger.log(logging.WARNING if reason.startswith(ALARM) else logging.INFO, "  - %s", reason)


def _typical_side(dataset: Dataset) -> tuple[int, str]:
    """Return the median long side in pixels of images spread over the set, and the same in words."""
    sides = []
    for record in dataset.records[:: max(1, len(dataset) // LOOKED_AT)]:
        try:
            sides.append(max(image_size(record.image)))
        except TagmaskError:
            continue  # training reports images that do not open
    if not sides:
        return 448, "none of those looked at opens"
    return int(statistics.median(sides)), f"long side mostly about {statistics.median(sides):.0f} pixels"


def _sized(
    plan: Plan,
    side: int,
    dataset: Dataset,
    overrides: tuple[str, ...],
    lit: Callable[[Dataset, BackboneConfig], float | None],
    reasons: list[str],
) -> Plan:
    """Return the plan with the side of its crops chosen by the photographs and by what is in them."""
    given = _given(overrides, "views.crop")
    if given is not None:
        return replace(plan, crop=given)
    if plan.from_scratch:  # it knows things of no size yet, and would only take longer
        crop = min(plan.crop, round(side / plan.multiple) * plan.multiple)
        return replace(plan, crop=max(2 * plan.multiple, crop))
    if plan.small_crop is not None:
        own = [text for text in overrides if text.startswith("backbone.")]
        backbone = load_recipe({"method": plan.course.method, "backbone": plan.backbone}, own).backbone
        fraction = lit(dataset, backbone)
        if fraction is not None and fraction < SMALL:
            longer = (plan.small_crop / plan.crop) ** 2
            reasons.append(
                f"things fill little of the photographs: what tells a tag lights up {100 * fraction:.0f} %. Larger "
                f"crops find them better and take {longer:.1f} times as long; --set views.crop={plan.crop} is faster"
            )
            plan = replace(plan, crop=plan.small_crop)
    low, high = (round(factor * plan.crop) for factor in plan.course.resize)
    if side < low:
        reasons.append(f"photographs are enlarged to long sides of {low} to {high} pixels, for the network to see more")
    return plan


def _lit(dataset: Dataset, config: BackboneConfig) -> float | None:
    logger.info("looking how large things are in up to %d images", LOOKED_AT_THINGS)
    return lit_fraction(dataset, network_features(config))


def _on_background(dataset: Dataset) -> str:
    return "against background" if dataset.background else "without background"


def _possible_context(dataset: Dataset) -> str:
    listed = yaml.safe_dump([*dataset.dropped], default_flow_style=True, width=math.inf).strip()
    return (
        "tags that data.classes leaves out are not learnt. What is around your things, such as grass or water, "
        f"is worth learning, so that it is not taken for them: --set 'data.context={listed}'"
    )


def _network(machine: Machine, reasons: list[str]) -> Plan:
    """Choose method and network by what the machine carries."""
    memory = machine.memory / GB
    if not machine.cuda:
        reasons.append(
            f"no GPU ({machine.cores} {'core' if machine.cores == 1 else 'cores'}, {memory:.0f} GB): plain CAM on a "
            "small network, the soonest to give masks, and a segmenter trained on what a CRF makes sure of in them. "
            "SeCo parts better what occurs together, but a step of it costs about three times as much and it needs "
            "several times as many: it is what a GPU would get, and --recipe seco/default gives it to you here"
        )
        return Plan(CAM, MOBILENET, crop=224, small_crop=352, batch=8 if memory >= 4 else 4, rates={"lr": 1e-4})
    if memory >= 10:
        reasons.append(f"a GPU with {memory:.0f} GB: SeCo on DINOv2's ViT-B/14. {UNSEEN}")
        return Plan(SECO, VIT_BASE, crop=448, batch=4, multiple=28)
    reasons.append(
        f"a GPU with {memory:.0f} GB: SeCo on DINOv2's ViT-S/14, since ViT-B/14 asks for about 10 GB. {UNSEEN}"
    )
    return Plan(SECO, VIT_SMALL, crop=448 if memory >= 6 else 336, batch=4, multiple=28)


def _weighed(plan: Plan, overrides: tuple[str, ...], find: Callable[[str], Weights], reasons: list[str]) -> Plan:
    """Return the plan where its weights can be had, else the one that does without."""
    if any(text.startswith("backbone.weights=") for text in overrides):
        given = _given(overrides, "backbone.weights")
        if given is not None:
            reasons.append(f"pretrained weights {given}, as given, for {plan.backbone['name']}")
            return plan
        reasons.append(f"{ALARM}, as asked: a small network learns from scratch; expect much worse masks")
        return FROM_SCRATCH
    name = plan.backbone["weights"]
    found = find(name)
    if found == "missing":
        reasons.append(
            f"{ALARM}: {name} is not in the cache and the hub does not answer, so a small network learns from scratch "
            "on your images alone. Expect much worse masks. Better: connect to the network once, or download that "
            "repository's model.safetensors elsewhere and give --set backbone.weights=FILE"
        )
        return FROM_SCRATCH
    reasons.append(f"pretrained weights {name}, {'from the cache' if found == 'cached' else 'downloaded once'}")
    return plan


def _given(overrides: tuple[str, ...], key: str) -> Any:
    """Return the value that the overrides give a key, as the recipe would read it; None where they do not."""
    values = [text for text in overrides if text.startswith(f"{key}=")]
    section, name = key.split(".")
    return getattr(getattr(load_recipe({"method": "cam"}, values), section), name) if values else None


def _last_classes(dataset: Dataset, plan: Plan, reasons: list[str]) -> list[str]:
    """Name the classes that nearly all images bear, which in the masks between stages get what the others leave."""
    names = [(*dataset.classes, *dataset.context)[k] for k in everywhere(dataset)]
    if not names:
        return []
    stages = "" if plan.course.staged or dataset.context else "; for that, a segmenter is trained on masks"
    reasons.append(
        f"{', '.join(names)} in nearly every image: the masks give {'it' if len(names) == 1 else 'them'} what the "
        f"other classes leave (data.last){stages}"
    )
    return names


def _rare_classes(dataset: Dataset) -> list[str]:
    """Say in a sentence that images of rare classes come more often, where some come often enough to be worth it."""
    whole = dataset.with_context()
    most = repeat_factors(whole).max()
    if most < OFTEN:
        return []
    counts = np.bincount(whole.tag_pairs()[1], minlength=len(whole.classes))
    rarest = min(np.flatnonzero(counts), key=lambda k: counts[k])
    return [
        f"images of rare classes, such as {whole.classes[rarest]!r} (in {counts[rarest]} of {len(whole)}), are shown "
        f"up to {most:.1f} times as often as others (--set training.order=shuffled shows all equally often)"
    ]


def _expected_seconds(recipe: Recipe, images: int, forward: float) -> float:
    """Estimate the seconds of all trainings and of what lies between them, from those of a crop's forward pass."""
    training, crop = recipe.training, recipe.views.crop
    seen = training.steps * training.batch
    own = getattr(recipe.method, "scales", (1.0,))
    cams = _forwards(own)
    # A backward pass counts as two. 7: crop, weak view, patches of student and teacher; its own forward is reused.
    step = cams - 1 + (7 if recipe.method.method_class.needs_views else 3)
    if recipe.segmenter is None:
        return seen * step * forward
    # Between the stages no decoder of plain CAM learns, so that its step has no CAMs. The segmenter's decoder with skip
    # connections and what is pasted take 0.7 forwards.
    step = 3.7 + (step if recipe.method.method_class.needs_views else 3)
    side = recipe.inference.long_side or crop
    looks = _forwards(recipe.inference.cam_scales or own) * (side / crop) ** 2
    if recipe.refine is not None and recipe.refine.alike:  # clusters are made of some images and found in all
        looks += 2 * (max(LONG_SIDE, side) / crop) ** 2
    return seen * step * forward + images * (looks * forward + CRF_SECONDS)


def _forwards(scales: Iterable[float]) -> float:
    """Return how many forwards of an image CAMs at these scales take, each as it is and flipped."""
    return 2 * sum(scale**2 for scale in scales)
