"""Photographs as people have them, opened as upright RGB pictures of 8 bits."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from tagmask.data.members import is_member, read_member
from tagmask.errors import TagmaskError

if TYPE_CHECKING:
    from tagmask.data.rasters import Raster

logger = logging.getLogger(__name__)

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, by Pillow's names. Others would start programs (PostScript) or rarely used decoders."""
MAX_PIXELS = 256_000_000
"""The default of the recipe key `data.max_pixels`: more than the 200 million of the largest telephone pictures."""

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File endings taken for images in a folder. HEIC is among them so that such a file is reported, not overlooked."""
SLIDE_SUFFIXES = frozenset({".bif", ".ndpi", ".scn", ".svs"})
"""File endings of whole slides, which only `predict` takes, and in tiles."""

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
_DEPTHS = (8, 10, 12, 14, 16)
DARK = 64
"""Of colours of 16 bits Pillow reads the high byte alone; where it is always below this, they may be of 14 bits."""
MEMORY = Path("(image in memory)")
"""What messages name in place of the path of an image that has none."""
_told: set[str] = set()
_REDUCED = 5
"""Bits of a TIFF page's tag NewSubfileType that say: a smaller copy of another page (1), or a mask of it (4)."""


def limit_pixels(most: int) -> None:
    """Refuse images of more pixels from now on, in this process. It is Pillow's own limit, `Image.MAX_IMAGE_PIXELS`."""
    Image.MAX_IMAGE_PIXELS = most


limit_pixels(MAX_PIXELS)


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image and is not hidden."""
    return _ends_in(name, IMAGE_SUFFIXES)


def is_slide_name(name: str) -> bool:
    """Whether a file name ends like a whole slide and is not hidden."""
    return _ends_in(name, SLIDE_SUFFIXES)


def _ends_in(name: str, suffixes: Collection[str]) -> bool:
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and not name.startswith(".") and (dot + suffix).lower() in suffixes


def open_image(path: str | Path | io.BytesIO, *, longest: int | None = None) -> Image.Image:
    """Decode an image file into an upright RGB picture.

    - The EXIF orientation is applied and then forgotten, so that nobody applies it twice.
    - Transparent pixels (RGBA, LA, palettes with transparency) are laid over white, as a browser shows them.
    - CMYK, YCbCr, LAB, grey and palette pictures are converted; colour profiles are not applied.
    - Grey pictures of 16 bits are scaled by the number of bits that their brightest value needs (8, 10, 12, 14 or 16):
      cameras of 12 bits store them so. Floating point pictures have to lie in 0..1.
    - A GeoTIFF of 16 bits a colour, or of more than three bands, is read by rasterio: see `rasters.GeoTiff`.
    - Of an animation the first frame is taken. A TIFF of several pages is refused.

    Args:
        path: the file, or its content.
        longest: the most pixels that the longer side shall have. A larger picture is made smaller; a JPEG is so while
            it is decoded, in a fraction of the time and memory. None: as it is.

    Returns:
        A picture of mode RGB, with nothing left in `info`.

    Raises:
        TagmaskError: the file is missing, a folder, empty, damaged, cut short, of a format not in `FORMATS`, of several
            pages, of more pixels than `limit_pixels` allows, or of values without a known range.
    """
    path = Path(path) if isinstance(path, str) else path
    if (raster := _beyond_pillow(path)) is not None:
        with raster as found:
            picture = found.read((0, 0, *found.size))
        return picture if longest is None else shrunk(picture, longest)
    with opened(path) as image:
        if longest is not None:
            factor = min(1.0, longest / max(image.size))
            image.draft(None, (ceil(image.width * factor), ceil(image.height * factor)))
        halved = ";16" in str(getattr(image, "tile", ""))  # how its pixels are stored, known until it is decoded
        image.load()
        orientation = _orientation(image)
        path = path if isinstance(path, Path) else MEMORY
        rgb = _to_rgb(image, path)
        if halved and image.mode == "RGB" and np.asarray(rgb).max() < DARK:
            tell_once("its colours of 16 bits are nearly black; if they hold fewer bits, save it with 8", path)
    rgb.info.clear()
    upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
    return upright if longest is None else shrunk(upright, longest)


ImageLike = str | Path | bytes | BinaryIO | Image.Image | np.ndarray
"""What `picture_of` takes for an image."""


def picture_of(image: ImageLike) -> Image.Image:
    """Turn an image in memory, or the file it lies in, into an RGB picture, by the rules of `open_image`.

    Args:
        image: a path; the bytes of a file, or a binary file object; a Pillow picture; or an array: (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), red first, of uint8, bool, or float in 0..1; or grey of uint16.

    Raises:
        TagmaskError: as `open_image`; or of another type, shape or range.
    """
    if isinstance(image, str | Path):
        return open_image(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image, MEMORY)
    if isinstance(image, np.ndarray):
        return _to_rgb(_of_array(image), MEMORY)
    if isinstance(image, bytes | bytearray | memoryview):
        return open_image(io.BytesIO(image))
    if hasattr(image, "read"):
        return open_image(io.BytesIO(image.read()))
    raise TagmaskError(
        f"image: is a {type(image).__name__}; expected a path, bytes, a Pillow picture or an array of shape (H, W, 3); "
        "several images go to predict_many"
    )


def _of_array(pixels: np.ndarray) -> Image.Image:
    """Make a picture of pixels in the mode that holds their type and channels."""
    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    coloured = plain.ndim == 3 and plain.shape[2] in (3, 4)
    if 0 in plain.shape or not (plain.ndim == 2 or coloured):
        raise TagmaskError(
            f"image: an array of shape {pixels.shape}; expected (H, W), (H, W, 3) or (H, W, 4), the colours last"
        )
    if plain.dtype == bool or np.issubdtype(plain.dtype, np.floating):
        if not (plain.min() >= 0 and plain.max() <= 1):
            raise TagmaskError("image: floating point pixels outside 0..1; divide them by their range, or give uint8")
        plain = (plain.astype(np.float32) * 255).round().astype(np.uint8)
    if plain.dtype == np.uint8 or (plain.dtype == np.uint16 and not coloured):
        return Image.fromarray(plain)
    raise TagmaskError(
        f"image: pixels of {pixels.dtype}; expected uint8, float in 0..1, or for grey images uint16 "
        "(pixels >> 8 makes uint8 of 16 bits)"
    )


def image_size(path: str | Path) -> tuple[int, int]:
    """Read the width and height of the picture that `open_image` gives from the file's header.

    Raises:
        TagmaskError: as `open_image`, as far as the header shows it.
    """
    if (raster := _beyond_pillow(Path(path))) is not None:
        with raster as found:
            return found.size
    with opened(Path(path)) as image:
        if image.format == "PNG" and (is_member(Path(path)) or _has_chunks_behind_pixels(Path(path))):
            image.load()
        width, height = image.size
        return (height, width) if _orientation(image) in _TURNED else (width, height)


def _beyond_pillow(path: Path | io.BytesIO) -> AbstractContextManager[Raster] | None:
    """Return the raster of a GeoTIFF that Pillow does not read, or not all of; None for any other image."""
    if not isinstance(path, Path) or path.suffix.lower() not in (".tif", ".tiff"):
        return None
    from tagmask.data import rasters  # which needs this module

    return rasters.open_raster(path) if rasters.is_beyond_pillow(path) else None


@contextmanager
def opened(path: Path | io.BytesIO, what: str = "image") -> Iterator[Image.Image]:
    """Yield an image file opened but not yet decoded; whatever goes wrong in the block becomes a TagmaskError."""
    file, path = path, path if isinstance(path, Path) else MEMORY
    if is_member(path):
        file = io.BytesIO(read_member(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        raise TagmaskError(f"{path}: is no regular file but a pipe, socket or device; remove it")
    if is_slide_name(path.name):
        raise TagmaskError(
            f"{path}: a whole slide, which `tagmask predict` labels in tiles: --set inference.tile=448, or the size of "
            "the images that the run learnt from; to train on it, cut it into pictures"
        )
    try:
        with Image.open(file, formats=readable_formats()) as image:
            _check_pixels(image, path, what)
            _check_pages(image, path, what)
            yield image
    except TagmaskError:
        raise
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        if path is MEMORY:
            raise TagmaskError(f"{path}: these bytes are no {what} of the formats {', '.join(FORMATS)}") from error
        empty = not file.getbuffer().nbytes if isinstance(file, io.BytesIO) else None
        raise _explained(path, what, error, empty) from error


@cache
def readable_formats() -> tuple[str, ...]:
    """Name those of `FORMATS` that this Pillow knows; the oldest ones lack AVIF."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_pixels(image: Image.Image, path: Path, what: str) -> None:
    most, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if most is not None and pixels > most:
        raise TagmaskError(
            f"{path}: too many pixels, {image.width} x {image.height} = {pixels / 1e6:.0f} million, and the most are"
            f" {most / 1e6:g} million; scale the {what} down, cut it into tiles, or raise data.max_pixels"
        )


