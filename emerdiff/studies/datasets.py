"""Pictures with truth to evaluate on: drawn scenes, or a folder of one's own."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..decoding import decode
from ..miniature.scenes import CLASSES, KINDS, draw_scene
from ..picture import Picture, open_picture

VOID = 255
"""Label of pixels that are not judged: they count in no score, and no boundary to them counts."""


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes of the miniature's world, by their seeds; pixel-exact, without void."""

    seeds: range
    side: int
    kind: str | None = None
    """One of the world's `KINDS`, or what each seed draws."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(seed) for seed in self.seeds)

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8."""
        scene = draw_scene(int(name), self.side, self.kind)
        return scene.image, scene.labels.astype(np.uint8)


@dataclass(frozen=True)
class Folder:
    """`images/NAME.*` and `labels/NAME.png`: a class number, or 255 for void, in each pixel."""

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in (self.path / "labels").glob("*.png")))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(VOID))

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8; `ValueError` where they do not fit each other."""
        found = [file for file in (self.path / "images").glob(f"{name}.*") if file.stem == name]
        if len(found) != 1:
            raise ValueError(f"{name}: images/ has {len(found)} pictures of that name; labels/{name}.png needs one")
        picture = open_picture(found[0])
        labels = np.asarray(decode(self.path / "labels" / f"{name}.png").picture)
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise ValueError(f"labels/{name}.png must be an 8-bit PNG of one channel (grey or palette)")
        if labels.shape != picture.size[::-1]:
            size = "{1} x {0}".format(*labels.shape)
            raise ValueError(f"labels/{name}.png is {size}, but its picture {picture.width} x {picture.height}")
        return picture, labels


Dataset = Scenes | Folder


def open_dataset(source: str, side: int) -> Dataset:
    """`scenes:SEED..SEED`, both included and drawn at `side`, or a folder with `images/` and `labels/`.

    In place of `scenes` stands a kind, as in `room:SEED..SEED`, for scenes of that kind alone.
    """
    kind, colon, seeds = source.partition(":")
    if colon and kind in ("scenes", *KINDS):
        if not (match := re.fullmatch(r"(\d+)\.\.(\d+)", seeds)) or int(match[1]) > int(match[2]):
            raise ValueError(f"scenes are given as {kind}:500000..500099, first and last seed, not {source!r}")
        return Scenes(range(int(match[1]), int(match[2]) + 1), side, None if kind == "scenes" else kind)
    folder = Path(source)
    if not (folder / "images").is_dir() or not (folder / "labels").is_dir():
        raise ValueError(f"{source!r} is neither scenes:FIRST..LAST nor a folder with images/ and labels/ in it")
    dataset = Folder(folder)
    if not dataset.names:
        raise ValueError(f"{folder / 'labels'} has no .png in it")
    return dataset
