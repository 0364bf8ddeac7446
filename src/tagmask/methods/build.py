"""From a recipe to a method."""

from __future__ import annotations

from tagmask.methods.base import Method
from tagmask.methods.cam import Cam
from tagmask.methods.full import Full
from tagmask.methods.seco import Seco
from tagmask.models.backbone import Backbone
from tagmask.recipe import CamConfig, FullConfig, Recipe, SecoConfig


def build_method(recipe: Recipe, classes: int, *, pretrained: bool = True) -> Method:
    """The recipe's method with its backbone.

    Args:
        recipe: names both.
        classes: K.
        pretrained: False leaves the backbone's weights random, for a state that is about to be loaded.

    Raises:
        TagmaskError: timm has no such network, or its weights cannot be had.
    """
    config = recipe.backbone
    if not pretrained:
        # Whether norms are frozen follows from the weights, so it is settled before they are dropped.
        freeze = config.weights is not None if config.freeze_norm is None else config.freeze_norm
        config = config.model_copy(update={"weights": None, "freeze_norm": freeze})
    backbone = Backbone(config)
    background, method = recipe.data.background, recipe.method
    if isinstance(method, SecoConfig):
        return Seco(backbone, classes, background, method)
    if isinstance(method, CamConfig):
        return Cam(backbone, classes, background, method)
    assert isinstance(method, FullConfig)
    return Full(backbone, classes, background, method)
