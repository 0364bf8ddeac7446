"""Images read a part at a time: GeoTIFF by rasterio, whole slides by tiffslide, and any other opened as a picture."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from tagmask.data.images import image_size, is_slide_name, open_image, picture_of, tell_once
from tagmask.data.members import is_member
from tagmask.errors import TagmaskError

GEO_SUFFIXES = frozenset({".tif", ".tiff"})
GEO_KEYS = 34735  # the TIFF tag by which a GeoTIFF says what its coordinates are
BITS, SAMPLES, EXTRA_SAMPLES = 258, 277, 338  # TIFF tags: bits a sample, samples a pixel, what those beyond colour mean
MEANING, COLOURS = 262, 320  # TIFF tags: what the samples of colour mean, and the palette where they count its colours
WHITE_IS_ZERO, PALETTE = 0, 3  # values of MEANING
MULTIPLIED, PLAIN = TRANSPARENCY = (1, 2)  # values of EXTRA_SAMPLES: whether colours are multiplied by the transparency
LOOK = 1024  # pixels of the longer side of the small copy that tells the range of 16-bit values


class Raster(Protocol):
    """An image whose parts can be read.

    Attributes:
        size: width and height in pixels.
    """

    size: tuple[int, int]

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Read the RGB picture of a part: left, top, right, bottom in pixels, inside the image."""
        ...


@contextmanager
def open_raster(path: Path, microns: float | None = None) -> Iterator[Raster]:
    """Open an image for reading its parts.

    Args:
        path: of a whole slide by its suffix, a GeoTIFF where rasterio is installed, or any other image, which is then
            held in memory.
        microns: micrometres a pixel at which a whole slide is wanted; the level that comes nearest is read. None takes
            the finest level of no more pixels than `limit_pixels` allows.

    Raises:
        TagmaskError: it does not open, is too large, or needs a package that is not there.
    """
    if is_slide_name(path.name):
        with _library(path, "tiffslide", "slides").TiffSlide(path) as slide:
            yield Slide(path, slide, microns)
        return
    rasterio = _rasterio() if is_geotiff(path) else None
    if rasterio is None:
        yield Picture(open_image(path))
        return
    with _failures(path), rasterio.open(path) as file:
        yield GeoTiff(path, file)


def raster_size(path: Path, microns: float | None = None) -> tuple[int, int]:
    """Read the width and height of the image that `open_raster` gives.

    Raises:
        TagmaskError: as `open_raster`.
    """
    if is_slide_name(path.name) or (is_geotiff(path) and _rasterio()):
        with open_raster(path, microns) as raster:
            return raster.size
    return image_size(path)


def is_geotiff(path: Path) -> bool:
    """Whether a file is a TIFF that says where on the map it lies."""
    if path.suffix.lower() not in GEO_SUFFIXES or is_member(path):  # rasterio reads files alone
        return False
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return GEO_KEYS in image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    except Exception:  # kinds of pixels that Pillow does not know: whether rasterio does is seen when it opens them
        return _rasterio() is not None and _begins_as_tiff(path)


def is_beyond_pillow(path: Path) -> bool:
    """Whether an image is a GeoTIFF of 16 bits, or of more bands than colours, and rasterio is there to read it.

    A fourth band that says that it is transparency is none too many.
    """
    if not is_geotiff(path) or _rasterio() is None:
        return False
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            tags: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
            bands, extra = tags.get(SAMPLES, 1), tags.get(EXTRA_SAMPLES, (0,))[0]
            return max(tags.get(BITS, (1,))) == 16 or bands > 4 or (bands == 4 and extra not in TRANSPARENCY)
    except Exception:  # kinds of pixels that Pillow does not know
        return True


def georeference(path: Path) -> str | None:
    """Say where an image lies on the map, in the form of GDAL's side files `NAME.png.aux.xml`.

    Returns:
        The file's text, by which QGIS, GDAL and rasterio place a mask of the same size; None where the image does not
        say where it lies, or rasterio is not installed, which is then told.
    """
    if not is_geotiff(path):
        return None
    rasterio = _rasterio()
    if rasterio is None:
        tell_once("its place on the map is not kept in the mask; that takes pip install 'tagmask[geo]'", path)
        return None
    with _failures(path), rasterio.open(path) as file:
        if file.crs is None:
            return None
        place = ", ".join(f"{number:.16e}" for number in file.transform.to_gdal())
        system = escape(file.crs.to_wkt())
    return f"<PAMDataset>\n  <SRS>{system}</SRS>\n  <GeoTransform>{place}</GeoTransform>\n</PAMDataset>\n"


class Picture:
    """An image that is held in memory."""

    def __init__(self, image: Image.Image) -> None:
        self.image, self.size = image, image.size

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """See `Raster`."""
        return self.image.crop(box)


