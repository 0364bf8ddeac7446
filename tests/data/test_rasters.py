"""GeoTIFF and whole slides: parts are read, and a mask keeps its place on the map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tagmask.api import train
from tagmask.api.predict import predict
from tagmask.data import rasters
from tagmask.data.images import MAX_PIXELS, image_size, limit_pixels, open_image
from tagmask.data.rasters import georeference, is_geotiff, open_raster, raster_size
from tagmask.errors import TagmaskError
from tests.conftest import tiny_recipe


@pytest.fixture(autouse=True)
def _usual_limit() -> Iterator[None]:
    yield
    limit_pixels(MAX_PIXELS)


def pixels(height: int, width: int, bands: int = 3) -> np.ndarray:
    """Make a picture of slopes, so that another place or scale shows."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) % 256, rows * 0]
    return np.stack(planes[:bands]).astype(np.uint8)


def write_geotiff(path: Path, values: np.ndarray, **options: Any) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    from rasterio.transform import from_origin

    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    place = {"crs": "EPSG:25832", "transform": from_origin(500000, 5600000, 0.2, 0.2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **{**profile, **place, "dtype": values.dtype, **options}) as file:
        file.write(values)


def write_slide(path: Path, levels: int = 3, side: int = 512) -> np.ndarray:
    """Write a pyramid of tiles as scanners do; return the finest level."""
    tifffile = pytest.importorskip("tifffile", reason="the extra `slides` is not installed")
    pytest.importorskip("tiffslide", reason="the extra `slides` is not installed")
    finest = pixels(side, side).transpose(1, 2, 0)
    said = f"Aperio Image Library v12\n{side}x{side} [0,0 {side}x{side}] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            part = np.ascontiguousarray(finest[:: 2**level, :: 2**level])
            file.write(part, tile=(64, 64), photometric="rgb", description=said, metadata=None)
            if level == 0:  # the second page is a small picture of the whole, in one piece
                file.write(np.ascontiguousarray(finest[::8, ::8]), photometric="rgb", metadata=None)
    return finest


def test_parts_of_a_geotiff_are_those_of_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    write_geotiff(path, pixels(120, 200))
    assert is_geotiff(path)
    assert raster_size(path) == (200, 120)
    with open_raster(path) as raster:
        part = np.asarray(raster.read((30, 10, 90, 50)))
    assert np.array_equal(part, np.asarray(open_image(path))[10:50, 30:90])


def same_whole_and_in_parts(path: Path) -> np.ndarray:
    """Assert that `open_image` and `open_raster` give the same pixels, and return them."""
    whole = np.asarray(open_image(path))
    with open_raster(path) as raster:
        assert isinstance(raster, rasters.GeoTiff)
        np.testing.assert_array_equal(np.asarray(raster.read((0, 0, *raster.size))), whole)
        np.testing.assert_array_equal(np.asarray(raster.read((3, 5, 20, 40))), whole[5:40, 3:20])
    return whole


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_parts_of_a_palette_have_its_colours(bits: int, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    path, values = tmp_path / "map.tif", pixels(64, 96)[:1] >> (8 - bits)
    write_geotiff(path, values, photometric="PALETTE", nbits=bits)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {number: (255 - number, 7 * number % 256, 128) for number in range(2**bits)})
    found = same_whole_and_in_parts(path)
    assert np.array_equal(found[..., 0], 255 - values[0])
    assert (found[..., 2] == 128).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("meaning", ["MINISBLACK", "MINISWHITE"])
def test_parts_of_few_greys_go_from_black_to_white(bits: int, meaning: str, tmp_path: Path) -> None:
    path, values = tmp_path / "map.tif", pixels(64, 96)[:1] >> (8 - bits)
    values[0, -1] = 2**bits - 1
    write_geotiff(path, values, photometric=meaning, nbits=bits)
    found = same_whole_and_in_parts(path)
    first, last = (0, 255) if meaning == "MINISBLACK" else (255, 0)
    assert (found[0] == first).all()
    assert (found[-1] == last).all()


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("alpha", ["PREMULTIPLIED", "NON-PREMULTIPLIED"])
def test_parts_that_are_transparent_are_laid_over_white(
    bands: int, alpha: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, values = tmp_path / "map.tif", np.random.default_rng(0).integers(0, 256, (bands, 64, 96)).astype(np.uint8)
    values[-1, 10] = 0
    write_geotiff(path, values, photometric="RGB" if bands == 4 else "MINISBLACK", alpha=alpha)
    found = same_whole_and_in_parts(path)
    if (bands, alpha) != (2, "PREMULTIPLIED"):  # which Pillow does not know, and rasterio reads as grey for both
        assert (found[10] == 255).all()
    assert "bands the first three" not in caplog.text


def test_bands_and_depths_that_pillow_does_not_know(tmp_path: Path) -> None:
    path, low = tmp_path / "map.tif", pixels(64, 64, 4)
    write_geotiff(path, low.astype(np.uint16) << 4)  # 12 bits, four bands, as of a camera in the air
    with open_raster(path) as raster:
        found = np.asarray(raster.read((0, 0, 64, 64)))
    assert np.array_equal(found, low[:3].transpose(1, 2, 0))
    write_geotiff(path, low[:1].astype(np.float32) / 255)
    with open_raster(path) as raster:
        assert np.array_equal(np.asarray(raster.read((0, 0, 64, 64)))[..., 2], low[0])
    write_geotiff(path, low.astype(np.int32))
    with pytest.raises(TagmaskError, match=r"map\.tif: pixels of int32"), open_raster(path):
        pass


def test_too_large_a_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    write_geotiff(path, pixels(64, 64))
    limit_pixels(1000)
    with pytest.raises(TagmaskError, match=r"64 x 64 pixels.*data\.max_pixels"), open_raster(path):
        pass


def test_a_mask_beside_its_side_file_lies_where_the_map_lies(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    for system, name in (("EPSG:25832", "metres"), ("EPSG:4326", "degrees")):
        path, mask = tmp_path / f"{name}.tif", tmp_path / f"{name}.png"
        write_geotiff(path, pixels(64, 96), crs=system)
        Image.fromarray(pixels(64, 96)[0]).save(mask)
        text = georeference(path)
        assert text is not None
        (tmp_path / f"{name}.png.aux.xml").write_text(text)
        with rasterio.open(path) as expected, rasterio.open(mask) as found:
            assert found.crs == expected.crs
            assert found.transform.almost_equals(expected.transform)
            assert found.xy(10, 20) == pytest.approx(expected.xy(10, 20))


def test_pictures_without_a_place_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.tif")
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert georeference(tmp_path / "plain.tif") is None
    assert georeference(tmp_path / "plain.png") is None


def test_without_rasterio_the_lost_place_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "map.tif"
    write_geotiff(path, pixels(64, 64))
    monkeypatch.setattr(rasters, "_rasterio", lambda: None)
    assert georeference(path) is None
    assert georeference(path) is None
    assert caplog.text.count("tagmask[geo]") == 1
    with open_raster(path) as raster:
        assert raster.size == (64, 64)


def test_levels_of_a_slide(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    finest = write_slide(path)
    with open_raster(path) as raster:
        assert raster.size == (512, 512)
        assert np.array_equal(np.asarray(raster.read((100, 40, 164, 90))), finest[40:90, 100:164])
    with open_raster(path, 1.1) as raster:  # the levels have 0.5, 1 and 2 micrometres a pixel
        assert raster.size == (256, 256)
        assert np.array_equal(np.asarray(raster.read((100, 40, 164, 90))), finest[::2, ::2][40:90, 100:164])
    limit_pixels(20_000)
    with open_raster(path) as raster:
        assert raster.size == (128, 128)


def test_a_slide_is_no_photograph(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_slide(path)
    with pytest.raises(TagmaskError, match=r"slide\.svs: a whole slide.*inference\.tile"):
        open_image(path)


def test_predict_labels_maps_and_slides(tmp_path: Path, cooccur: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    photos = tmp_path / "photos"
    photos.mkdir()
    write_geotiff(photos / "map.tif", pixels(150, 200, 4))
    write_slide(photos / "slide.svs", side=256)
    run = train(cooccur, recipe=tiny_recipe("cam"), output=tmp_path / "run")
    done = predict(run, photos, output=tmp_path / "masks", overrides=["inference.tile=64", "inference.microns=1"])
    assert (done.images, done.skipped) == (2, ())
    with rasterio.open(tmp_path / "masks" / "map.png") as mask, rasterio.open(photos / "map.tif") as image:
        assert (mask.width, mask.height) == (200, 150)
        assert mask.crs == image.crs
        assert mask.bounds == pytest.approx(image.bounds)
    assert Image.open(tmp_path / "masks" / "slide.png").size == (128, 128)
    again = predict(run, photos, output=tmp_path / "masks", overrides=["inference.tile=64"])
    assert again.images == 2
    whole = predict(run, photos / "slide.svs", output=tmp_path / "whole")
    assert "inference.tile" in whole.skipped[0]


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_geotiff_of_four_bands_is_read_whole_as_its_first_three(
    tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tagmask.data.images._told", set())
    path, low = tmp_path / "map.tif", pixels(64, 96, 4)
    low[3] = 7  # near infrared: no transparency
    low[0, -1] = 255
    write_geotiff(path, low if depth == 8 else low.astype(np.uint16) << (depth - 8), photometric="RGB", alpha="NO")
    for _ in range(2):
        assert np.array_equal(np.asarray(open_image(path)), low[:3].transpose(1, 2, 0))
    assert image_size(path) == (96, 64)
    assert max(open_image(path, longest=48).size) == 48
    assert [line for line in caplog.messages if "of 4 bands the first three are taken" in line] == caplog.messages[:1]


def test_geotiff_with_transparency_is_laid_over_white_as_before(tmp_path: Path) -> None:
    path, values = tmp_path / "map.tif", pixels(64, 64, 4)
    write_geotiff(path, values, photometric="RGB", alpha="YES")
    assert np.asarray(open_image(path)).min() == 255


def test_training_on_geotiff_of_four_bands_and_16_bits(tmp_path: Path) -> None:
    for number in range(8):
        values = pixels(64, 64, 4).astype(np.uint16) << 4
        write_geotiff(tmp_path / "images" / f"{number}.tif", np.roll(values, number, axis=2))
    rows = [f"{number}.tif,{'cat' if number % 2 else 'dog'}" for number in range(8)]
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    run = train(tmp_path, recipe=tiny_recipe("cam", "training.steps=2", "training.batch=4"), output=tmp_path / "run")
    assert (run / "model.safetensors").is_file()
