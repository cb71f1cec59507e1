"""The pictures that the page offers, and their results: stored ones to open with, full ones to explore.

A full result is computed once, at the first use, and kept in a folder; its file's name is a digest of all that it
comes from, so that other weights, code or settings make another.
"""

import hashlib
import json
import os
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from PIL import Image

import emerdiff
from emerdiff.loading import MINIATURE, fast_dtype
from emerdiff.masks import label, upsample_naive
from emerdiff.miniature import WEIGHTS
from emerdiff.picture import open_picture

from .folders import ROOT
from .runs import calibrate, defaults, find, label_of, shown
from .session import FINE, Found

FOLDER = Path(__file__).parents[1] / "examples"
CACHE = ROOT / "examples"
PHOTOGRAPHS = (("china", "Palace", 12), ("flower", "Flower", 8))  # name, title, k: they come with scikit-learn

ARRAYS = ("image", "coarse_labels", "features", "responses")  # of a result: what the others follow from

_computing = threading.Lock()


@dataclass(frozen=True)
class Example:
    name: str
    title: str
    picture: Path
    k: int
    truth: Path | None = None
    """Its classes, an indexed PNG."""
    summary: dict | None = None
    """Of the stored result, if there is one."""

    @property
    def settings(self) -> emerdiff.Settings:
        return emerdiff.Settings(**self.summary["settings"]) if self.summary else defaults(label_of(MINIATURE))


@lru_cache(maxsize=1)
def examples() -> tuple[Example, ...]:
    """Drawn scenes, see examples/make.py, and two photographs."""
    drawn = [
        Example(
            entry["name"],
            entry["title"],
            FOLDER / f"{entry['name']}.jpg",
            entry["k"],
            FOLDER / f"{entry['name']}_truth.png",
            entry["summary"],
        )
        for entry in json.loads((FOLDER / "examples.json").read_text())
    ]
    folder = Path(str(files("sklearn.datasets.images")))
    return (*drawn, *(Example(name, title, folder / f"{name}.jpg", k) for name, title, k in PHOTOGRAPHS))


@lru_cache(maxsize=1)
def files_of_examples() -> tuple[Path, ...]:
    """The examples' pictures and truths: what the page may show, and open again when a visitor sends it back."""
    return tuple(file.resolve() for example in examples() for file in (example.picture, example.truth) if file)


def at_hand(example: Example) -> bool:
    """Whether `full` needs no run."""
    return is_zipfile(_file(example))  # a file that broke off is none


def full(example: Example) -> Generator[emerdiff.Progress, None, Found]:
    """The example in `FINE` segments, from the folder or by a run; yields the run's progress."""
    source, values, file = example.picture, {"num_segments": FINE}, _file(example)
    with _computing:  # others wait, and find the file
        if (kept := _read(file)) is None:
            found = yield from find(source, label_of(MINIATURE), "exact", values)
            with suppress(OSError):  # a disk that is full, or not ours: computed again next time
                _write(found.segmentation, file)
            return found
    return Found(str(source), shown(open_picture(source)), kept, "exact", seconds=0)


@lru_cache(maxsize=1)
def _code() -> bytes:
    package = Path(emerdiff.__file__).parent
    digest = hashlib.sha256(str(fast_dtype(torch.device("cpu"))).encode())
    for path in sorted([*package.glob("*.py"), *(p for p in WEIGHTS.rglob("*") if p.is_file())]):
        digest.update(path.read_bytes())
    return digest.digest()


def _file(example: Example) -> Path:
    digest = hashlib.sha256(_code() + example.picture.read_bytes() + str(FINE).encode()).hexdigest()[:16]
    return CACHE / f"{example.name}-{digest}.npz"


def _write(result: emerdiff.Segmentation, file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in file.parent.glob(f"{file.name.rsplit('-', 1)[0]}-*"):
        old.unlink(missing_ok=True)
    facts = {
        "original_size": result.original_size,
        "settings": asdict(result.settings),
        "model": result.model,
        "notes": result.notes,
    }
    arrays = {name: getattr(result, name) for name in ARRAYS}
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, facts=json.dumps(facts), **arrays)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _read(file: Path) -> emerdiff.Segmentation | None:
    """What `_write` wrote; None where it is not there or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
            facts = json.loads(str(kept["facts"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    settings = emerdiff.Settings(**facts["settings"])
    differences = np.linalg.norm(arrays["responses"].astype(np.float32), axis=1)
    labels, confidence = label(differences)
    return emerdiff.Segmentation(
        **arrays,
        labels=labels,
        differences=differences,
        naive_labels=upsample_naive(arrays["coarse_labels"], settings.num_segments, labels.shape),
        confidence=confidence,
        original_size=tuple(facts["original_size"]),
        settings=settings,
        model=facts["model"],
        notes=tuple(facts["notes"]),
    )


def stored(example: Example) -> tuple[Image.Image, np.ndarray, np.ndarray, np.ndarray]:
    """What the page opens with: the picture as it is shown, labels and naive labels at its size, and coarse labels."""
    parts = (np.asarray(Image.open(FOLDER / f"{example.name}_{what}.png")) for what in ("labels", "naive", "coarse"))
    return shown(open_picture(example.picture)), *parts


def warm() -> None:
    """Time the miniature on this machine, then compute all full results that are not there yet."""
    calibrate(examples()[0].picture)
    for example in examples():
        for _ in full(example):
            pass
