"""Which recipes of several stages go together, and what a run may have otherwise when it starts anew from a stage."""

from __future__ import annotations

from tagmask.engine.loop import check_batch
from tagmask.engine.model import segmenter_recipe
from tagmask.engine.run import AFFINITY, ALIKE, CAMS, LABELS, MASKS, SEGMENTER, rounds_of
from tagmask.errors import TagmaskError
from tagmask.recipes.load import Recipe
from tagmask.recipes.stages import RefineConfig, StageTraining


def check_stages(recipe: Recipe) -> None:
    """Raise a TagmaskError where sections of the recipe cannot go together."""
    if joins_alike(recipe):
        if not recipe.data.background:
            raise TagmaskError(
                "refine.alike: tells things from background, which these data do not have; set refine.alike=false"
            )
        if recipe.backbone.weights is None:
            raise TagmaskError(
                "refine.alike: needs pretrained weights (backbone.weights) to see what looks alike; name some, or set "
                "refine.alike=false"
            )
    for name, section in (
        ("segmenter", recipe.segmenter),
        ("refine.affinity", recipe.refine and recipe.refine.affinity),
    ):
        if section is not None and section.training is not None:
            asked, devices = section.training.devices, recipe.training.devices
            if asked not in (1, devices):
                raise TagmaskError(
                    f"{name}.training.devices {asked}: all stages run on the {devices} of training.devices; remove it"
                )
            check_batch(section.training.model_copy(update={"devices": devices}), f"{name}.")
    check_batch(recipe.training)
    recipe.method.method_class.check(recipe)
    if recipe.segmenter is not None:
        own = segmenter_recipe(recipe)
        if not own.method.method_class.needs_masks:
            raise TagmaskError(
                f"segmenter.method {own.method.name}: learns from tags; a segmenter learns from masks, as `full` does"
            )
        own.method.method_class.check(own)
    segmenter = recipe.segmenter
    if segmenter is not None and segmenter.start == "classifier" and segmenter.backbone is not None:
        raise TagmaskError("segmenter.start classifier: the backbone is the classifier's; remove segmenter.backbone")


def joins_alike(recipe: Recipe) -> bool:
    """Whether CAMs are joined by those of places that look alike before masks are made of them."""
    return recipe.refine is not None and recipe.refine.alike


def changeable(recipe: Recipe, start: str | None) -> tuple[str, ...]:
    """The keys and sections that a run may have otherwise than before when it starts anew from a stage."""
    drawn = ("data.use_masks", "data.masks", "data.mask_classes", "data.review")
    later: dict[str, tuple[str, ...]] = {SEGMENTER: ("segmenter", *drawn)}
    walk = [f"refine.affinity.{name}" for name in ("beta", "logt", "border")]
    of_cams = [f"refine.{name}" for name in RefineConfig.model_fields if name != "alike"]
    of_labels = ("affinity", "crf", "longest", "pixel_classifier", "tell_apart")  # what AffinityNet learnt from, too
    masks = [name for name in of_cams if name.removeprefix("refine.") not in of_labels]
    affinity, alike = recipe.refine is not None and recipe.refine.name == "affinity", joins_alike(recipe)
    # Classes learnt last take no part where CAMs are joined.
    last = () if alike else ("data.last",)
    later[MASKS] = (*later[SEGMENTER], *last, *((*masks, *walk) if affinity else of_cams))
    later[AFFINITY] = (*later[MASKS], *(f"refine.affinity.{name}" for name in StageTraining.model_fields))
    later[LABELS] = (*later[SEGMENTER], *of_cams, *last)
    later[ALIKE] = (*later[SEGMENTER], "refine", "data.last")
    later[CAMS] = (*later[ALIKE], "inference")
    if start == rounds_of(recipe)[0].name:
        return tuple(Recipe.model_fields)
    return later.get(start or "", ())
