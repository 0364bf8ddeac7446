"""From a recipe to a method."""

from __future__ import annotations

from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.methods.cam import Cam
from tagmask.methods.full import Full
from tagmask.methods.rca import Rca
from tagmask.methods.sccam import Sccam
from tagmask.methods.seco import Seco
from tagmask.models.backbone import Backbone
from tagmask.recipes.load import METHODS as SECTIONS
from tagmask.recipes.load import BackboneConfig, MethodSection, Recipe

METHODS: dict[str, type[Method]] = {"cam": Cam, "full": Full, "rca": Rca, "sccam": Sccam, "seco": Seco}


def register_method(section: type[MethodSection], method: type[Method]) -> None:
    """Make a method known to recipes, training and prediction under its section's default `name`.

    Args:
        section: the method's part of a recipe, with a default for `name`.
        method: made from `(backbone, classes, background, section)`, as every method of the package.

    Raises:
        TagmaskError: the section has no name of its own, or it is another method's.
    """
    name = section.model_fields["name"].default
    if not isinstance(name, str):
        raise TagmaskError(f'{section.__name__}: no default for `name`; write `name: Literal["mine"] = "mine"` in it')
    if METHODS.get(name, method).__qualname__ != method.__qualname__:
        raise TagmaskError(f"{section.__name__}: there is a method {name!r} already; choose another name")
    SECTIONS[name], METHODS[name] = section, method


def without_weights(config: BackboneConfig) -> BackboneConfig:
    """For a state that is about to be loaded: no weights to start from, norms frozen as they were with them."""
    freeze = config.weights is not None if config.freeze_norm is None else config.freeze_norm
    return config.model_copy(update={"weights": None, "freeze_norm": freeze})


def build_method(recipe: Recipe, num_classes: int, *, pretrained: bool = True) -> Method:
    """The recipe's method with its backbone.

    Args:
        recipe: names both.
        classes: K.
        pretrained: False leaves the backbone's weights random, for a state that is about to be loaded.

    Raises:
        TagmaskError: timm has no such network, or its weights cannot be had.
    """
    backbone = Backbone(recipe.backbone if pretrained else without_weights(recipe.backbone))
    method = recipe.method
    return METHODS[method.name](backbone, num_classes, recipe.data.background, method)  # pyright: ignore