def _check_pages(image: Image.Image, path: Path, what: str) -> None:
    """Refuse a TIFF that shows more than one picture; smaller copies of the first do not count."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.n_frames == 1:
        return
    for page in range(1, image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(ExifTags.Base.NewSubfileType, 0) & _REDUCED:
            raise TagmaskError(f"{path}: holds {image.n_frames} pages; save each page as a file of its own")
    image.seek(0)


def _explained(path: Path, what: str, error: Exception, empty: bool | None) -> TagmaskError:
    """Say what is wrong with a file; `empty` where its content, and not the file, was opened."""
    if path.is_dir():
        return TagmaskError(
            f"{path}: is a folder, expected {'an' if what == 'image' else 'a'} {what} file; name the file inside it"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return TagmaskError(f"{path}: no such {what} file; correct the path or remove the entry that names it")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return TagmaskError(
            f"{path}: too many pixels, more than twice the {most:g} million that are the most; scale the {what} down, "
            "cut it into tiles, or raise data.max_pixels"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return TagmaskError(f"{path}: cannot be read ({error.strerror}); check the file's permissions and its disk")
    if path.stat().st_size == 0 if empty is None else empty:
        return TagmaskError(f"{path}: is empty (0 bytes); copy it again or remove it")
    if isinstance(error, UnidentifiedImageError):
        return TagmaskError(f"{path}: none of the formats {', '.join(FORMATS)}; save the {what} as PNG, or remove it")
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
    """Convert a decoded picture of any mode to RGB, 8 bits a channel."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise TagmaskError(f"{path}: integers outside 0..65535, of no known range; save it as an 8-bit image")
        depth = next(bits for bits in _DEPTHS if values.max() < 1 << bits)
        if depth < 16:
            tell_once(f"16-bit values all need {depth} bits or fewer; read as a picture of {depth} bits", path)
        return Image.fromarray((values >> (depth - 8)).astype(np.uint8)).convert("RGB")
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


def tell_once(text: str, path: Path) -> None:
    """Log how a file is read, once a process for all files that are read so."""
    if text not in _told:
        _told.add(text)
        logger.warning("%s: %s (said once for all such images)", path, text)


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """Make the image smaller where its longer side has more than `longest` pixels."""
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)
