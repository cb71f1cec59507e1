"""Pictures with ground truth to evaluate on: drawn scenes, or a folder."""

import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np

from ..dataset.labelled import VOID
from ..miniature.scenes import CLASSES, KINDS, draw_scene
from ..miniature.words import PARTS, WORD_OF_CLASS
from ..picture import Picture, open_picture
from .layouts import LAYOUTS, Layout, Read


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes of the miniature's world, named by their seeds; exact to the pixel, without void."""

    seeds: range
    side: int
    kind: str | None = None
    """One of the world's `KINDS`; None for the kind that each seed draws."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(seed) for seed in self.seeds)

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES

    @property
    def words(self) -> tuple[str, ...]:
        """The words to call the classes by."""
        every = tuple(PARTS)
        return tuple(every[i] for i in WORD_OF_CLASS)

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8."""
        scene = draw_scene(int(name), self.side, self.kind)
        return scene.image, scene.labels.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of pictures and labels in one of the `LAYOUTS`."""

    path: Path
    split: str
    layout: Layout
    names: tuple[str, ...]
    read: Read
    words: tuple[str, ...] | None
    """The words to call the classes by, if that is known."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(VOID))

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8. Raises `ValueError` if they do not fit each other."""
        pattern, labels_of = self.layout.files(self.split, name)
        place = pattern.parent
        found = [file for file in (self.path / place).glob(f"{escape(name)}{pattern.suffix}") if file.stem == name]
        if len(found) != 1:
            raise ValueError(f"{labels_of} needs one picture of that name in {place}/, which has {len(found)}")
        picture, labels = open_picture(found[0]), self.read(self.path / labels_of)
        if labels.shape != picture.size[::-1]:
            size, expected = ("{} x {}".format(*size) for size in (labels.shape[::-1], picture.size))
            raise ValueError(f"{labels_of} is {size} pixels, but its picture is {expected}")
        return picture, labels


Dataset = Scenes | Folder


def open_dataset(source: str, side: int) -> Dataset:
    """Opens `scenes:FIRST..LAST`, drawn at `side` by the seeds from first to last, or a folder of pictures and labels.

    A kind in place of `scenes`, as in `room:FIRST..LAST`, draws scenes of that kind only. The folder has images/ and
    labels/, or is that of one of the known datasets; its split may follow, as in `VOC2012:train`. Raises `ValueError`
    for anything else.
    """
    kind, colon, seeds = source.partition(":")
    if colon and kind in ("scenes", *KINDS):
        if not (match := re.fullmatch(r"(\d+)\.\.(\d+)", seeds)) or int(match[1]) > int(match[2]):
            raise ValueError(f"scenes are given by first and last seed, as in {kind}:500000..500099, not {source!r}")
        return Scenes(range(int(match[1]), int(match[2]) + 1), side, None if kind == "scenes" else kind)
    before, colon, split = source.rpartition(":")
    for layout in LAYOUTS:
        for path, of in ((Path(source), layout.splits[0]), (Path(before), split)):
            if layout.fits(path, of):
                names, (read, words) = layout.names(path, of), layout.open(path, of)
                if not names:
                    raise ValueError(f"there is no file {layout.labels.format(split=of, name='*')} in {path}")
                return Folder(path, of, layout, names, read, words)
    titles = [layout.title for layout in LAYOUTS]
    known = f"{', '.join(titles[1:-1])} or {titles[-1]}"
    raise ValueError(
        f"{source!r} is neither scenes:FIRST..LAST nor a folder with {titles[0]}, or that of {known}, "
        "which a split may follow, as in VOC2012:train"
    )