@dataclass(frozen=True)
class Samples:
    """What the samples of a TIFF of at most 8 bits mean.

    rasterio gives them as they are stored. Here they become what Pillow makes of them, so that an image read in parts
    has the pixels of the same image read whole by `open_image`.

    Attributes:
        bits: of a sample.
        white_is_zero: whether the lowest is white.
        palette: (n, 3) uint8 colours that the samples count; None where they are colours themselves.
        alpha: of `TRANSPARENCY`, where the last band is that; else 0.
    """

    bits: int
    white_is_zero: bool
    palette: np.ndarray | None
    alpha: int

    @classmethod
    def of(cls, path: Path) -> Samples | None:
        """Read a GeoTIFF's header; None where it has more bits, or rasterio reads it for `open_image`, too."""
        if is_beyond_pillow(path):
            return None
        with Image.open(path, formats=["TIFF"]) as image:
            tags: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
            bits, meaning, extra = max(tags.get(BITS, (1,))), tags.get(MEANING, 0), tags.get(EXTRA_SAMPLES, (0,))[0]
            palette = (np.array(tags[COLOURS]).reshape(3, -1).T // 256).astype(np.uint8) if meaning == PALETTE else None
        return cls(bits, meaning == WHITE_IS_ZERO, palette, extra * (extra in TRANSPARENCY)) if bits <= 8 else None

    def picture(self, planes: np.ndarray) -> Image.Image:
        """Make an RGB picture of (bands, H, W) uint8 planes; what is transparent is laid over white."""
        colours, alpha = (planes[:-1], planes[-1:]) if self.alpha else (planes, planes[:0])
        if self.palette is not None:
            colours = self.palette[colours[0]].transpose(2, 0, 1)
        else:
            colours = colours * np.uint8(255 // (2**self.bits - 1))
        colours = 255 - colours if self.white_is_zero else colours
        if not self.alpha:
            return picture_of(_interleaved(colours))
        four = np.concatenate([np.broadcast_to(colours, (3, *colours.shape[1:])), alpha])
        raw, size = "RGBa" if self.alpha == MULTIPLIED else "RGBA", (four.shape[2], four.shape[1])
        return picture_of(Image.frombytes("RGBA", size, _interleaved(four).tobytes(), "raw", raw))


class GeoTiff:
    """A GeoTIFF: its first three bands are red, green and blue; with fewer the first is grey, or of a palette.

    Integers of 16 bits are scaled by the bits that the brightest of a small copy needs, as `open_image` scales them;
    floats lie in 0..1.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self.size: tuple[int, int] = (file.width, file.height)
        _check_pixels(path, self.size)
        self.samples = Samples.of(path)
        self.bands = [1, 2, 3] if file.count >= 3 else [1]
        if self.samples is not None and self.samples.alpha:
            self.bands.append(file.count)
        elif file.count > 3:
            tell_once(f"of {file.count} bands the first three are taken, as red, green and blue", path)
        self.shift = 0
        if file.dtypes[0] not in ("uint8", "uint16", "float32", "float64"):
            raise TagmaskError(f"{path}: pixels of {file.dtypes[0]}; save it with uint8, uint16 or floats in 0..1")
        if file.dtypes[0] == "uint16":
            factor = min(1.0, LOOK / max(self.size))
            shape = (len(self.bands), *(max(1, round(side * factor)) for side in (file.height, file.width)))
            self.shift = max(0, int(file.read(self.bands, out_shape=shape).max()).bit_length() - 8)

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """See `Raster`."""
        left, top, right, bottom = box
        with _failures(self.path):
            pixels = self.file.read(self.bands, window=((top, bottom), (left, right)))
        if self.samples is not None:
            return self.samples.picture(pixels)
        if pixels.dtype == np.uint16:
            pixels = np.minimum(pixels >> self.shift, 255).astype(np.uint8)
        return picture_of(_interleaved(pixels))


class Slide:
    """One level of a whole slide."""

    def __init__(self, path: Path, slide: Any, microns: float | None) -> None:
        self.path, self.slide = path, slide
        self.level = self._level(microns)
        self.size: tuple[int, int] = slide.level_dimensions[self.level]
        self.factor = slide.level_downsamples[self.level]
        _check_pixels(path, self.size)

    def _level(self, microns: float | None) -> int:
        """Choose the level nearest to that resolution, or the finest that is not too large."""
        levels = range(self.slide.level_count)
        if microns is None:
            most = Image.MAX_IMAGE_PIXELS or math.inf
            return next(
                (level for level in levels if math.prod(self.slide.level_dimensions[level]) <= most), levels[-1]
            )
        own = self.slide.properties.get("tiffslide.mpp-x")
        if not own:
            raise TagmaskError(f"{self.path}: does not say how large its pixels are; leave inference.microns out")
        sizes = [float(own) * factor for factor in self.slide.level_downsamples]
        return min(levels, key=lambda level: abs(math.log(sizes[level] / microns)))

    def read(self, box: tuple[int, int, int, int]) -> Image.Image:
        """See `Raster`."""
        left, top, right, bottom = box
        corner = (round(left * self.factor), round(top * self.factor))  # places are named in pixels of the finest level
        with _failures(self.path):
            return self.slide.read_region(corner, self.level, (right - left, bottom - top)).convert("RGB")


def _interleaved(planes: np.ndarray) -> np.ndarray:
    """Turn (bands, H, W) into (H, W) of one band, or (H, W, bands)."""
    return np.ascontiguousarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))


def _check_pixels(path: Path, size: tuple[int, int]) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and math.prod(size) > most:
        raise TagmaskError(
            f"{path}: {size[0]} x {size[1]} pixels, and the most are {most / 1e6:g} million; raise data.max_pixels"
        )


def _rasterio() -> Any | None:
    try:
        import rasterio
    except ImportError:
        return None
    return rasterio


def _begins_as_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:
        return False


def _library(path: Path, name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TagmaskError(f"{path}: a whole slide, read by {name}; pip install 'tagmask[{extra}]'") from None


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Turn whatever a reader of files raises into a TagmaskError."""
    try:
        yield
    except TagmaskError:
        raise
    except Exception as error:  # damaged files make readers raise nearly anything
        raise TagmaskError(f"{path}: damaged or cut short ({error}); copy it again or remove it") from error
