"""Pictures with ground truth to evaluate on: drawn scenes, or a folder of your own."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..dataset.labelled import VOID
from ..decoding import decode
from ..miniature.scenes import CLASSES, KINDS, draw_scene
from ..picture import Picture, open_picture


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

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8."""
        scene = draw_scene(int(name), self.side, self.kind)
        return scene.image, scene.labels.astype(np.uint8)


@dataclass(frozen=True)
class Folder:
    """A folder with `images/NAME.*` and `labels/NAME.png`, whose pixels are class numbers, or 255 for void."""

    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in (self.path / "labels").glob("*.png")))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(VOID))

    def load(self, name: str) -> tuple[Picture, np.ndarray]:
        """The picture and its labels (H, W) uint8. Raises `ValueError` if they do not fit each other."""
        found = [file for file in (self.path / "images").glob(f"{name}.*") if file.stem == name]
        if len(found) != 1:
            raise ValueError(f"labels/{name}.png needs one picture of that name in images/, which has {len(found)}")
        picture = open_picture(found[0])
        labels = np.asarray(decode(self.path / "labels" / f"{name}.png").picture)
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise ValueError(f"labels/{name}.png must be an 8-bit PNG of one channel (grey or palette)")
        if labels.shape != picture.size[::-1]:
            size, expected = ("{} x {}".format(*size) for size in (labels.shape[::-1], picture.size))
            raise ValueError(f"labels/{name}.png is {size} pixels, but its picture is {expected}")
        return picture, labels


Dataset = Scenes | Folder


def open_dataset(source: str, side: int) -> Dataset:
    """Opens `scenes:FIRST..LAST`, drawn at `side` by the seeds from first to last, or a folder of pictures and labels.

    A kind in place of `scenes`, as in `room:FIRST..LAST`, draws scenes of that kind only. Raises `ValueError` for
    anything else.
    """
    kind, colon, seeds = source.partition(":")
    if colon and kind in ("scenes", *KINDS):
        if not (match := re.fullmatch(r"(\d+)\.\.(\d+)", seeds)) or int(match[1]) > int(match[2]):
            raise ValueError(f"scenes are given by first and last seed, as in {kind}:500000..500099, not {source!r}")
        return Scenes(range(int(match[1]), int(match[2]) + 1), side, None if kind == "scenes" else kind)
    folder = Path(source)
    if not (folder / "images").is_dir() or not (folder / "labels").is_dir():
        raise ValueError(f"{source!r} is neither scenes:FIRST..LAST nor a folder that contains images/ and labels/")
    dataset = Folder(folder)
    if not dataset.names:
        raise ValueError(f"there is no PNG file in {folder / 'labels'}")
    return dataset
