"""What the page needs to know of a picture, from one look into its file, which takes a while for a large photograph."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from emerdiff.picture import read_picture

SIDES = 512, 1024  # pixels: pictures are shown with a longer side between these
MOST = 16  # pictures, 3 MB each


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture that can be read."""

    shown: Image.Image
    """At a size that shows well."""
    notes: tuple[str, ...]
    """What was done to it, as `Opened` says."""
    key: str
    """As `key_of_pixels` has it."""


@lru_cache(MOST)
def seen(source: str) -> Seen:
    """The picture in a file, of an example or an upload, whose content never changes. Raises as `read_picture`."""
    opened = read_picture(source)
    return Seen(_shown(opened.picture), opened.notes, key_of_pixels(opened.picture))


def key_of_pixels(picture: Image.Image) -> str:
    """32 hexadecimal digits that follow from a picture's pixels."""
    return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).hexdigest()[:32]


def _shown(picture: Image.Image) -> Image.Image:
    side = max(picture.size)
    scale = min(max(side, SIDES[0]), SIDES[1]) / side
    return picture.resize([max(1, round(s * scale)) for s in picture.size], Image.Resampling.LANCZOS)
