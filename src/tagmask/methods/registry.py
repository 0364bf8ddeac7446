"""From a recipe to a method: every method registers its class with its section of the recipe."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from tagmask.errors import TagmaskError
from tagmask.methods.base import Method
from tagmask.models.backbone import Backbone
from tagmask.models.weights import with_normalisation
from tagmask.recipes.load import Recipe
from tagmask.recipes.sections import METHODS, BackboneConfig, MethodSection

MethodT = TypeVar("MethodT", bound=Method)


def register(section: type[MethodSection]) -> Callable[[type[MethodT]], type[MethodT]]:
    """Make the decorated method known to recipes under its section's default `name`.

    Args:
        section: the method's part of a recipe, with a default for `name`.

    Returns:
        a decorator for a `Method` that is made from `(backbone, num_classes, background, section)`.

    Raises:
        TagmaskError: the section has no name of its own, or it is another method's.
    """
    name = section.model_fields["name"].default
    if not isinstance(name, str):
        raise TagmaskError(f'{section.__name__}: no default for `name`; write `name: Literal["mine"] = "mine"` in it')

    def take(method: type[MethodT]) -> type[MethodT]:
        # A module that is loaded twice, as in a notebook, registers the same class anew.
        known = METHODS.get(name)
        if known is not None and known.method_class.__qualname__ != method.__qualname__:
            raise TagmaskError(f"{section.__name__}: there is a method {name!r} already; choose another name")
        section.method_class, METHODS[name] = method, section
        return method

    return take


def register_method(section: type[MethodSection], method: type[Method]) -> None:
    """Do what the decorator `register` does, under its former name."""
    warnings.warn("register_method is now the decorator `register`", DeprecationWarning, stacklevel=2)
    register(section)(method)


def without_weights(config: BackboneConfig) -> BackboneConfig:
    """Take the start's weights from a backbone whose state is about to be loaded; all that follows from them stays.

    Norms are frozen, and images normalised, as they were with the weights.
    """
    freeze = config.weights is not None if config.freeze_norm is None else config.freeze_norm
    return with_normalisation(config).model_copy(update={"weights": None, "freeze_norm": freeze})


def build_method(recipe: Recipe, num_classes: int, *, pretrained: bool = True, number: int = -1) -> Method:
    """Make the recipe's method with its backbone.

    Args:
        recipe: names both.
        num_classes: K.
        pretrained: False leaves the backbone's weights random, for a state that is about to be loaded.
        number: which of the method's `rounds`, -1 for the last.

    Raises:
        TagmaskError: timm has no such network, or its weights cannot be had.
    """
    backbone = Backbone(recipe.backbone if pretrained else without_weights(recipe.backbone))
    return recipe.method.method_class.build(backbone, num_classes, recipe.data.background, recipe.method, number)
