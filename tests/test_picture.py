import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image, ImageOps

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
    assert reason(cut).startswith(f"cut.{ending} cannot be read: ")


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
                assert str(error).startswith(("damaged ", "a picture needs", "a picture may be", "the picture is"))
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
    assert "at most 20 million in all: Image size (900000000 pixels)" in reason(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "array",
    [np.zeros((H, W, 3)), np.zeros((H, W, 3), np.float32), np.zeros((H, W, 3), np.uint16), np.zeros((H, W, 3), bool),
     np.zeros((H, W, 2), np.uint8), np.zeros((H, W, 1), np.uint8), np.zeros((3, H, W), np.uint8),
     np.zeros((1, H, W, 3), np.uint8), np.zeros(H, np.uint8)],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused_with_their_shape_and_type(array):
    assert reason(array) == f"an array must be (H, W, 3) uint8, not {array.shape} {array.dtype}"


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
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("form", ["png", "II", "MM"])
def test_16_bits_are_stretched_where_they_hold_fewer_with_a_note(tmp_path, form, channels, top):
    if form != "png" and channels == 2:
        pytest.skip("Pillow reads no such TIFF")
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
        (RAMP.astype("f2"), {}, "a damaged one or of a rare kind, which cannot be read: save it anew"),
        (RAMPS.astype("f4"), {}, "a damaged one or of a rare kind, which cannot be read: save it anew"),
    ],
)
def test_depths_that_cannot_be_read_are_refused(tmp_path, values, tags, message):
    told = reason(written(tmp_path / "deep.tif", tiff(values, **tags)))
    assert told.startswith("deep.tif is a TIFF picture") and message in told


# --- Colour


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
    with pytest.raises(ValueError, match="16 times as long.*64 x 1025"):
        open_picture(Image.new("RGB", (64, 1025)))
