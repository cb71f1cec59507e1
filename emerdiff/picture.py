"""Pictures in: anything that people have, as plain RGB; and their size for the network."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SHORTEST_SIDE = 64  # pixels
LARGEST_AREA = 20_000_000  # pixels
LONGEST_ASPECT = 16  # longer side to shorter: as sides are rounded up to 64, longer ones would grow out of hand
SIDE_MULTIPLE = 64  # of the picture the network sees: 8 for the autoencoder, 8 for three downsamplings

Picture = Image.Image | np.ndarray | str | Path


def open_picture(source: Picture) -> Image.Image:
    """An upright 8-bit RGB picture from a file, a PIL image or an (H, W, 3) uint8 array.

    EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, and of an
    animation the first frame is taken. Raises `ValueError` where the file cannot be read, a side is under
    64 pixels or the picture has over 20 million; the size is checked before the pixels are decoded.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the picture")
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
            raise ValueError(f"an array must be (H, W, 3) uint8, not {source.shape} {source.dtype}")
        return _upright_rgb(Image.fromarray(source), "the picture")
    name = Path(source).name
    with _explained(name):
        picture = Image.open(source)
    with picture:
        return _upright_rgb(picture, name)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What Pillow raises over a file, and that can be nearly anything, as `ValueError`."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(_size_message(str(error))) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture in a format that can be read") from error
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _size_message(what: str) -> str:
    limits = f"at least {SHORTEST_SIDE} pixels a side and at most {LARGEST_AREA / 1e6:.0f} million in all"
    return f"a picture needs {limits}: {what}"


def _upright_rgb(picture: Image.Image, name: str) -> Image.Image:
    width, height = picture.size
    if min(width, height) < SHORTEST_SIDE or width * height > LARGEST_AREA:
        raise ValueError(_size_message(f"this one has {width} x {height}"))
    if max(width, height) > LONGEST_ASPECT * min(width, height):
        limit = f"a picture may be at most {LONGEST_ASPECT} times as long as it is wide, or as wide as it is high"
        raise ValueError(f"{limit}: this one has {width} x {height}")
    with _explained(name):
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):  # 16-bit grey, or wider
            values = np.nan_to_num(np.asarray(picture, np.float64), posinf=0, neginf=0)
            depth = 65535 if picture.mode.startswith("I") else 1e-9
            picture = Image.fromarray((values / max(depth, values.max()) * 255).clip(0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")


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
