"""A synthetic set in which objects keep company with their contexts: boats on water, trains on rails, ...

Only the objects are classes; water, rails and the rest are background in the masks. Where an object nearly always meets
its context, a classifier trained on tags may look at the context instead, and its CAMs light up there. This is the
co-occurrence that SeCo (CVPR 2024) is about, with a knob on it and an exact ground truth.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.data.csv_cells import csv_text
from tagmask.data.files import replacing, write_classes, write_text
from tagmask.data.label_maps import voc_palette
from tagmask.data.ledger import hashes_below, stranger
from tagmask.data.limits import parse_json
from tagmask.data.lock import locked
from tagmask.data.synthetic.contexts import CONTEXTS, smooth_noise
from tagmask.data.synthetic.objects import THINGS, Sprite, draw
from tagmask.errors import TagmaskError

SETTINGS = "cooccur.json"
ENTRIES = frozenset({"images", "masks", "tags.csv", "scenes.csv", "classes.txt", SETTINGS})
PAIRS = 0.25  # of the images without a lone context, those that hold two objects
AREAS = (0.10, 0.35)  # of the image, before an object is shrunk to fit its place
OVERLAP = 0.15  # how far, in lengths of its place, an object may reach over the border to the neighbouring context
SPLITS = (("train", 0.7), ("val", 0.1), ("test", 0.2))

TINT = 1.0  # largest part of a context's colours that one light takes away


@dataclass(frozen=True)
class Settings:
    """The arguments of `make_cooccur`, which determine the set."""

    images: int
    size: int
    classes: int
    meet: float
    alone: float
    seed: int


@dataclass(frozen=True)
class Place:
    """A part of the scene: its context and the object that stands there (class index), or None for a lone context."""

    context: int
    thing: int | None


@dataclass(frozen=True)
class Scene:
    """One made image: `image` (size, size, 3) uint8, `mask` (size, size) uint8 ids, and what stands where."""

    image: np.ndarray
    mask: np.ndarray
    places: tuple[Place, ...]

    @property
    def tags(self) -> tuple[int, ...]:
        """The sorted class indices of the objects."""
        return tuple(sorted({place.thing for place in self.places if place.thing is not None}))


def make_cooccur(
    folder: Path | str,
    *,
    images: int = 800,
    size: int = 96,
    classes: int = 6,
    meet: float = 0.9,
    alone: float = 0.2,
    seed: int = 0,
) -> Path:
    """Write a set of tagged images with exact masks, the same bytes for the same arguments.

    The folder then holds `images/NAME.png`, `masks/NAME.png` (palette ids, 0 background), `tags.csv` (image, tags,
    split: 70% train, 10% val, 20% test), `classes.txt`, `scenes.csv` (image, objects, the context of each object, lone
    contexts) and `cooccur.json` (these arguments, and the hash of every file). A folder
    that an earlier call made is replaced.

    Args:
        folder: where to; absent, empty, or made by an earlier call.
        images: how many.
        size: height and width in pixels, at least 32.
        classes: 3 to 8, taken in the order boat, train, cow, aeroplane, car, penguin, cactus, tent.
        meet: the chance that an object stands on its own context; else on that of another class, all equally likely.
        alone: the fraction of images that also show, beside the object, a context whose object is not in the image.
        seed: image number i depends on `seed` and i alone.

    Returns:
        The folder.

    Raises:
        TagmaskError: an argument out of its range, or a folder that holds something else.
    """
    settings = check(Settings(images, size, classes, meet, alone, seed))
    target = Path(folder)
    refuse_foreign(target)
    with locked(target, replaced=True), replacing(target) as temporary:
        write_set(temporary, settings)
        refuse_foreign(target)
    return target


def make_scene(settings: Settings, index: int) -> Scene:
    """Make image number `index` of the set in memory."""
    generator = np.random.default_rng([settings.seed, index])
    places = plan(settings, generator)
    size = settings.size
    sideways = bool(generator.random() < 0.5)
    border = size * generator.uniform(0.4, 0.6)
    picture = ground(places, size, border, sideways, generator)
    mask = np.zeros((size, size), dtype=np.uint8)
    for number, place in enumerate(places):
        if place.thing is None:
            continue
        low, high = (0.0, float(size)) if len(places) == 1 else ((0.0, border), (border, float(size)))[number]
        reach = OVERLAP * (high - low)
        whole, own = (0.0, float(size)), (max(0.0, low - reach), min(float(size), high + reach))
        rows, columns = (whole, own) if sideways else (own, whole)
        area = size**2 * np.exp(generator.uniform(*np.log(AREAS)))
        limits = (rows[1] - rows[0] - 2, columns[1] - columns[0] - 2)
        sprite = draw(THINGS[place.thing], generator, area, limits)
        paste(picture, mask, sprite, (rows, columns), place.thing + 1, generator)
    return Scene(expose(picture, generator), mask, places)


def ground(
    places: tuple[Place, ...], size: int, border: float, sideways: bool, generator: np.random.Generator
) -> np.ndarray:
    """Paint the contexts: one over the whole image, or two that meet at an uneven line about `border`.

    Args:
        places: one or two.
        size: of the image, in pixels.
        border: the row (or column) in pixels where the second place begins.
        sideways: the places lie side by side instead of one above the other.
        generator: all chance comes from it.

    Returns:
        (size, size, 3) float32 picture in about [0, 1].
    """
    pictures = [
        tint(CONTEXTS[THINGS[context].context](generator, size), generator)
        for context in dict.fromkeys(p.context for p in places)
    ]
    if len(pictures) == 1:
        return pictures[0]
    edge = border + 0.12 * size * (smooth_noise(generator, size, 2, 4)[0] - 0.5)
    beyond = np.arange(size)[:, None] > edge[None, :]
    return np.where((beyond.T if sideways else beyond)[..., None], pictures[1], pictures[0])


def tint(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Take a random part of a context's own colours away and put one hue in their place: dusk, fog, autumn.

    A context is then known by its pattern, as things are, and not at a glance by its colour.
    """
    grey = picture.mean(axis=-1, keepdims=True)
    hue = generator.uniform(0.4, 1.0, 3).astype(np.float32)
    part = np.float32(generator.uniform(0.0, TINT))
    return (1 - part) * picture + part * grey * hue / hue.mean()


