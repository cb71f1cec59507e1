"""How datasets with ground truth lie in their folders: a plain one, and the best known as they leave their archives."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ..dataset.formats import voc_colours
from ..dataset.labelled import VOID
from ..decoding import decode

PLAIN_WORDS = "classes.txt"
VOC_WORDS = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
MSRC_WORDS = (
    *("building", "grass", "tree", "cow", "horse", "sheep", "sky", "mountain", "aeroplane", "water", "face", "car"),
    *("bicycle", "flower", "sign", "bird", "book", "chair", "road", "cat", "dog", "body", "boat"),
)
MSRC_NUMBERS = (*range(1, 19), *range(21, 26))  # that the classes' colours have in Pascal VOC

Read = Callable[[Path], np.ndarray]
"""Reads a file of labels as (H, W) uint8, with `VOID`. Raises `ValueError` if it is not as its layout says."""


@dataclass(frozen=True)
class Layout:
    """A kind of folder. In the patterns stand a {split}, if there are several, and a picture's {name}."""

    title: str
    pictures: str
    labels: str
    open: Callable[[Path, str], tuple[Read, tuple[str, ...] | None]]
    """For a folder and a split: how labels are read, and what their classes 0, 1, … are called, if that is known."""
    splits: tuple[str, ...] = ("",)
    """The first one is meant where none is named."""
    listed: str | None = None
    """The text file that names the pictures of a split; without it, all pictures with labels are its pictures."""

    def files(self, split: str, name: str = "") -> tuple[Path, Path]:
        """Of the picture, with * for an ending that may be any, and of its labels, below the folder."""
        picture, labels = (Path(pattern.format(split=split, name=name)) for pattern in (self.pictures, self.labels))
        return picture, labels

    def fits(self, folder: Path, split: str) -> bool:
        return split in self.splits and all((folder / file).parent.is_dir() for file in self.files(split))

    def names(self, folder: Path, split: str) -> tuple[str, ...]:
        if self.listed and (file := folder / self.listed.format(split=split)).exists():
            return text_lines(file)
        before, after = Path(self.labels).name.split("{name}")
        files = (folder / self.files(split)[1]).parent.glob(f"{before}*{after}")
        return tuple(sorted(file.name.removeprefix(before).removesuffix(after) for file in files))


def text_lines(file: Path) -> tuple[str, ...]:
    """Those of a text file that are not empty."""
    return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())


def _plain(folder: Path, split: str) -> tuple[Read, tuple[str, ...] | None]:
    file = folder / PLAIN_WORDS
    return _numbers, text_lines(file) if file.exists() else None


def _numbers(file: Path) -> np.ndarray:
    labels = np.asarray(decode(file).picture)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"{_called(file)} must be an 8-bit PNG of one channel (grey or palette)")
    return labels


def _called(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _voc(folder: Path, split: str) -> tuple[Read, tuple[str, ...] | None]:
    return _coloured, VOC_WORDS


def _coloured(file: Path) -> np.ndarray:
    """Numbers as they are, or those that Pascal VOC's colours stand for."""
    picture = decode(file).picture
    if picture.mode in ("L", "P"):
        return np.asarray(picture)
    every, colours = _packed(voc_colours(256)), _packed(np.asarray(picture.convert("RGB")))
    order = every.argsort()
    found = order[np.minimum(np.searchsorted(every, colours, sorter=order), 255)]
    if (strange := colours != every[found]).any():
        colour = colours[strange][0].item().to_bytes(3, "little")
        raise ValueError(f"{_called(file)} has the colour {tuple(colour)}, which stands for no class in Pascal VOC")
    return found.astype(np.uint8)


def _packed(colours: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 as (...) int: red is the lowest byte."""
    return colours.astype(int) @ (1, 1 << 8, 1 << 16)


def _msrc(folder: Path, split: str) -> tuple[Read, tuple[str, ...] | None]:
    table = np.full(256, VOID, np.uint8)
    table[[*MSRC_NUMBERS]] = range(len(MSRC_NUMBERS))
    return lambda file: table[_coloured(file)], MSRC_WORDS


def _panoptic(folder: Path, split: str) -> tuple[Read, tuple[str, ...] | None]:
    """A pixel's colour is the number of a segment, whose class a JSON file tells."""
    file = folder / f"annotations/panoptic_{split}2017.json"
    if not file.exists():
        raise ValueError(f"{file} is missing, which says what the segments of COCO's panoptic labels are")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        words = {kind["id"]: kind["name"] for kind in content["categories"]}
        index = {kind: i for i, kind in enumerate(words)}
        segments = {
            one["file_name"]: {part["id"]: index[part["category_id"]] for part in one["segments_info"]}
            for one in content["annotations"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not describe panoptic labels as COCO's does: {error!r}") from None

    def read(file: Path) -> np.ndarray:
        if file.name not in segments:
            raise ValueError(f"{_called(file)} is not in panoptic_{split}2017.json")
        colours = _packed(np.asarray(decode(file).picture.convert("RGB")))
        numbers, at = np.unique(colours, return_inverse=True)
        classes = [segments[file.name].get(number, VOID) for number in numbers.tolist()]
        return np.array(classes, np.uint8)[at].reshape(colours.shape)

    return read, tuple(words.values())


def _bsds(folder: Path, split: str) -> tuple[Read, tuple[str, ...] | None]:
    return _regions, None


def _regions(file: Path) -> np.ndarray:
    """What the one of several people drew who has the middle number of regions; region 0 is the largest.

    Regions after the 255th are void.
    """
    try:
        people = [one["Segmentation"][0, 0] for one in loadmat(file)["groundTruth"].ravel()]
    except Exception as error:  # scipy raises many kinds for files that are not MATLAB's
        raise ValueError(f"{_called(file)} is not one of BSDS500's files: {error!r}") from None
    people.sort(key=lambda regions: len(np.unique(regions)))
    middle = people[len(people) // 2]
    _, at, sizes = np.unique(middle, return_inverse=True, return_counts=True)
    rank = (-sizes).argsort(kind="stable").argsort()
    return np.minimum(rank, VOID).astype(np.uint8)[at].reshape(middle.shape)


LAYOUTS = (
    Layout("images/ and labels/", "images/{name}.*", "labels/{name}.png", _plain),
    Layout(
        "Pascal VOC",
        "JPEGImages/{name}.jpg",
        "SegmentationClass/{name}.png",
        _voc,
        ("val", "train", "trainval"),
        "ImageSets/Segmentation/{split}.txt",
    ),
    Layout("MSRC", "Images/{name}.bmp", "GroundTruth/{name}_GT.bmp", _msrc),
    Layout(
        "COCO with panoptic labels",
        "{split}2017/{name}.jpg",
        "annotations/panoptic_{split}2017/{name}.png",
        _panoptic,
        ("val", "train"),
    ),
    Layout(
        "COCO-Stuff", "images/{split}2017/{name}.jpg", "annotations/{split}2017/{name}.png", _plain, ("val", "train")
    ),
    Layout("BSDS500", "images/{split}/{name}.jpg", "groundTruth/{split}/{name}.mat", _bsds, ("test", "val", "train")),
)
