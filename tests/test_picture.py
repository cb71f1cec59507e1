import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image, ImageOps

from emerdiff.picture import open_picture, size_for_network, to_tensor

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
                ours = ("damaged cannot be read", "damaged is not a picture", "a picture needs", "a picture may be")
                assert str(error).startswith(ours)
                refused += 1
    assert refused > 30


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n", b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_a_picture_is_refused_whatever_its_name(tmp_path, content):
    (tmp_path / "text.png").write_bytes(content)
    assert reason(tmp_path / "text.png") == "text.png is not a picture in a format that can be read"


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert reason(tmp_path / "nowhere.png") == "nowhere.png cannot be read: No such file or directory"
    assert reason(str(tmp_path)) == f"{tmp_path.name} cannot be read: Is a directory"


@pytest.mark.parametrize("size", [(63, 100), (100, 63)])
def test_a_side_under_64_pixels_is_refused(tmp_path, size):
    expected = f"at least 64 pixels a side and at most 20 million in all: this one has {size[0]} x {size[1]}"
    assert expected in reason(Image.new("RGB", size)) and expected in reason(np.zeros((*size[::-1], 3), np.uint8))
    assert expected in reason(saved(tmp_path / "tiny.png", Image.new("RGB", size)))
    assert open_picture(Image.new("RGB", (64, 64))).size == (64, 64)


@BIG
@pytest.mark.parametrize("size", [(10_000, 10_000), (4_001, 5_000)])
def test_over_20_million_pixels_are_refused_before_they_are_decoded(tmp_path, size):
    (tmp_path / "huge.png").write_bytes(png_header(*size))  # decoding would fail: nothing is there
    assert f"at most 20 million in all: this one has {size[0]} x {size[1]}" in reason(tmp_path / "huge.png")
    assert "20 million" in reason(Image.new("1", size))


def test_20_million_pixels_are_accepted():
    assert open_picture(Image.new("1", (4_000, 5_000))).size == (4_000, 5_000)


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
    rgba[..., 3] = alpha
    grey = Image.merge("LA", [Image.new("L", (W, H), 40), Image.new("L", (W, H), alpha)])
    for source in (rgba, Image.fromarray(rgba), saved(tmp_path / "a.png", Image.fromarray(rgba)), grey):
        assert np.abs(pixels_of(source).astype(int) - expected).max() <= 1
    assert np.abs(pixels_of(saved(tmp_path / "la.png", grey)).astype(int) - expected).max() <= 1


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


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_cut_off(tmp_path, ending):
    path = saved(tmp_path / f"deep.{ending}", Image.fromarray(gradient(np.uint16, 65535)))
    assert Image.open(path).mode.startswith("I")
    pixels = pixels_of(path)
    assert np.abs(pixels[..., 0].astype(int) - gradient()).max() <= 1 and pixels.max() == 255
    dark = pixels_of(saved(tmp_path / f"dark.{ending}", Image.fromarray(gradient(np.uint16, 6553))))
    assert dark.max() == 25  # a dark picture stays dark


def test_grey_of_fractions_is_scaled_by_its_largest_value_and_gaps_are_black():
    values = gradient(np.float32, 1000) / 1000
    values[0] = -1, np.nan, np.inf, *[0] * (W - 3)
    pixels = pixels_of(Image.fromarray(values))
    assert (pixels[0] == 0).all()
    assert np.abs(pixels[1:, :, 1].astype(int) - gradient()[1:]).max() <= 1
    assert pixels_of(Image.new("F", (W, H))).max() == 0


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
    pixels_of(Image.new("RGB", (64, 1024)))
    with pytest.raises(ValueError, match="16 times as long.*64 x 1025"):
        open_picture(Image.new("RGB", (64, 1025)))
