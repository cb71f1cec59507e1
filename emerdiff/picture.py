"""Reads any picture as plain RGB, and finds its size for the network."""

import io
import math
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from .decoding import check_size, decode, explained

SIDE_MULTIPLE = 64  # of the picture the network sees: 8 for the autoencoder, 8 for three downsamplings

STRAY = 0.001  # share of the values at either end that may be hot pixels
SMALLEST_OBJECT = 9  # pixels, 3 x 3
LARGEST_PROFILE = 2**23  # bytes; those of printing presses have up to 3 million
SAME_COLOUR = 3  # levels (of 256): profiles that are all called sRGB differ by that
NOISE = 2  # levels (of 256) within which a colour counts as the same

Picture = Image.Image | np.ndarray | str | Path


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture as it is segmented, and what was done to it."""

    picture: Image.Image
    """Upright 8-bit sRGB."""
    notes: tuple[str, ...]
    """Sentences."""


def open_picture(source: Picture) -> Image.Image:
    """The picture of `read_picture`."""
    return read_picture(source).picture


def read_picture(source: Picture) -> Opened:
    """An upright 8-bit sRGB picture from a file, a PIL image or an (H, W, 3) uint8 array.

    EXIF rotation and the colour profile are applied, transparency is laid on white, values of more than 8 bits are
    scaled, or stretched if they fill less than half of their range, and the first frame of an animation is taken.
    Raises `ValueError` if the file cannot be read, if a side has fewer than 64 pixels or the picture more than 20
    million (checked before they are decoded), and if it has only one colour.
    """
    picture, values = _loaded(source)
    notes = []
    if values is not None:
        picture = _in_8_bits(values, picture.info, notes)
    picture = _upright(picture)
    alpha = None
    if picture.has_transparency_data:
        grey, picture = picture.mode == "LA", picture.convert("RGBA")
        alpha = picture.getchannel("A")
        picture = picture.convert("L" if grey else "RGB")
    picture = _srgb(picture, notes)
    if alpha:
        picture.putalpha(alpha)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture.info = {}  # it describes the colours and orientation of before
    _check_that_something_is_there(picture, alpha)
    return Opened(picture, tuple(notes))


def _loaded(source: Picture) -> tuple[Image.Image, np.ndarray | None]:
    """The picture as it is, and its values if they have more than 8 bits."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(f"an array must be (H, W, 3) uint8, not {source.shape} {source.dtype}")
        check_size(source.shape[1::-1])
        return Image.fromarray(source), None
    if isinstance(source, Image.Image):
        check_size(source.size)
        with explained("the picture"):
            source.load()
        return source, np.asarray(source) if source.mode.startswith(("I", "F")) else None
    decoded = decode(source)
    check_size(decoded.picture.size)
    return decoded.picture, decoded.values


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # the library can raise anything for damaged EXIF, which is then ignored
        return picture.copy()


# --- Depth: values of any range as 8 bits


