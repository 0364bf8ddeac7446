import io
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from tagmask.data import images
from tagmask.data.images import MAX_PIXELS, image_size, is_image_name, limit_pixels, open_image
from tagmask.errors import TagmaskError
from tagmask.recipes.data_section import DataConfig
from tests.data.trees import write_image


def picture() -> Image.Image:
    """3 wide, 2 high, every pixel of its own colour."""
    values = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 13
    return Image.fromarray(values)


def test_plain_picture_is_kept(tmp_path):
    picture().save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(picture()))
    assert image_size(tmp_path / "a.png") == (3, 2)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_bad_input_exif_rotated_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(tmp_path / "a.png", exif=exif)
    expected = UPRIGHT[orientation](np.asarray(picture()))
    opened = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(opened), expected)
    assert image_size(tmp_path / "a.png") == opened.size == (expected.shape[1], expected.shape[0])
    assert opened.getexif().get(0x0112) is None


def test_exif_rotated_jpeg_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == open_image(tmp_path / "a.jpg").size == (2, 3)


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    block = b"eXIf" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block))
    body, end = stream.getvalue()[:-12], stream.getvalue()[-12:]
    (tmp_path / "a.png").write_bytes(body + chunk + end)
    assert image_size(tmp_path / "a.png") == open_image(tmp_path / "a.png").size == (2, 3)


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    picture().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00nonsense")
    assert image_size(tmp_path / "a.jpg") == open_image(tmp_path / "a.jpg").size == (3, 2)


