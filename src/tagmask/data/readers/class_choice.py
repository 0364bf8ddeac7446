"""The choice of the classes of a data set: those that the source lists, the tags that occur, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from tagmask.data.dataset import check_class_list, numbered
from tagmask.data.readers.problems import nearest
from tagmask.data.readers.source import Options, Source
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE, IGNORED_CLASS, count_classes

ALIKE = 0.75
"""How like a tag the name of a class that no image bears has to be for it to be taken for misspelt."""


def choose_classes(source: Source, options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the full class list, which every tag has to be in, and the chosen one, which the data set has.

    Context classes are in the first and never in the second. The second is `numbered`. Where neither the source nor
    `mask_classes` lists classes, the full list is that of all tags, unless `other_tags` is "refuse".

    Raises:
        TagmaskError: a list is no class list, a chosen class is not in the full list, or it looks misspelt.
    """
    if options.context:
        _check_context(options)
    if options.mask_classes is not None:
        check_class_list(options.mask_classes, "mask_classes", most=None)
    if options.classes is not None:
        check_class_list(options.classes, "classes", most=None)
    declared = (*(source.classes or ()), *(options.mask_classes or ()))
    if not declared:
        seen = {tag for row in source.rows for tag in (*row.tags, *(row.unknown or ()))}
        if options.classes is not None and options.other_tags == "doubt":
            _check_spelling(options, seen, source.path)
        if not seen and options.classes is None:
            raise TagmaskError(f"{source.path}: no image bears a tag, so there are no classes; fill in the tags")
        things = [name for name in sorted(seen) if name not in options.context]
        if not things and options.classes is None:
            raise TagmaskError("data.context names every tag there is; leave out those that masks are wanted of")
        place = f"{source.path}, tags"
        classes = _chosen(options.classes or check_class_list(things, place, most=None), place, options)
        dropped = () if options.other_tags == "refuse" else sorted(seen.difference(classes, options.context))
        return (*classes, *options.context, *dropped), classes
    full = tuple(dict.fromkeys((*declared, *options.context)))
    for name in options.classes or ():
        if name not in full and name != IGNORED_CLASS:
            place = source.classes_from if source.classes else "mask_classes"
            raise TagmaskError(f"classes: {name!r} is not in {place}; {nearest(name, full)}")
    chosen = options.classes or tuple(name for name in source.classes or full if name not in options.context)
    if not chosen:
        raise TagmaskError("data.context names every class there is; leave out those that masks are wanted of")
    return full, _chosen(chosen, source.classes_from, options)


def _check_spelling(options: Options, seen: set[str], path: Path) -> None:
    """Refuse a chosen class that no image bears, where a tag that nobody chose is spelt nearly like it."""
    classes = dict.fromkeys(options.classes or (), "class")
    named = classes | dict.fromkeys(options.context, "context class")
    others = {name.lower(): name for name in sorted(seen.difference(named))}
    for name, what in named.items():
        near = [] if name in seen else get_close_matches(name.lower(), others, 1, cutoff=ALIKE)
        if near:
            key = "data.classes" if name in classes else "data.context"
            raise TagmaskError(f"{what} {name!r} of {key} is in no row of {path}; did you mean {others[near[0]]!r}?")


def _chosen(names: Sequence[str], place: str, options: Options) -> tuple[str, ...]:
    """Give the classes their numbers; context classes are numbered behind them, and only as far as 254."""
    if options.context and count_classes(names) + len(options.context) >= IGNORE:
        raise TagmaskError(
            f"data.context: {len(options.context)} context classes beside {count_classes(names)} classes; together"
            f" there may be {IGNORE - 1}; choose fewer (data.classes), or leave the context classes out"
        )
    return check_class_list(numbered(names), place)


def _check_context(options: Options) -> None:
    if not options.background:
        raise TagmaskError(
            "data.context: these classes become background, and data.background is false; set it to true"
        )
    check_class_list(options.context, "data.context")
    twice = [name for name in options.context if name in (options.classes or ())]
    if twice:
        raise TagmaskError(f"data.context: {twice[0]!r} is in data.classes too; remove it from one of them")
    check_class_list((*(options.classes or ()), *options.context), "data.classes and data.context", most=None)