def _in_8_bits(values: np.ndarray, info: dict, notes: list[str]) -> Image.Image:
    """Values (H, W) or (H, W, 3 or 4), the fourth for alpha, scaled to 0..255; `info` is that of their file.

    Values within 0..65535, or fractions within 0..1 or 0..255, are scaled from that range if they fill half of it;
    others are stretched from their own range, with a note. Values that are not finite are black.
    """
    colours = [values] if values.ndim == 2 else [values[..., i] for i in range(3)]
    finite = reduce(np.logical_and, map(np.isfinite, colours))  # (H, W)
    if not finite.any():
        raise ValueError("the picture has no finite values: there is nothing to find in it")
    fractions = values.dtype.kind == "f"
    darkest, brightest = (reduce(end, colours).astype(float if fractions else int) for end in (np.minimum, np.maximum))
    low, high = -_highest(-darkest, finite), _highest(brightest, finite)
    whole = next((top for top in ((1, 255, 65535) if fractions else (65535,)) if 0 <= low <= high <= top), None)
    if whole is None or 0 < high - low < whole / 2:
        all_of = "The" if low <= darkest[finite].min() and brightest[finite].max() <= high else "Nearly all of the"
        ends = " and ".join(f"{end:.4g}" if fractions else f"{end:,}" for end in (low, high))
        notes.append(f"{all_of} picture's values lie between {ends}; they were stretched to the whole range.")
    else:
        low, high = 0, whole
    if not finite.all():
        notes.append("Where the picture's values are not finite numbers, it is black.")
    known = (np.where(finite, colour, low) if fractions else colour for colour in colours)
    channels = [_scaled(colour, low, high) for colour in known]
    if values.shape[2:] == (4,):
        channels.append(_scaled(values[..., 3], 0, 65535 if high == 65535 else values[..., 3].max()))
    elif (clear := info.get("transparency")) is not None:
        levels = np.broadcast_to(clear, len(colours))
        kept = reduce(np.logical_or, (colour != level for colour, level in zip(colours, levels, strict=True)))
        channels = channels * (3 // len(channels)) + [np.where(kept, 255, 0).astype(np.uint8)]
    picture = Image.merge({1: "L", 3: "RGB", 4: "RGBA"}[len(channels)], [Image.fromarray(c) for c in channels])
    picture.info = {name: value for name, value in info.items() if name != "transparency"}
    return picture


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """As uint8, with `low` at 0 and `high` at 255."""
    if values.dtype == np.uint16:
        return _scaled(np.arange(65536), low, high)[values]
    above = (values.astype(float) - low).clip(0, high - low)
    return np.rint(above * (255 / (high - low or 1))).astype(np.uint8)


def _highest(values: np.ndarray, finite: np.ndarray) -> float:
    """The highest of the `finite` values (H, W), without those of stray pixels, but with those of objects."""
    highest = np.quantile(values[finite], 1 - STRAY, method="lower")
    above = (values > highest) & finite
    objects, _ = scipy.ndimage.label(above, np.ones((3, 3)))
    objects, values = objects[above], values[above]
    order = np.lexsort((-values, objects))
    objects, values = objects[order], values[order]
    first = np.flatnonzero(np.diff(objects, prepend=0))  # of each object, the highest first
    last = first + SMALLEST_OBJECT - 1
    first, last = first[last < len(objects)], last[last < len(objects)]
    return values[last][objects[first] == objects[last]].max(initial=highest)


# --- Colour: from the profile that the file brings to sRGB


def _srgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    """A picture in any mode without transparency as 8-bit sRGB."""
    if picture.mode == "LAB":
        return ImageCms.profileToProfile(picture, *map(ImageCms.createProfile, ("LAB", "sRGB")), outputMode="RGB")
    if picture.mode != "CMYK":
        picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if "icc_profile" in picture.info:
        try:
            return _by_profile(picture, picture.info["icc_profile"])
        except (ValueError, KeyError, OSError, ImageCms.PyCMSError):
            notes.append("The picture's colour profile is damaged or does not fit, and was ignored.")
    return picture.convert("RGB")


def _by_profile(picture: Image.Image, data: bytes) -> Image.Image:
    """A picture in L, RGB or CMYK as sRGB. An unusable profile may raise anything."""
    if not data or len(data) > LARGEST_PROFILE or b"mpet" in data:  # such tags are programs, and may run for hours
        raise ValueError
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[profile.profile.xcolor_space.strip()]
    if mode != picture.mode and (picture.mode, mode) != ("L", "RGB"):
        raise ValueError
    convert = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB").apply
    if mode != "CMYK":
        steps = np.arange(0, 256, 15, np.uint8)
        colours = steps[None] if mode == "L" else np.stack(np.meshgrid(*[steps] * 3), 3).reshape(1, -1, 3)
        colours = Image.fromarray(colours)
        change = np.asarray(convert(colours), int) - np.asarray(colours.convert("RGB"))
        if np.abs(change).max() <= SAME_COLOUR:
            return picture.convert("RGB")
    return convert(picture.convert(mode))


# --- Whether there is anything to find


def _check_that_something_is_there(picture: Image.Image, alpha: Image.Image | None) -> None:
    if not _is_of_one_colour(picture):
        return
    if alpha and alpha.getextrema()[1] == 0:
        raise ValueError("the picture is completely transparent: there is nothing to find in it")
    if alpha and alpha.getextrema()[0] < 255:
        raise ValueError("the transparent picture, laid on white, is of one colour: lay it on another colour first")
    raise ValueError("the picture is of one colour: there is nothing to find in it")


def _is_of_one_colour(picture: Image.Image) -> bool:
    """Whether all but a few pixels lie within `NOISE` of one colour, without any pattern.

    A few are fewer than `SMALLEST_OBJECT`. A pattern is a square of 8 x 8 pixels that differs from that colour by one
    level (of 256) on average.
    """
    counts = np.reshape(picture.histogram(), (3, 256))
    colour = (counts.cumsum(1) * 2 >= counts.sum(1, keepdims=True)).argmax(1)  # the median
    off = np.abs(np.arange(256) - colour[:, None])
    if (counts * (off > 0)).sum(1).max() < SMALLEST_OBJECT:
        return True
    if (counts * (off > NOISE)).sum(1).max() >= SMALLEST_OBJECT:
        return False
    offsets = (np.asarray(picture, np.float32) - colour).clip(-NOISE, NOISE)
    return np.abs(scipy.ndimage.uniform_filter(offsets, (8, 8, 0))).max() < 0.99


# --- Sizes


def size_for_network(size: tuple[int, int], area: int, *, keep_aspect: bool, multiple: int) -> tuple[int, int]:
    """(width, height) that the network sees.

    Each side is scaled by sqrt(area / (width * height)), truncated, and rounded up to `multiple`; without
    `keep_aspect` both sides are sqrt(area), rounded up likewise.
    """
    width, height = size
    scale = math.sqrt(area / (width * height))
    sides = (int(width * scale), int(height * scale)) if keep_aspect else (math.isqrt(area),) * 2
    return tuple(max(1, math.ceil(side / multiple)) * multiple for side in sides)


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture -> (1, 3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture, np.float32))  # (H, W, 3)
    return (pixels / 127.5 - 1).permute(2, 0, 1)[None].contiguous()