def test_bad_input_cmyk_image(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = open_image(tmp_path / "a.jpg").getpixel((1, 1))
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_bad_input_16_bit_image_is_scaled_by_its_type(tmp_path, suffix):
    values = np.array([[0, 255, 256], [32768, 4095, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    opened = np.asarray(open_image(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(opened, np.repeat(np.array([[0, 0, 1], [128, 15, 255]])[..., None], 3, axis=2))


def test_bad_input_float_image_has_to_lie_in_0_to_1(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert [pixel[0] for pixel in np.asarray(open_image(tmp_path / "a.tif"))[0]] == [0, 128, 255]
    Image.fromarray(np.array([[0.0, 300.0]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(TagmaskError, match=r"b\.tif: floating point values outside 0\.\.1; save it as an 8-bit"):
        open_image(tmp_path / "b.tif")


def test_bad_input_32_bit_image_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(TagmaskError, match=r"a\.tif: integers outside 0\.\.65535"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette with transparency"])
def test_bad_input_rgba_image_lies_on_white(tmp_path, mode):
    values = np.zeros((1, 3, 4), dtype=np.uint8)
    values[0, :, 3] = [0, 128, 255]
    image = Image.fromarray(values)
    if mode == "palette with transparency":
        image = Image.fromarray(np.array([[0, 1, 1]], dtype=np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.save(tmp_path / "a.png", transparency=b"\x00\xff")
        expected = [255, 0, 0]
    else:
        image.convert(mode).save(tmp_path / "a.png")
        expected = [255, 127, 0]
    opened = np.asarray(open_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(opened, np.repeat(np.array([expected])[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LAB"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (5, 4), "white")
    image = image.quantize(4) if mode == "P" else image if mode == "LAB" else image.convert(mode)
    if mode == "LAB":
        image = Image.new("LAB", (5, 4), (255, 128, 128))
    image.save(tmp_path / "a.tif")
    opened = open_image(tmp_path / "a.tif")
    assert opened.mode == "RGB"
    assert min(opened.getpixel((2, 2))) > 240


def test_bad_input_one_pixel_image(tmp_path):
    write_image(tmp_path / "a.jpg", (1, 1))
    assert open_image(tmp_path / "a.jpg").size == image_size(tmp_path / "a.jpg") == (1, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_bad_input_truncated_jpeg_and_others(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TagmaskError, match=rf"a\.{suffix}: (damaged or cut short|no image format).*remove it"):
        open_image(path)


@pytest.mark.parametrize("read", [open_image, image_size])
def test_bad_input_directory_missing_empty_and_foreign_file(tmp_path, read):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(TagmaskError, match=r"folder\.jpg: is a folder, expected an image file"):
        read(tmp_path / "folder.jpg")
    with pytest.raises(TagmaskError, match=r"empty\.jpg: is empty \(0 bytes\)"):
        read(tmp_path / "empty.jpg")
    with pytest.raises(TagmaskError, match=r"text\.jpg: none of the formats AVIF, .*WEBP; save the image as PNG"):
        read(tmp_path / "text.jpg")
    with pytest.raises(TagmaskError, match=r"gone\.jpg: no such image file"):
        read(tmp_path / "gone.jpg")
    with pytest.raises(TagmaskError, match=r"inside\.jpg: no such image file"):
        read(tmp_path / "text.jpg" / "inside.jpg")


def test_bad_input_decompression_bomb(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", (30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # so that it is put back
    for most, message in (
        (899, r", 30 x 30 = 0 million, and the most are 0\.000899 million"),
        (100, ", more than twice the 0.0001 million"),
    ):
        limit_pixels(most)
        for read in (open_image, image_size):
            with pytest.raises(TagmaskError, match=rf"a\.png: too many pixels{message}.* or raise data\.max_pixels"):
                read(tmp_path / "a.png")
    limit_pixels(900)
    assert open_image(tmp_path / "a.png").size == (30, 30)


def test_the_default_limit_reads_a_telephone_and_is_that_of_recipes():
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS == DataConfig().max_pixels >= 16320 * 12240


def test_postscript_named_as_a_photograph_starts_no_program(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("PostScript was run"))
    with pytest.raises(TagmaskError, match=r"a\.jpg: none of the formats AVIF, .*; save the image as PNG"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("highest", "depth"), [(200, 8), (255, 8), (256, 10), (1500, 12), (4095, 12), (16383, 14)])
def test_the_range_of_16_bit_files_is_taken_from_their_values_and_said_once(tmp_path, caplog, highest, depth):
    images._told.clear()
    values = np.array([[0, highest // 2, highest]], dtype=np.uint16)
    for name in ("a.png", "b.tif"):
        Image.fromarray(values).save(tmp_path / name)
        found = np.asarray(open_image(tmp_path / name))[0, :, 0]
        assert found.tolist() == [int(value) * 256 // 2**depth for value in values[0]]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'a.png'}: 16-bit values all need {depth} bits or fewer")


def test_dark_colours_of_16_bits_are_said(tmp_path, caplog):
    images._told.clear()
    row = b"\x00" + struct.pack(">6H", 0, 4095, 100, 7, 0, 2000)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    assert np.asarray(open_image(tmp_path / "a.png")).max() == 15
    assert "a.png: its colours of 16 bits are nearly black" in caplog.text


def test_pages_of_a_tiff_are_refused_and_smaller_copies_are_not(tmp_path):
    pages = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (10, 20, 30)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for read in (open_image, image_size):
        with pytest.raises(TagmaskError, match=r"pages\.tif: holds 3 pages; save each page as a file of its own"):
            read(tmp_path / "pages.tif")
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "copies.tif"), new=True) as file:
        for page, tags in ((pages[0], {}), (pages[1].resize((4, 3)), {254: 1})):
            page.save(file, format="TIFF", tiffinfo=tags)
            file.newFrame()
    with Image.open(tmp_path / "copies.tif") as image:
        assert image.n_frames == 2
    assert np.unique(np.asarray(open_image(tmp_path / "copies.tif"))[..., 0]).tolist() == [10]
    assert image_size(tmp_path / "copies.tif") == (8, 6)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_made_smaller_as_it_is_decoded(tmp_path, monkeypatch, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[:480, :800]
    Image.fromarray(np.stack([y // 2, x // 4, 0 * x], axis=-1).astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    whole = open_image(tmp_path / "a.jpg")
    decoded: list[tuple[int, int]] = []
    convert = images._to_rgb
    monkeypatch.setattr(images, "_to_rgb", lambda image, path: decoded.append(image.size) or convert(image, path))
    small = open_image(tmp_path / "a.jpg", longest=150)
    assert small.size == ((150, 90) if orientation == 1 else (90, 150))
    assert decoded == [(200, 120)]
    close = np.abs(np.asarray(small, dtype=int) - np.asarray(whole.resize(small.size, Image.Resampling.BOX), dtype=int))
    assert close.mean() < 2
    assert open_image(tmp_path / "a.jpg", longest=800).tobytes() == whole.tobytes()
    whole.save(tmp_path / "a.png")
    assert max(open_image(tmp_path / "a.png", longest=150).size) == 150


def test_image_names():
    assert is_image_name("a.JPG")
    assert is_image_name("a.b.webp")
    assert not is_image_name(".jpg")
    assert not is_image_name("._a.jpg")
    assert not is_image_name("a.txt")
    assert not is_image_name("jpg")
