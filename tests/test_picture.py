import base64
import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image, ImageCms, ImageOps

from emerdiff import decoding
from emerdiff.picture import open_picture, read_picture, size_for_network, to_tensor

BIG = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
W, H = 96, 80


def gradient(dtype=np.uint8, top: int = 255) -> np.ndarray:
    """(H, W) from 0 at the left to `top` at the right."""
    return np.tile(np.linspace(0, top, W).round().astype(dtype), (H, 1))


def colours() -> Image.Image:
    """Red left of the middle, blue right of it, and a green bar at the top."""
    pixels = np.zeros((H, W, 3), np.uint8)
    pixels[:, : W // 2, 0] = pixels[:, W // 2 :, 2] = 255
    pixels[:20] = 0, 255, 0
    return Image.fromarray(pixels)


def saved(path, picture, **kwargs):
    picture.save(path, **kwargs)
    return path


def pixels_of(source) -> np.ndarray:
    picture = open_picture(source)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def plain(mode: str, size: tuple[int, int]) -> Image.Image:
    """Black, and white in its right half: something is there."""
    picture = Image.new(mode, size)
    picture.paste("white", (size[0] // 2, 0, *size))
    return picture


def reason(source) -> str:
    with pytest.raises(ValueError) as caught:
        open_picture(source)
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    """A 1-bit PNG of that size, without a single pixel."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    written = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


# --- Files that are no good


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_a_file_that_breaks_off_is_refused_by_name(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    path = saved(tmp_path / f"whole.{ending}", Image.fromarray(noise))
    assert open_picture(path).size == (W, H)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = reason(cut)
    assert told.startswith(f"cut.{ending} cannot be read: it is damaged") and told.endswith("as JPEG or PNG")


def test_a_damaged_file_is_refused_whatever_the_library_makes_of_it(tmp_path):
    rng, refused = np.random.default_rng(0), 0
    for ending in ("png", "jpg", "gif", "ppm", "bmp"):
        whole = saved(tmp_path / f"whole.{ending}", colours()).read_bytes()
        for _ in range(20):
            damaged = bytearray(whole)
            for place in rng.integers(0, 60, 3):
                damaged[place] = rng.integers(256)
            (tmp_path / "damaged").write_bytes(damaged)
            try:
                pixels_of(tmp_path / "damaged")
            except ValueError as error:
                assert str(error).startswith(("damaged ", "a picture needs", "the longer side of", "the picture is"))
                refused += 1
    assert refused > 30


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert reason(tmp_path / "nowhere.png") == "nowhere.png cannot be read: No such file or directory"
    assert reason(str(tmp_path)) == f"{tmp_path.name} is a folder, not a file"


@pytest.mark.parametrize("size", [(63, 100), (100, 63)])
def test_a_side_under_64_pixels_is_refused(tmp_path, size):
    expected = f"at least 64 pixels a side and at most 20 million in all: this one has {size[0]} x {size[1]}"
    assert expected in reason(Image.new("RGB", size)) and expected in reason(np.zeros((*size[::-1], 3), np.uint8))
    assert expected in reason(saved(tmp_path / "tiny.png", Image.new("RGB", size)))
    assert open_picture(plain("RGB", (64, 64))).size == (64, 64)


@BIG
@pytest.mark.parametrize("size", [(10_000, 10_000), (4_001, 5_000)])
def test_over_20_million_pixels_are_refused_before_they_are_decoded(tmp_path, size):
    (tmp_path / "huge.png").write_bytes(png_header(*size))  # decoding would fail: nothing is there
    assert f"at most 20 million in all: this one has {size[0]} x {size[1]}" in reason(tmp_path / "huge.png")
    assert "20 million" in reason(Image.new("1", size))


def test_20_million_pixels_are_accepted():
    assert open_picture(plain("1", (4_000, 5_000))).size == (4_000, 5_000)


def test_a_decompression_bomb_is_refused_with_the_same_limits(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    assert "at most 20 million in all: this one has far more" in reason(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "array",
    [np.zeros((H, W, 3)), np.zeros((H, W, 3), np.float32), np.zeros((H, W, 3), np.uint16), np.zeros((H, W, 3), bool),
     np.zeros((H, W, 2), np.uint8), np.zeros((H, W, 1), np.uint8), np.zeros((3, H, W), np.uint8),
     np.zeros((1, H, W, 3), np.uint8), np.zeros(H, np.uint8)],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused_with_their_shape_and_type(array):
    assert reason(array) == f"an array must be (H, W, 3) uint8, not {array.shape} {array.dtype}"


# --- Formats


FOREIGN = [
    (b"PF\n8 8\n-1.0\n", "is a PFM picture in colour, which cannot be read here: save it as JPEG or PNG"),
    (b"\x0a\5\1\x08", "is a PCX picture, which"),
    (b"\0\1\0\0\x11\xaf", "is an FLI animation, which"),
    (b"CWS\x0a", "is a Flash file, not a picture"),
    (b"PAR1", "is a Parquet file, not a picture"),
    (b"glTF\2", "is a three-dimensional model, not a picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture, which cannot be read here: save it as JPEG or PNG"),
    (b"\xff\x0a\0\0", "is a JPEG XL picture, which"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 picture, which"),
    (b"\xff\x4f\xff\x51\0", "is a JPEG 2000 picture, which"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, which cannot be read here: save it as JPEG or PNG"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "is an AVIF picture, which"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a raw photograph, which cannot be read here: develop it"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "is a video, not a picture: save one of its frames"),
    (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video, not"),
    (b"RIFF\0\0\0\0AVI LIST", "is a video, not"),
    (b"\x1aE\xdf\xa3\1\0\0\0", "is a video, not"),
    (b"8BPS\0\1", "is a Photoshop document, which"),
    (b"gimp xcf v011", "is a GIMP document, which"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a -->\n<svg/>", "is an SVG drawing, which"),
    (b"%PDF-1.7\n", "is a PDF document, not a picture: save the page as PNG"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n{} loop\n", "is a PostScript document, not a picture"),
    (b"\xc5\xd0\xd3\xc6\x20\0\0\0" + bytes(24) + b"%!PS", "is a PostScript document, not"),
    (bytes(128) + b"DICM\2\0\0\0", "is a DICOM picture, which"),
    (b"v/1\x01\2\0\0\0", "is an OpenEXR picture, which"),
    (b"#?RADIANCE\n", "is a Radiance HDR picture, which"),
    (b"SIMPLE  =                    T", "is a FITS picture, which"),
    (b"\0\0\1\0\1\0\x10\x10", "is an ICO icon, which"),
    (b"DDS \x7c\0\0\0", "is a DDS picture, which"),
    (bytes([0, 0, 2]) + bytes(100) + b"TRUEVISION-XFILE.\0", "is a TGA picture, which"),
    (b"qoif\0\0\0\x60", "is a QOI picture, which"),
    (b"PK\3\4\x14\0", "is a ZIP archive or a document stored as one, not a picture: unpack it"),
    (b"\x1f\x8b\x08\0", "is a gzip file, not a picture: unpack it"),
    (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page, not a picture: save the picture itself"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, not the picture itself"),
    (b"\x93NUMPY\1\0v\0{'descr': '<f8'}", "is a NumPy array, not a picture: load it"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, not"),
    (b"\0\5\x16\7\0\2\0\0Mac OS X", "is a macOS metadata file, not the picture itself"),
    (b"FUJIFILMCCD-RAW 0201", "is a raw photograph, which"),
    (b"hello, this is text: a word \xc3\xa9t\xc3\xa9\n", "is a text file, not a picture"),
    (b"", "is empty"),
    (bytes(5000), "is a file that contains only zeros, not a picture: download or copy it again"),
    (b"\x01\x80\x7f\xfe" * 9, "is not a picture in a format that can be read: JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, "),
    (b"\x89PNG\r\n\x1a\n", "is a PNG picture, but it is damaged or of a rare kind and cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize("content, told", FOREIGN)
def test_what_is_not_read_is_named_whatever_its_name_is_with_what_to_do(tmp_path, content, told):
    assert reason(written(tmp_path / "beach.png", content)).startswith(f"beach.png {told}")


@pytest.mark.parametrize(
    "name, tags", [("a.tif", {"_50706": 0x0401}), ("a.tif", {"_254": 1, "_330": 8}), ("a.NEF", {}), ("a.dng", {})]
)
def test_a_raw_photograph_is_refused_and_not_taken_for_its_small_preview(tmp_path, name, tags):
    path = written(tmp_path / name, tiff(noise(H, W, 3), **tags))
    assert reason(path).startswith(f"{name} is a raw photograph, which cannot be read here: develop it")


def test_formats_that_others_register_with_the_library_are_not_opened(tmp_path, monkeypatch):
    def opened(*_):
        raise AssertionError("this must not run")

    Image.init()
    for known in (set(Image.OPEN) - set(decoding.FORMATS)) | {"NEW"}:
        monkeypatch.setitem(Image.OPEN, known, (opened, lambda _: True))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "NEW"])
    for content, _ in FOREIGN:
        reason(written(tmp_path / "a.png", content))
    np.testing.assert_array_equal(pixels_of(saved(tmp_path / "b.png", colours())), colours())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "MPO"])
def test_what_people_have_is_read_under_any_name(tmp_path, format):
    more = {"save_all": True, "append_images": [colours()]} if format == "MPO" else {}
    path = saved(tmp_path / "a.heic", colours(), format=format, **more)
    assert np.abs(pixels_of(path).astype(int) - np.asarray(colours())).mean() < 8


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_deflate", "jpeg"])
@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"strip_size": 1000}])
def test_tiffs_of_every_make_are_read(tmp_path, compression, options):
    path = saved(tmp_path / "a.tif", colours(), compression=compression, **options)
    assert np.abs(pixels_of(path).astype(int) - np.asarray(colours())).mean() < 8
    path = saved(tmp_path / "a.tif", colours().convert("L"), compression=compression, **options)
    assert np.abs(pixels_of(path).astype(int) - np.asarray(colours().convert("L"))[..., None]).mean() < 8


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABegABAAAAAAAAAXQAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAAAAC3"
    "aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAA"
    "AwAeoDCBRZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABgAAAAUAAAABBw"
    "aXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAXxtZGF0AAABcCgBrwT47XSeMxf9a////akD//2lzlpCS0DP/nw1JjolnbtpvMDf"
    "Pl0Nz6jO4Rut3XP7xr89qfRN8HPwMn7CoM5FolmOWdo8cj/3eMAgewqs42ffDDu42vv95/wNawq+lE4k1zOrbRjdZUSezfS6HHTlaKFKG9R/S+zi"
    "/APR/4Csy1MGQ//qHnYT79W919U7x7SeuboFdZdAtqV5lZ6GedindxaTqW93TA4IV2M/3e/31f6X/7QVWpQO1Zpz37/advT7/VZ/fr/meerYxYDp"
    "cxzmXzzwF8palLeGG2NMSpVGfbppEi+sDTkuDtpLeykWbm5f1820fxluyz34wV9GM5luZDdcN79rWDtbZcB0+Wwq2coqvAbiiQ1kh9aT9OyzmNF0"
    "LXNIFenP3M5lIMaK4DEF4voM5qwc+P8RgBv52nvTCe72GIgEpUZ45Nh3qmzugg9teaes/Uqqq7Eq+et/e2DlBRmGqLw/515qK6lSe3sw"
)


def test_a_heic_picture_is_read(tmp_path):
    pytest.importorskip("pi_heif")
    assert np.abs(pixels_of(written(tmp_path / "a.jpg", HEIC)).astype(int) - np.asarray(colours())).mean() < 5
    told = "a.jpg is a HEIC picture, which cannot be read here: save it as JPEG or PNG"
    assert reason(written(tmp_path / "a.jpg", HEIC[: len(HEIC) * 2 // 3])) == told


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_avif_picture_is_upright_transparent_and_in_its_colours(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    clear = colours().convert("RGBA")
    clear.paste((0, 0, 0, 0), (60, 40, W, H))
    stored = clear.rotate({1: 0, 3: 180, 6: 90, 8: 270}[orientation], expand=True)
    path = saved(tmp_path / "a.avif", stored, exif=exif, quality=90, icc_profile=rgb_profile(SRGB, 1.5))
    opened = read_picture(path)
    expected = np.array(colours())
    expected[40:, 60:] = 255
    assert opened.notes == () and np.abs(np.asarray(opened.picture).astype(int) - expected).mean() < 8


def test_sizes_of_avif_and_heic_pictures_are_checked(tmp_path):
    path = saved(tmp_path / "a.avif", plain("RGB", (63, 100)), speed=10)
    assert "this one has 63 x 100" in reason(path)
    path = saved(tmp_path / "a.avif", plain("RGB", (5_000, 4_002)), speed=10, quality=1)
    assert "this one has 5000 x 4002" in reason(path)


# --- Files made to do harm


def jpeg_segment(code: int, data: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data


def many_tags(count: int, size: int) -> bytes:
    """EXIF, or a TIFF, of which each tag asks for the same `size` bytes."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size, 8) for tag in range(1000, 1000 + count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4 + size)


def twice(file: bytes) -> bytes:
    """A TIFF with its last entry a second time: decoders do not agree on which counts."""
    count, last = struct.unpack("<H", file[8:10])[0], file[-4 - H * W - 12 : -4 - H * W]
    return file[:8] + struct.pack("<H", count + 1) + file[10 : -4 - H * W] + last + file[-4 - H * W :]


def hostile() -> dict[str, tuple[bytes, bool]]:
    """Files, and whether there is a picture in them that can be read at little cost."""
    picture = noise(H, W, 3)
    jpeg, gif, webp = (io.BytesIO() for _ in range(3))
    Image.fromarray(picture).save(jpeg, "JPEG")
    Image.fromarray(picture).quantize(4).save(gif, "GIF")
    Image.fromarray(picture).save(webp, "WEBP", exif=b"Exif\0\0" + many_tags(60_000, 300_000))
    jpeg, gif, webp = jpeg.getvalue(), gif.getvalue(), webp.getvalue()
    tables = jpeg.index(b"\xff\xdb")  # after JFIF's segment: Pillow looks for the resolution in EXIF then
    blocks = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    bomb = zlib.compress(bytes(2**25), 9)
    exif = many_tags(60_000, 300_000)
    parts = b"".join(jpeg_segment(0xE1, b"Exif\0\0" + exif[at : at + 65_000]) for at in range(0, len(exif), 65_000))
    tiny, text = 2**21, b"\nexif\n9\n" + many_tags(30_000, 100_000).hex().encode()
    return {
        "exif.jpg": (jpeg[:2] + parts + jpeg[tables:], True),
        "comments.jpg": (jpeg[:2] + jpeg_segment(0xFE, b"") * tiny + jpeg[2:], False),
        "fill.jpg": (jpeg[:2] + b"\xff" * tiny + jpeg[2:], False),
        "junk.jpg": (jpeg[:2] + bytes(tiny) + jpeg[2:], False),
        "exif.png": (png(picture, chunk(b"eXIf", exif)), True),
        "text.png": (png(picture, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))), True),
        "bombs.png": (png(picture, chunk(b"zTXt", b"a\0\0" + bomb) * 200, chunk(b"iCCP", b"a\0\0" + bomb)), True),
        "tiny.png": (png(picture, chunk(b"prVt", b"") * (tiny // 8)), False),
        "empty.png": (png(picture, chunk(b"IDAT", b"") * (tiny // 8)), False),
        "exif.webp": (webp, True),
        "frame.gif": (gif[: blocks + 5] + b"\xff" * 4 + gif[blocks + 9 :], False),
        "tags.tif": (many_tags(60_000, 2**22), False),
        "strips.tif": (tiff(noise(H, W), _279=2**31), False),
        "tile.tif": (tiff(noise(H, W), _322=2**31 - 16, _323=16, _324=8, _325=100, _259=8), False),
        "twice.tif": (twice(tiff(noise(H, W))), False),
        "samples.tif": (tiff(noise(H, W), _277=65535), False),
        "loop.tif": (tiff(noise(H, W))[:-4 - H * W] + struct.pack("<I", 8) + noise(H, W).tobytes(), True),
    }  # fmt: skip


def test_files_made_to_take_time_or_memory_take_little_of_either(tmp_path):
    for name, (content, sound) in hostile().items():
        begin = time.thread_time()
        if sound:
            pixels_of(written(tmp_path / name, content))
        else:
            reason(written(tmp_path / name, content))
        assert time.thread_time() - begin < 1.5, name


def endless() -> dict[str, bytes]:
    """Files that keep a decoder busy: with scans, comments, or ends of lines."""
    scans = io.BytesIO()
    Image.new("RGB", (2000, 2000), (90, 80, 70)).save(scans, "JPEG", progressive=True)
    scans, gif = scans.getvalue()[:-2], io.BytesIO()
    colours().quantize(4).save(gif, "GIF")
    blocks = 13 + 3 * 2 ** ((gif.getvalue()[10] & 7) + 1)
    bitmap = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    return {
        "scans.jpg": scans + scans[scans.rindex(b"\xff\xda") :] * 20_000,
        "comments.gif": gif.getvalue()[:blocks] + b"\x21\xfe" + b"\1a" * 2**21 + b"\0" + gif.getvalue()[blocks:],
        "lines.bmp": b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + bitmap + b"\0\2\0\0" * 2**21,
        "comment.ppm": b"P6\n#" + b"a" * 2**22 + b"\n96 80 255\n" + bytes(3 * W * H),
    }


def test_decoding_that_goes_on_and_on_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.1)
    for name, content in endless().items():
        begin = time.thread_time()
        assert reason(written(tmp_path / name, content)).startswith(f"{name} takes too long to read: save it again")
        assert time.thread_time() - begin < 1, name


def test_a_program_that_decodes_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_MEMORY", 2**25)
    assert "cannot be read here" in reason(saved(tmp_path / "a.avif", colours()))
    monkeypatch.setattr(decoding, "MOST_MEMORY", 2**31)
    monkeypatch.setattr(decoding, "SECONDS", 0)
    assert "takes too long" in reason(written(tmp_path / "a.heic", HEIC))


@pytest.mark.parametrize("name", ["a\nb\x1b[31m.png", "a\u202egnp.png", "\x07.png", "é" * 100 + ".png", "<b>.png"])
def test_names_are_harmless_in_sentences(tmp_path, name):
    told = reason(written(tmp_path / name, b"no picture"))
    assert told.isprintable() and len(told) < 100 and str(tmp_path) not in told and ".png is a text" in told
    told = reason(tmp_path / "nowhere" / name)
    assert told.isprintable() and len(told) < 110 and str(tmp_path) not in told


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert reason(tmp_path / "pipe.png") == "pipe.png is a device, not a file"
    assert "cannot be read" in reason(str(tmp_path / "a\0.png"))


def test_damaged_exif_does_not_fail_a_picture(tmp_path):
    for exif in (b"Exif\0\0", b"Exif\0\0abc", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + many_tags(50, 2)[:300]):
        path = saved(tmp_path / "a.jpg", colours(), exif=exif)
        assert np.abs(pixels_of(path).astype(int) - np.asarray(colours())).mean() < 5


# --- Modes


def test_a_plain_picture_is_unchanged_from_any_source(tmp_path):
    path = saved(tmp_path / "plain.png", colours())
    for source in (colours(), np.asarray(colours()), path, str(path), np.asfortranarray(colours())):
        np.testing.assert_array_equal(pixels_of(source), colours())


def test_grey_becomes_three_equal_channels(tmp_path):
    for source in (gradient(), Image.fromarray(gradient()), saved(tmp_path / "grey.png", Image.fromarray(gradient()))):
        np.testing.assert_array_equal(pixels_of(source), np.repeat(gradient()[..., None], 3, 2))


def test_a_black_and_white_picture_becomes_0_and_255(tmp_path):
    picture = Image.fromarray(gradient()).point(lambda v: 255 * (v > 127), "1")
    pixels = pixels_of(saved(tmp_path / "bits.png", picture))
    assert (pixels[:, :48] == 0).all() and (pixels[:, 48:] == 255).all()


@pytest.mark.parametrize("alpha, expected", [(0, 255), (255, 40), (128, 147)])
def test_transparency_is_laid_on_white(tmp_path, alpha, expected):
    rgba = np.full((H, W, 4), 40, np.uint8)
    rgba[:, W // 2 :, 3] = alpha
    rgba[:, : W // 2] = 0, 0, 0, 255
    whole = Image.fromarray(rgba)
    grey = Image.merge("LA", [whole.convert("L"), whole.getchannel("A")])
    files = saved(tmp_path / "a.png", whole), saved(tmp_path / "la.png", grey)
    for source in (rgba, whole, grey, *files):
        pixels = pixels_of(source).astype(int)
        assert np.abs(pixels[:, W // 2 :] - expected).max() <= 1 and (pixels[:, : W // 2] == 0).all()


def test_a_palette_picture_keeps_its_colours(tmp_path):
    path = saved(tmp_path / "palette.png", colours().quantize(8))
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(pixels_of(path), colours())


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_a_transparent_palette_colour_is_laid_on_white(tmp_path, ending):
    picture = colours().quantize(8)
    red = picture.getpixel((0, H - 1))
    path = saved(tmp_path / f"palette.{ending}", picture, transparency=red)
    expected = np.array(colours())
    expected[(expected == (255, 0, 0)).all(2)] = 255
    np.testing.assert_array_equal(pixels_of(path), expected)


def test_a_transparent_colour_of_a_true_colour_picture_is_laid_on_white(tmp_path):
    path = saved(tmp_path / "key.png", colours(), transparency=(0, 0, 255))
    pixels = pixels_of(path)
    assert (pixels[-1, -1] == 255).all() and pixels[-1, 0].tolist() == [255, 0, 0]


# --- Depth


def tiff(values: np.ndarray, order: str = "<", **tags: int) -> bytes:
    """An uncompressed TIFF of (H, W) or (H, W, channels) values."""
    kinds = {"u": 1, "i": 2, "f": 3}
    channels, bits = 1 if values.ndim == 2 else values.shape[2], values.dtype.itemsize * 8
    known = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: 1 if channels == 1 else 2, 273: 0,
             277: channels, 278: values.shape[0], 279: values.nbytes, 339: kinds[values.dtype.kind]}  # fmt: skip
    if channels == 4:
        known[338] = 2
    known |= {int(tag[1:]): value for tag, value in tags.items()}
    start = 8 + 2 + 12 * len(known) + 4
    extra = b""
    if channels > 1:  # a number for each channel
        for tag in (258, 339):
            extra += struct.pack(f"{order}{channels}H", *[known[tag]] * channels)
    entries = b""
    for tag, value in sorted(known.items()):
        count = channels if tag in (258, 339) else 1
        if count > 1:
            value = start + (0 if tag == 258 else 2 * channels)
        value = start + len(extra) if tag == 273 else value
        entries += struct.pack(f"{order}HHII", tag, 4 if count == 1 else 3, count, value)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(known))
    return head + entries + b"\0" * 4 + extra + values.astype(values.dtype.newbyteorder(order)).tobytes()


def png(values: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of (H, W) or (H, W, channels) uint8 or uint16 values; `chunks` before its pixels."""
    channels, bits = 1 if values.ndim == 2 else values.shape[2], values.dtype.itemsize * 8
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def written(path, data: bytes):
    path.write_bytes(data)
    return path


RAMP = np.tile(np.linspace(0, 1, W), (H, 1))  # (H, W) from 0 at the left to 1
RAMPS = np.stack([RAMP, RAMP[:, ::-1], np.tile(np.linspace(0, 1, H)[:, None], (1, W))], 2)  # another in each channel


def whole(values: np.ndarray, kind: str) -> np.ndarray:
    return values.round().astype(kind)


@pytest.mark.parametrize("top", [1023, 4095, 65535])
@pytest.mark.parametrize("form, channels", [*(("png", n) for n in (1, 2, 3, 4)), ("II", 1), ("II", 3), ("MM", 4)])
def test_16_bits_are_stretched_where_they_hold_fewer_with_a_note(tmp_path, form, channels, top):
    values = RAMP if channels < 3 else RAMPS
    if channels in (2, 4):
        values = np.dstack([values, np.ones((H, W))])
    values = whole(values * top, "u2")
    path = written(tmp_path / "a", png(values) if form == "png" else tiff(values, {"II": "<", "MM": ">"}[form]))
    opened = read_picture(path)
    expected = RAMPS if channels > 2 else RAMP[..., None]
    assert np.abs(np.asarray(opened.picture) - 255 * expected).max() < 1
    note = f"The picture's values lie between 0 and {top:,}; they were stretched to the whole range."
    assert opened.notes == ((note,) if top < 65535 else ())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "values, note",
    [
        (whole(RAMP * 4095, "i4"), "between 0 and 4,095"),
        (whole(RAMP * 4e5 - 3e5, "i4"), "between -300,000 and 100,000"),
        (whole(RAMP * 2000 - 1000, "i2"), "between -1,000 and 1,000"),
        (whole(30_000 + RAMP * 3000, "u2"), "between 30,000 and 33,000"),
        ((RAMP * 2 - 1).astype("f4"), "between -1 and 1"),
        ((RAMP * 0.25).astype("f4"), "between 0 and 0.25"),
        ((RAMP * 1e6).astype("f4"), "between 0 and 1e+06"),
        (RAMP.astype("f4"), None),
        ((RAMP * 255).astype("f4"), None),
        ((RAMP * 65535).astype("f4"), None),
    ],
)
@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_numbers_of_any_kind_are_stretched_from_their_range_with_a_note(tmp_path, values, note, order, compression):
    path = written(tmp_path / "a.tif", tiff(values, order))
    if compression and order == "<":
        with Image.open(path) as picture:
            picture.save(path, compression=compression)
    opened = read_picture(path)
    assert np.abs(np.asarray(opened.picture) - 255 * RAMP[..., None]).max() < 1.5
    assert len(opened.notes) == (note is not None) and all(note in told for told in opened.notes)


def test_big_endian_numbers_that_are_compressed_are_not_turned_twice(tmp_path):
    packed = zlib.compress(tiff(whole(RAMP * 4095, "i4"), ">")[-4 * W * H :])
    file = tiff(whole(RAMP * 4095, "i4"), ">", _259=8, _279=len(packed))
    path = written(tmp_path / "a.tif", file[: -4 * W * H] + packed)
    assert np.abs(pixels_of(path) - 255 * RAMP[..., None]).max() < 1


def test_numbers_without_a_sign_and_small_ones_with_one_keep_their_meaning(tmp_path):
    for values in (whole(RAMP * 4e9, "u4"), whole(RAMP * 250 - 125, "i1")):
        path = written(tmp_path / "a.tif", tiff(values))
        assert np.abs(pixels_of(path) - 255 * RAMP[..., None]).max() < 1.5


def test_where_0_is_white_16_bits_are_turned_as_8_are(tmp_path):
    for top, kind in ((255, "u1"), (4095, "u2"), (65535, "u2")):
        path = written(tmp_path / "a.tif", tiff(whole(RAMP * top, kind), _262=0, _339=1))
        assert np.abs(pixels_of(path) - 255 * (1 - RAMP[..., None])).max() < 1


def test_alpha_of_16_bits_is_laid_on_white_and_colours_that_it_multiplied_are_divided_by_it(tmp_path):
    alpha = np.where(RAMPS[..., 2] < 0.5, 1, 0.5)
    expected = 255 * (RAMPS * alpha[..., None] + 1 - alpha[..., None])
    for top in (4095, 65535):
        for extra, colours in ((2, RAMPS), (1, RAMPS * alpha[..., None])):
            path = written(tmp_path / "a.tif", tiff(whole(np.dstack([colours, alpha]) * top, "u2"), _338=extra))
            assert np.abs(pixels_of(path) - expected).max() < 1.5


def test_a_transparent_level_of_16_bits_is_laid_on_white(tmp_path):
    values = whole(RAMP * 4095, "u2")
    values[:20] = 100
    path = written(tmp_path / "a.png", png(values, chunk(b"tRNS", struct.pack(">H", 100))))
    assert (pixels_of(path)[:20] == 255).all() and pixels_of(path)[20:, 0].max() == 0


def test_hot_pixels_do_not_stretch_the_range_but_a_small_object_does():
    rng = np.random.default_rng(0)
    hot = whole(RAMP * 1000, "u2")
    hot[rng.integers(0, H, 5), rng.integers(0, W, 5)] = 65535
    opened = read_picture(Image.fromarray(hot))
    assert opened.notes[0].startswith("Nearly all of the picture's values lie between 0 and 1,000;")
    assert np.quantile(np.abs(np.asarray(opened.picture) - 255 * RAMP[..., None]), 0.99) < 1
    dot = rng.integers(100, 120, (500, 500)).astype(np.uint16)
    dot[300:308, 200:208] = 4000
    pixels = pixels_of(Image.fromarray(dot))
    assert pixels[303, 203, 0] == 255 and pixels[:290].max() < 3


def test_values_that_are_not_finite_are_black_and_do_not_stretch_the_range():
    values = np.tile(np.linspace(0, 0.3, W, dtype=np.float32), (H, 1))
    values[0] = -1, np.nan, np.inf, -np.inf, *[0] * (W - 4)
    opened = read_picture(Image.fromarray(values))
    pixels = np.asarray(opened.picture)
    assert (pixels[0] == 0).all()
    assert np.abs(pixels[1:] - 255 * RAMP[1:, :, None]).max() < 1
    assert opened.notes[0].startswith("Nearly all of the picture's values lie between 0 and 0.3;")
    assert opened.notes[1] == "Where the picture's values are not finite numbers, it is black."


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_without_a_finite_value_is_refused(value):
    assert "no finite values" in reason(Image.fromarray(np.full((H, W), value, np.float32)))


@pytest.mark.parametrize(
    "values, tags, message",
    [
        (RAMP, {}, "with values of 64 bits, which cannot be read here: save it as 16-bit PNG"),
        (whole(RAMPS, "u2"), {"_284": 2}, "with 16-bit colours in separate planes, which cannot be read here"),
        (RAMP.astype("f2"), {}, "it is damaged or of a rare kind and cannot be read: save it again"),
        (RAMPS.astype("f4"), {}, "it is damaged or of a rare kind and cannot be read: save it again"),
    ],
)
def test_depths_that_cannot_be_read_are_refused(tmp_path, values, tags, message):
    told = reason(written(tmp_path / "deep.tif", tiff(values, **tags)))
    assert told.startswith("deep.tif is a TIFF picture") and message in told


# --- Colour


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """A colour profile of version 2."""
    white = fixed(0.9642, 1, 0.8249)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"wtpt": b"XYZ " + bytes(4) + white, b"cprt": b"text\0\0\0\0none", b"desc": text} | tags
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", space, pcs)
    head += bytes(12) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def gamma(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def rgb_profile(primaries: np.ndarray, exponent: float) -> bytes:
    """Of (3, 3) primaries, each a row in XYZ."""
    tags = {name + b"XYZ": b"XYZ " + bytes(4) + fixed(*xyz) for name, xyz in zip(RGB, primaries, strict=True)}
    return profile(b"RGB ", tags | {name + b"TRC": gamma(exponent) for name in RGB})


RGB = b"r", b"g", b"b"
ADOBE_RGB = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 as sRGB's levels 0..255."""
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_colours_of_another_profile_become_srgb(tmp_path, ending):
    image, options = Image.fromarray(np.kron(noise(H // 8, W // 8, 3), np.ones((8, 8, 1), np.uint8))), {}
    if ending == "webp":
        options = {"lossless": True}
    if ending == "jpg":
        options = {"quality": 100, "subsampling": 0}
    path = saved(tmp_path / f"a.{ending}", image, icc_profile=rgb_profile(ADOBE_RGB, 563 / 256), **options)
    with Image.open(path) as stored:
        linear = (np.asarray(stored) / 255) ** (563 / 256)
    opened = read_picture(path)
    expected = levels(linear @ ADOBE_RGB @ np.linalg.inv(SRGB))
    assert np.abs(np.asarray(opened.picture) - expected).max() < 1.5 and opened.notes == ()
    assert np.abs(np.asarray(opened.picture) - 255 * linear ** (256 / 563)).max() > 50
    assert not opened.picture.info  # or a file made of it would be converted again


def test_an_srgb_profile_changes_no_pixel(tmp_path):
    x = np.linspace(0, 1, 1024)  # a table of as many, as in the profile that most files have
    curve = 65535 * np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    table = b"curv" + bytes(4) + struct.pack(">I", 1024) + curve.round().astype(">u2").tobytes()
    tags = {name + b"XYZ": b"XYZ " + bytes(4) + fixed(*xyz) for name, xyz in zip(RGB, SRGB, strict=True)}
    usual = profile(b"RGB ", tags | {name + b"TRC": table for name in RGB})
    for known in (SRGB_PROFILE, usual):
        for values in (noise(H, W, 3), noise(H, W)):
            path = saved(tmp_path / "a.png", Image.fromarray(values), icc_profile=known)
            np.testing.assert_array_equal(pixels_of(path), np.dstack([values] * 3) if values.ndim == 2 else values)


def test_grey_pictures_take_a_profile_of_grey_or_of_rgb(tmp_path):
    expected = levels((noise(H, W) / 255) ** 1.5)[..., None]
    for known in (profile(b"GRAY", {b"kTRC": gamma(1.5)}), rgb_profile(SRGB, 1.5)):
        for image in (Image.fromarray(noise(H, W)), Image.fromarray(noise(H, W).astype(np.uint16) * 257)):
            opened = read_picture(saved(tmp_path / "a.png", image, icc_profile=known))
            assert np.abs(np.asarray(opened.picture) - expected).max() <= 2 and opened.notes == ()


def test_transparency_is_laid_on_white_after_the_colours_are_converted(tmp_path):
    values = noise(H, W, 4)
    values[..., 3] = 128
    path = saved(tmp_path / "a.png", Image.fromarray(values), icc_profile=rgb_profile(SRGB, 1.5))
    expected = levels((values[..., :3] / 255) ** 1.5) * 128 / 255 + 127
    assert np.abs(pixels_of(path) - expected).max() < 2
    palette = Image.fromarray(values[..., 0]).convert("P")
    path = saved(tmp_path / "b.png", palette, transparency=bytes([128]) * 256, icc_profile=rgb_profile(SRGB, 1.5))
    assert np.abs(pixels_of(path)[..., 0] - expected[..., 0]).max() < 2


def test_inks_are_converted_by_their_profile(tmp_path):
    lab = np.zeros((2, 2, 2, 2, 3), np.uint8) + 128  # by cyan, magenta, yellow and black, none or all of each
    lab[..., 0] = np.array([255, 128])  # black alone is a middle grey
    lab[1, 1, 1, :, 0] = 0
    inks = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += inks * 4 + lab.tobytes() + inks * 3
    known = profile(b"CMYK", {b"A2B0": table}, b"Lab ")
    values = np.zeros((H, W, 4), np.uint8)
    values[:, W // 2 :, 3] = 255
    for ending in ("tif", "jpg"):
        path = saved(tmp_path / f"a.{ending}", Image.fromarray(values, "CMYK"), icc_profile=known)
        pixels = pixels_of(path).astype(int)
        assert pixels[:, :40].min() > 250 and np.abs(pixels[:, 56:] - 119).max() < 4  # L* = 50 is level 119


def test_a_lab_picture_is_converted(tmp_path):
    picture = Image.merge("LAB", [Image.fromarray(gradient()), *[Image.new("L", (W, H), 128)] * 2])
    pixels = pixels_of(saved(tmp_path / "a.tif", picture)).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 2 and (np.diff(pixels[0, :, 0]) >= 0).all()
    assert abs(pixels[0, 48, 0] - 119) < 4  # L* = 50


BROKEN = [
    b"",
    b"not a profile",
    SRGB_PROFILE[:200],
    SRGB_PROFILE[:36] + b"XXXX" + SRGB_PROFILE[40:],
    SRGB_PROFILE.replace(b"rXYZ", b"zzzz"),
    SRGB_PROFILE + b"mpet",
    SRGB_PROFILE + bytes(9_000_000),
    profile(b"GRAY", {b"kTRC": gamma(1.5)}),
    profile(b"CMYK", {}, b"Lab "),
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_profile_that_is_no_good_is_left_out_of_account_with_a_note(tmp_path, number):
    image = Image.fromarray(noise(H, W, 3))
    image.info["icc_profile"] = BROKEN[number]
    packed = chunk(b"iCCP", b"x\0\0" + zlib.compress(BROKEN[number]))
    for source in (image, written(tmp_path / "a.png", png(noise(H, W, 3), packed))):
        opened = read_picture(source)
        np.testing.assert_array_equal(opened.picture, noise(H, W, 3))
        told = "The picture's colour profile is damaged or does not fit, and was ignored."
        assert opened.notes == (told,)


def test_a_profile_that_is_broken_in_its_file_does_not_fail_the_picture(tmp_path):
    sound = chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB_PROFILE))
    for broken in (sound[:-4] + b"abcd", *(chunk(b"iCCP", data) for data in (b"x\0\0abc", b"x\0\7", b""))):
        opened = read_picture(written(tmp_path / "a.png", png(noise(H, W, 3), broken)))
        np.testing.assert_array_equal(opened.picture, noise(H, W, 3))
        assert len(opened.notes) == 1
    jpeg = saved(tmp_path / "a.jpg", Image.fromarray(noise(H, W, 3))).read_bytes()
    part = b"\xff\xe2\0\x14ICC_PROFILE\0\1\5abcd"  # the first of five
    opened = read_picture(written(tmp_path / "b.jpg", jpeg[:2] + part + jpeg[2:]))
    np.testing.assert_array_equal(opened.picture, pixels_of(tmp_path / "a.jpg"))
    assert len(opened.notes) == 1


# --- Nothing to find


def on(background: int, **changes) -> np.ndarray:
    """A grey picture (200, 300, 3) with `changes` to it."""
    pixels = np.full((200, 300, 3), background, np.uint8)
    for place, value in changes.values():
        pixels[place] = value
    return pixels


def slightly(top: int) -> np.ndarray:
    """Grey noise of up to `top` levels to either side."""
    return (128 + np.random.default_rng(0).integers(-top, top + 1, (200, 300, 3))).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [on(0), on(255), on(77), on(128, a=((3, 5), 255)), on(0, a=(np.s_[50:52, 60:62], 255)), slightly(1), slightly(2)],
)
def test_a_picture_of_one_colour_is_refused(tmp_path, pixels):
    for source in (pixels, saved(tmp_path / "a.png", Image.fromarray(pixels))):
        assert reason(source) == "the picture is of one colour: there is nothing to find in it"


@pytest.mark.parametrize(
    "pixels",
    [
        on(128, dot=(np.s_[100:108, 60:68], 129)),
        on(0, dot=(np.s_[100:103, 60:63], 255)),
        on(255, line=(np.s_[100, 50:250], 250)),
        on(128, line=(np.s_[:, 7], (128, 128, 132))),
        on(128, half=(np.s_[:, 150:], 129)),
        np.tile(np.linspace(100, 104, 300).round().astype(np.uint8)[None, :, None], (200, 1, 3)),
        slightly(2) + on(0, dot=(np.s_[100:108, 60:68], 5)),
        slightly(5),
    ],
)
def test_the_faintest_object_is_something_to_find(pixels):
    np.testing.assert_array_equal(pixels_of(pixels), pixels)


def test_a_transparent_picture_in_which_nothing_is_seen_is_refused_as_such(tmp_path):
    invisible = np.dstack([noise(H, W, 3), np.zeros((H, W), np.uint8)])
    told = "the picture is completely transparent: there is nothing to find in it"
    for source in (invisible, saved(tmp_path / "a.png", Image.fromarray(invisible))):
        assert reason(source) == told
    assert reason(written(tmp_path / "b.png", png(invisible.astype(np.uint16) * 257))) == told
    white = np.full((H, W, 4), 255, np.uint8)
    white[:, :40, 3] = 0
    assert reason(white) == "the transparent picture, laid on white, is of one colour: lay it on another colour first"
    white[..., :3] = 0
    pixels_of(white)


def test_a_pipeline_refuses_what_it_cannot_find_and_notes_what_it_was_given(small):
    with pytest.raises(ValueError, match="of one colour"):
        next(small.stream(np.zeros((64, 64, 3), np.uint8), quick(num_segments=2)))
    deep = Image.fromarray(whole(RAMP * 4095, "u2"))
    notes = next(event.sketch.notes for event in small.stream(deep, quick(num_segments=2)) if event.sketch)
    assert any("between 0 and 4,095" in note for note in notes)


# --- Ways in which a picture lies in its file


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    path = saved(tmp_path / "print.jpg", colours().convert("CMYK"), quality=95)
    assert Image.open(path).mode == "CMYK"
    assert np.abs(pixels_of(path).astype(int) - np.asarray(colours())).mean() < 5


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_that_its_camera_marked_as_turned_is_set_upright(tmp_path, ending, orientation):
    lying = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]  # degrees counterclockwise, as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = colours().rotate(lying, expand=True)
    path = saved(tmp_path / f"turned.{ending}", stored, exif=exif, quality=95)
    pixels = pixels_of(path)
    assert pixels.shape == (H, W, 3)
    assert np.abs(pixels.astype(int) - np.asarray(colours())).mean() < 5


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_deep_picture_is_set_upright_too(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(whole(RAMP * 4095, "u2"))))
    pixels = pixels_of(saved(tmp_path / f"a.{ending}", stored, exif=exif))
    assert pixels.shape == (H, W, 3) and np.abs(pixels - 255 * RAMP[..., None]).max() < 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV"])
def test_pictures_in_every_mode_are_taken(mode):
    through = {"RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    picture = plain("L", (W, H)).convert("RGB").convert(through).convert(mode)
    np.testing.assert_array_equal(pixels_of(picture), plain("RGB", (W, H)))


def test_an_animations_first_frame_is_taken(tmp_path):
    frames = [colours(), ImageOps.invert(colours()), Image.new("RGB", (W, H), "white")]
    path = saved(tmp_path / "film.gif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(path).n_frames == 3
    np.testing.assert_array_equal(pixels_of(path), colours())


def test_the_picture_handed_in_is_not_changed():
    array = np.asarray(colours()).copy()
    rgba = colours().convert("RGBA")
    pixels_of(array)
    pixels_of(rgba)
    assert rgba.mode == "RGBA" and np.array_equal(array, colours())


# --- Sizes


@pytest.mark.parametrize(
    "size, expected",
    [
        ((512, 512), (512, 512)),
        ((1024, 1024), (512, 512)),
        ((64, 64), (512, 512)),
        ((640, 480), (640, 448)),  # 591.2 x 443.4
        ((480, 640), (448, 640)),
        ((500, 375), (640, 448)),
        ((1920, 1080), (704, 384)),  # 682.7 x 384.0: not rounded up to 448
        ((513, 512), (512, 512)),  # 512.5 x 511.5, truncated
        ((64, 6400), (64, 5120)),  # 51.2 x 5120
        ((6400, 64), (5120, 64)),
        ((64, 312_500), (64, 35_840)),  # 7.3 x 35777
    ],
)
def test_the_size_for_the_network_keeps_the_area_and_rounds_sides_up_to_64(size, expected):
    assert size_for_network(size, 512 * 512, keep_aspect=True, multiple=64) == expected


@pytest.mark.parametrize("size", [(640, 480), (64, 6400)])
@pytest.mark.parametrize("side, expected", [(512, 512), (768, 768), (500, 512), (64, 64)])
def test_squashed_pictures_are_square(size, side, expected):
    assert size_for_network(size, side * side, keep_aspect=False, multiple=64) == (expected, expected)


def test_sides_are_multiples_of_what_the_network_needs():
    assert size_for_network((640, 480), 512 * 512, keep_aspect=True, multiple=128) == (640, 512)
    assert size_for_network((640, 480), 64 * 64, keep_aspect=True, multiple=64) == (128, 64)


def test_pixels_become_numbers_from_minus_one_to_one():
    tensor = to_tensor(colours())
    assert tensor.shape == (1, 3, H, W) and tensor.dtype == torch.float32
    assert tensor[0, :, 0, 0].tolist() == [-1, 1, -1] and tensor[0, :, -1, -1].tolist() == [-1, -1, 1]
    assert to_tensor(Image.new("RGB", (2, 2), (51, 51, 51)))[0, 0, 0, 0].item() == pytest.approx(-0.6)


def test_a_pipeline_takes_each_kind_of_source(small, picture, tmp_path):
    results = [
        next(small.stream(source, quick(num_segments=2)))
        for source in (picture, np.asarray(picture), saved(tmp_path / "p.png", picture), str(tmp_path / "p.png"))
    ]
    assert len(set(results)) == 1
    with pytest.raises(ValueError, match="nowhere.png cannot be read"):
        small(tmp_path / "nowhere.png")


def test_a_picture_over_16_times_as_long_as_wide_is_refused():
    pixels_of(plain("RGB", (64, 1024)))
    with pytest.raises(ValueError, match="16 times the shorter: this one has 64 x 1025"):
        open_picture(Image.new("RGB", (64, 1025)))