def plan(settings: Settings, generator: np.random.Generator) -> tuple[Place, ...]:
    """Decide which objects stand on which contexts: one place or two."""

    def stand() -> Place:
        thing = int(generator.integers(settings.classes))
        if generator.random() < settings.meet:
            return Place(thing, thing)
        return Place(pick(generator, settings.classes, {thing}), thing)

    first = stand()
    if generator.random() < settings.alone:
        lone = Place(pick(generator, settings.classes, {first.context, first.thing}), None)
        return (first, lone) if generator.random() < 0.5 else (lone, first)
    if generator.random() < PAIRS:
        return (first, stand())
    return (first,)


def pick(generator: np.random.Generator, classes: int, taken: set[int | None]) -> int:
    """Choose one of the classes that are not taken, all equally likely."""
    return int(generator.choice([index for index in range(classes) if index not in taken]))


def paste(
    picture: np.ndarray,
    mask: np.ndarray,
    sprite: Sprite,
    spans: tuple[tuple[float, float], ...],
    label: int,
    generator: np.random.Generator,
) -> None:
    """Lay the object over `picture` and `mask` at a random spot inside `spans` (rows, columns)."""
    corners = []
    for (low, high), length in zip(spans, sprite.coverage.shape, strict=True):
        first = int(np.ceil(low))
        corners.append(int(generator.integers(first, max(first, int(high) - length) + 1)))
    window = tuple(slice(start, start + length) for start, length in zip(corners, sprite.coverage.shape, strict=True))
    cover = sprite.coverage[..., None]
    picture[window] = picture[window] * (1.0 - cover) + sprite.colours * cover
    mask[window][sprite.coverage >= 0.5] = label


