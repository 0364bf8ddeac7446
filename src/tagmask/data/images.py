"""Photographs as people have them, opened as upright RGB pictures of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tagmask.errors import TagmaskError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File endings taken for images in a folder. HEIC is among them so that such a file is reported, not overlooked."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = frozenset({5, 6, 7, 8})


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image and is not hidden."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and not name.startswith(".") and (dot + suffix).lower() in IMAGE_SUFFIXES


def open_image(path: str | Path) -> Image.Image:
    """Decode a whole image file into an upright RGB picture.

    - The EXIF orientation is applied and then forgotten, so that nobody applies it twice.
    - Transparent pixels (RGBA, LA, palettes with transparency) are laid over white, as a browser shows them.
    - CMYK, YCbCr, LAB, grey and palette pictures are converted; colour profiles are not applied.
    - Grey pictures of 16 bits are scaled by the range of their type, 0..65535, not by their own darkest and brightest
      value: the high byte is kept, as Pillow does for colours of 16 bits. Floating point pictures have to lie in 0..1.
    - Of several frames the first is taken.

    Returns:
        A picture of mode RGB, with nothing left in `info`.

    Raises:
        TagmaskError: the file is missing, a folder, empty, damaged, cut short, of an unknown format, of more pixels
            than Pillow's limit against decompression bombs, or of values without a known range.
    """
    with opened(Path(path)) as image:
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image, Path(path))
    rgb.info.clear()
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the picture that `open_image` gives, read from the file's header.

    Raises:
        TagmaskError: as `open_image`, as far as the header shows it.
    """
    with opened(Path(path)) as image:
        if image.format == "PNG" and _has_chunks_behind_pixels(Path(path)):
            image.load()
        width, height = image.size
        return (height, width) if _orientation(image) in _TURNED else (width, height)


@contextmanager
def opened(path: Path, what: str = "image") -> Iterator[Image.Image]:
    """An image file opened but not yet decoded; whatever goes wrong inside becomes a TagmaskError about `what`."""
    try:
        with Image.open(path) as image:
            yield image
    except TagmaskError:
        raise
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise _explained(path, what, error) from error


def _explained(path: Path, what: str, error: Exception) -> TagmaskError:
    if path.is_dir():
        return TagmaskError(
            f"{path}: is a folder, expected {'an' if what == 'image' else 'a'} {what} file; name the file inside it"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return TagmaskError(f"{path}: no such {what} file; correct the path or remove the entry that names it")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return TagmaskError(f"{path}: too many pixels ({error}); scale the {what} down or cut it into tiles")
    if isinstance(error, OSError) and error.errno is not None:
        return TagmaskError(f"{path}: cannot be read ({error.strerror}); check the file's permissions and its disk")
    if path.stat().st_size == 0:
        return TagmaskError(f"{path}: is empty (0 bytes); copy it again or remove it")
    if isinstance(error, UnidentifiedImageError):
        return TagmaskError(f"{path}: no image format that Pillow reads; save the {what} as PNG, or remove it")
    return TagmaskError(f"{path}: damaged or cut short ({error}); copy it again or remove it")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 where there is none or the EXIF block is damaged."""
    try:
        # The base class's method: that of PNG files would decode the whole picture.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block raises nearly anything, and is no reason to refuse a whole picture
        return 1


def _has_chunks_behind_pixels(path: Path) -> bool:
    """Whether a PNG file has chunks behind the pixels, where some programs put the EXIF block."""
    seen_pixels = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if kind == b"IEND":
                return False
            if seen_pixels and kind != b"IDAT":
                return True
            seen_pixels = seen_pixels or kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise TagmaskError(f"{path}: integers outside 0..65535, of no known range; save it as an 8-bit image")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise TagmaskError(f"{path}: floating point values outside 0..1; save it as an 8-bit image")
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        # Premultiplied modes and LA reach RGBA by different ways; RGBA is common ground.
        picture = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The image made smaller, where its longer side has more than `longest` pixels."""
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)
