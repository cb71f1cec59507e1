"""Photographs to train on: pictures with captions, in folders and tars.

As in WebDataset, a picture and its captions are two files of the same name: `KEY.jpg`, `.jpeg`, `.png` or `.webp`, and
`KEY.txt`, in which each line is a caption.
"""

import functools
import io
import logging
import math
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..picture import open_picture

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")

log = logging.getLogger("emerdiff.miniature.photographs")


@dataclass(frozen=True)
class Entry:
    """A file, or a member of a tar, which is read from within it."""

    name: str
    file: Path
    begin: int = 0
    size: int = -1  # to the end

    @property
    def key(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def ending(self) -> str:
        return os.path.splitext(self.name)[1].lower()

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.size)


@dataclass(frozen=True)
class Photograph:
    picture: Entry
    captions: tuple[str, ...]

    def open(self) -> Image.Image:
        """Upright and 8-bit RGB; raises `ValueError` if it cannot be read."""
        try:
            return open_picture(Image.open(io.BytesIO(self.picture.read()), formats=FORMATS))
        except Exception as error:  # Pillow can raise nearly anything for a file
            raise ValueError(f"{self.picture.name} is skipped: {error}") from error

    def draw(self, seed: int, side: int) -> tuple[np.ndarray, str]:
        """Picture (side, side, 3) uint8 and caption: a random square, at least 0.8 times as wide as the shorter side.

        Half of the squares are mirrored. The caption is a random one if there are several.
        """
        rng, picture = np.random.default_rng(seed), self.open()
        width = rng.uniform(0.8, 1) * min(picture.size)
        left, top = rng.random(2) * (np.array(picture.size) - width)
        square = picture.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + width, top + width))
        pixels = np.asarray(square if rng.random() < 0.5 else ImageOps.mirror(square))
        return pixels, self.captions[rng.integers(len(self.captions))]


@dataclass(frozen=True)
class Photographs:
    """Photographs for a share of the training seeds: none is repeated before all others have been used."""

    found: tuple[Photograph, ...] = ()
    share: float = 0.0

    def of(self, seed: int) -> Photograph | None:
        """The one whose turn it is; None if a scene is to be drawn."""
        turn = math.floor(seed * self.share)
        if not self.found or math.floor((seed + 1) * self.share) == turn:
            return None
        times, at = divmod(turn, len(self.found))
        return self.found[_order(len(self.found), times)[at]]


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def find_photographs(paths: Sequence[Path], *, workers: int = 1) -> tuple[Photograph, ...]:
    """Finds those in folders and tars, and in folders and tars within folders; the log counts what is skipped.

    Each picture is opened once, by `workers` threads, so that training never comes across an unreadable one. Raises
    `ValueError` for a path that is neither a folder nor a tar, and if nothing is found.
    """
    entries = [entry for path in paths for entry in _entries(path)]
    pictures = [entry for entry in entries if entry.ending in ENDINGS]
    captions = {entry.key: _captions(entry) for entry in entries if entry.ending == ".txt"}
    pairs = [Photograph(picture, captions[picture.key]) for picture in pictures if captions.get(picture.key)]
    with ThreadPool(workers) as pool:
        readable = pool.map(_is_readable, pairs)
    found = tuple(pair for pair, is_readable in zip(pairs, readable, strict=True) if is_readable)
    log.info(
        "%d photographs; skipped: %d that cannot be read, %d without a caption, %d captions without a picture",
        len(found),
        len(pairs) - len(found),
        len(pictures) - len(pairs),
        len(captions.keys() - {picture.key for picture in pictures}),
    )
    if not found:
        where, endings = ", ".join(map(str, paths)), ", ".join(ENDINGS)
        raise ValueError(f"{where}: no readable picture ({endings}) has a .txt of the same name")
    return found


def _entries(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            yield from _entries(file) if file.suffix == ".tar" else [Entry(str(file), file)]
        return
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed: members are read from within it
            members = [member for member in tar if member.isreg()]
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{path} is neither a folder nor a tar that can be read: {error}") from error
    for member in members:
        yield Entry(f"{path}/{member.name}", path, member.offset_data, member.size)


def _captions(text: Entry) -> tuple[str, ...]:
    lines = text.read().decode(errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _is_readable(photograph: Photograph) -> bool:
    try:
        photograph.open()
    except ValueError as error:
        log.warning("%s", error)
        return False
    return True