def expose(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Light the picture from a random side, with brightness, contrast, colour cast and sensor noise; to uint8."""
    size = picture.shape[0]
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    angle = generator.uniform(0.0, 2 * np.pi)
    fall = 1.0 + generator.uniform(0.0, 0.35) * (np.cos(angle) * across[:, None] + np.sin(angle) * across[None, :])
    gains = generator.uniform(0.78, 1.1) * (1.0 + generator.normal(0.0, 0.03, 3)).astype(np.float32)
    contrast = generator.uniform(0.85, 1.1)
    noise = generator.standard_normal(picture.shape, dtype=np.float32) * generator.uniform(0.01, 0.04)
    lit = ((picture - 0.5) * contrast + 0.5) * fall[..., None] * gains + noise
    return np.rint(np.clip(lit, 0.0, 1.0) * 255.0).astype(np.uint8)


def check(settings: Settings) -> Settings:
    """Return the settings, or say which one is out of its range."""
    ranges = {
        "images": (1, 10_000_000),
        "size": (32, 2048),
        "classes": (3, len(THINGS)),
        "meet": (0.0, 1.0),
        "alone": (0.0, 1.0),
        "seed": (0, 2**63 - 1),
    }
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise TagmaskError(f"{name}={value}: give a value from {low} to {high}")
    return settings


def refuse_foreign(folder: Path) -> None:
    """Raise where a folder holds anything but a synthetic set, which may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise TagmaskError(f"{folder}: a file stands where the synthetic set should go; name another folder")
    names = {entry.name for entry in folder.iterdir()}
    strangers = sorted(names - ENTRIES)
    if strangers or (names and SETTINGS not in names):
        found = (strangers or sorted(names))[0]
        raise TagmaskError(f"{folder}: holds {found!r}, which no synthetic set made; name an empty or a new folder")
    if not names:
        return
    try:
        known = parse_json((folder / SETTINGS).read_bytes())["files"]
        name = stranger(folder, known, SETTINGS)
    except (OSError, KeyError, TypeError, AttributeError, TagmaskError):
        raise TagmaskError(
            f"{folder}: nobody can tell whether the set there was changed, for its {SETTINGS} lists no files; name "
            "another folder, or remove this one"
        ) from None
    if name is not None:
        raise TagmaskError(f"{folder}: {name} was added or changed since the set was made; name another folder")


def split_of(index: int, images: int) -> str:
    """Name the split of image `index`: the first 70% train, then 10% val, then test."""
    end = 0.0
    for name, fraction in SPLITS:
        end += fraction
        if index < round(end * images):
            return name
    return SPLITS[-1][0]


def write_set(folder: Path, settings: Settings) -> None:
    """Make every scene and write the files of the set."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    palette = voc_palette().ravel().tolist()
    names = [thing.name for thing in THINGS[: settings.classes]]
    tags, scenes = [], []
    for index in range(settings.images):
        scene = make_scene(settings, index)
        name = f"{index:06d}.png"
        Image.fromarray(scene.image).save(folder / "images" / name, compress_level=1)
        mask = Image.fromarray(scene.mask)
        mask.putpalette(palette)
        mask.save(folder / "masks" / name)
        standing = [place for place in scene.places if place.thing is not None]
        lone = [place for place in scene.places if place.thing is None]
        tags.append((name, ";".join(names[tag] for tag in scene.tags), split_of(index, settings.images)))
        scenes.append(
            (
                name,
                ";".join(names[place.thing] for place in standing if place.thing is not None),
                ";".join(THINGS[place.context].context for place in standing),
                ";".join(THINGS[place.context].context for place in lone),
            )
        )
    write_text(folder / "tags.csv", csv_text([("image", "tags", "split"), *tags]))
    write_text(folder / "scenes.csv", csv_text([("image", "objects", "contexts", "alone"), *scenes]))
    write_classes(folder, names)
    values = {**asdict(settings), "files": hashes_below(folder)}
    write_text(folder / SETTINGS, json.dumps(values, indent=2) + "\n")
