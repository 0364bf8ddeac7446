"""Find and open the photographs that the page may show: those of its folder or data set, and uploads within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tagmask.api import Model, open_data
from tagmask.data.dataset import Dataset
from tagmask.data.images import image_size, open_image
from tagmask.data.readers import detect
from tagmask.data.walk import image_files
from tagmask.engine.model import overridden
from tagmask.errors import TagmaskError, no_such

MAX_PIXELS = 40_000_000
SHOWN_BY_BROWSERS = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True)
class Photo:
    """A photograph on disk.

    Attributes:
        path: of the file.
        tags: names of the classes it shows; None where nobody says.
        unknown: names of the classes of which nobody knows whether it shows them.
        split: the name of its split of the data set, or nothing.
        context: names of the context classes it shows, with `~` before those of which nobody knows.
    """

    path: Path
    tags: tuple[str, ...] | None = None
    unknown: tuple[str, ...] = ()
    split: str = ""
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Photos:
    """The photographs that the page may show.

    Attributes:
        root: the folder they lie in; no file outside of it is opened.
        by_name: each photograph under the name that its mask has.
    """

    root: Path
    by_name: dict[str, Photo]

    def examples(self, count: int) -> list[Path]:
        """Choose up to `count` files that a browser can show and that keep the limits, spread evenly over the names."""
        paths = [photo.path for _, photo in sorted(self.by_name.items())]
        shown = [path for path in paths if path.suffix.lower() in SHOWN_BY_BROWSERS]
        spread = shown[:: max(1, len(shown) // count)][:count]
        return [path for path in spread if _is_admitted(path, self.root)]


def find_photos(
    model: Model, images: Path | None, *, review: Path | None = None, overrides: Sequence[str] = ()
) -> Photos:
    """List photographs, with their tags where a data set says them.

    Args:
        model: its classes are the tags that count.
        images: a folder of images, searched through, or a data set that `train` reads; in a plain folder, the
            innermost folder with the name of a class gives the tag. None: the run's own data.
        review: the table of the review; where it lies in the folder, it is not taken for a data set.
        overrides: of the section `data` of the run's recipe. How its tables were written counts for other data, too,
            unless they say otherwise; where its own images and masks lie does not.

    Raises:
        TagmaskError: nothing is there, or the data set cannot be read.
    """
    only = {"only": ("data",), "but": ("data.classes",)}
    recipe = model.run.recipe
    if images is None:
        config = overridden(recipe, overrides, **only).data
        if config.path is None or not config.path.exists():
            raise TagmaskError(f"{model.run.folder}: the data it was trained on is not there; give --images")
        return _of_dataset(open_data(None, config, model.classes), config.path)
    if not images.exists():
        raise no_such(images, "folder", "give --images a folder of photographs or a data set")
    if images.is_file() or _is_data_set(images, review):
        plain = recipe.data.model_copy(
            update={
                "format": "auto",
                "image_folder": None,
                "masks": None,
                "mask_classes": None,
                "tag_source": "annotations",
                "tag_list": None,
            }
        )
        config = overridden(recipe.model_copy(update={"data": plain}), overrides, **only).data
        return _of_dataset(open_data(images, config, model.classes), images)
    photos = _of_folder(images, model.classes)
    if not photos.by_name:
        raise TagmaskError(f"{images}: no images in it; expected .jpg, .png, .webp, … files")
    return photos


def inside(path: Path, root: Path) -> Path:
    """Resolve a path and its links, and refuse one that leads out of a folder.

    Raises:
        TagmaskError: it leads out of the root.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise TagmaskError(
            f"{path}: leads out of {root}, and the page shows only what lies in it; move or copy it there"
        )
    return real


def open_photo(path: Path) -> Image.Image:
    """Open a photograph, upright and RGB; one of more than MAX_PIXELS is refused before it is decoded.

    Raises:
        TagmaskError: no image, damaged, or too large.
    """
    width, height = image_size(path)
    if width * height > MAX_PIXELS:
        raise TagmaskError(
            f"{path}: {width} x {height} is {width * height / 1e6:.0f} million pixels, and the page takes "
            f"{MAX_PIXELS / 1e6:.0f} million; scale it down, or use `tagmask predict`"
        )
    return open_image(path)


def _is_data_set(folder: Path, review: Path | None) -> bool:
    """Tell whether a folder gives tags by more than names of folders; the review's own table does not count."""
    try:
        found, place = detect(folder)
    except TagmaskError:
        return False
    return found != "folders" and (review is None or place.resolve() != review.resolve())


def _of_dataset(dataset: Dataset, source: Path) -> Photos:
    names = dataset.classes
    photos = {
        record.name: Photo(
            record.image,
            tuple(names[index] for index in record.tags),
            tuple(names[index] for index in record.unknown),
            record.split,
            (
                *(dataset.context[index] for index in record.context),
                *(f"~{dataset.context[index]}" for index in record.unknown_context),
            ),
        )
        for record in dataset.records
    }
    return Photos(source if source.is_dir() else source.parent, photos)


def _of_folder(folder: Path, classes: tuple[str, ...]) -> Photos:
    found: dict[str, list[Path]] = {}
    for path in map(Path, image_files(folder)):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    photos: dict[str, Photo] = {}
    for name, paths in found.items():
        tag = next((part for part in reversed(name.split("/")[:-1]) if part in classes), None)
        for path in paths:
            own = path.relative_to(folder).as_posix() if len(paths) > 1 else name
            photos[own] = Photo(path, None if tag is None else (tag,))
    return Photos(folder, photos)


def _is_admitted(path: Path, root: Path) -> bool:
    try:
        width, height = image_size(inside(path, root))
    except TagmaskError:
        return False
    return width * height <= MAX_PIXELS
