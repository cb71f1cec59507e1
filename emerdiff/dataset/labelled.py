"""One picture with its labels, at its own size, as every format gets it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ..picture import Opened, read_picture
from ..segmentation import Segmentation
from .named import Named
from .pictures import Source

VOID = 255
"""The label of pixels that belong to no segment, or have no ground truth: these count in no score."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A picture that has been read."""

    opened: Opened
    file: bytes
    """What it is copied as: the file itself, or a PNG where readers would see other pixels in that."""
    ending: str


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture that has been segmented."""

    name: str
    stem: str
    image: str
    """The name of its copy in each format that has one."""
    labels: np.ndarray
    """(height, width) uint8 at the picture's own size: the segment of each pixel, or `VOID`."""
    classes: Sequence[int]
    """(k,) which of the dataset's classes each segment has."""
    told: Sequence[Mapping[str, object]]
    """(k,) what the summary says of each segment's name."""
    scores: tuple[float, ...]
    """(k,) mean confidence of each segment, 0 to 1; 0 for those without pixels."""
    result: Segmentation

    @property
    def segments(self) -> list[int]:
        """The segments that have pixels."""
        return [i for i in np.unique(self.labels).tolist() if i != VOID]

    @property
    def kept(self) -> np.ndarray:
        """(k,) bool: which segments are not void."""
        return np.isin(np.arange(len(self.classes)), self.segments)


def load(source: Source, *, copied: bool) -> Loaded:
    """Reads a picture; its `file` is left empty if it need not be `copied`. Raises `ValueError` with the reason."""
    opened = read_picture(source.path)
    if not copied:
        return Loaded(opened, b"", "")
    if ending := _ending_as_it_is(source.path, opened.picture):
        return Loaded(opened, source.path.read_bytes(), ending)
    opened.picture.save(stream := io.BytesIO(), "PNG")
    return Loaded(opened, stream.getvalue(), ".png")


def _ending_as_it_is(file: Path, picture: Image.Image) -> str:
    """The ending for a copy of a file in which every reader sees the same pixels as in `picture`, or nothing."""
    try:
        with Image.open(file, formats=["JPEG", "PNG"]) as stored:
            plain = stored.mode in ("L", "P", "RGB") and not stored.has_transparency_data
            upright = stored.getexif().get(ExifTags.Base.Orientation, 1) == 1
            if plain and upright and np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(picture)):
                return ".png" if stored.format == "PNG" else ".jpg"
    except Exception:  # it has been read, but Pillow alone can raise anything for it
        pass
    return ""


def label(source: Source, loaded: Loaded, named: Named, min_confidence: float) -> Labelled:
    """The picture with its segments and their classes; segments less confident than `min_confidence` become void."""
    result, image = named.result, source.stem + loaded.ending
    labels = result.labels_at_original_size.astype(np.uint8)
    scores = tuple(segment["mean_confidence"] or 0.0 for segment in result.summary()["segments"])
    labels[(np.array(scores) < min_confidence)[labels]] = VOID
    return Labelled(source.name, source.stem, image, labels, named.classes, named.told, scores, result)
